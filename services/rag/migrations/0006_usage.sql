-- The books: what became of queries, what they cost, what users think of them, what may be spent.

CREATE TABLE rag.query_log (
    tenant_id text COLLATE "C" NOT NULL,
    query_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    started_at timestamptz NOT NULL,
    call text NOT NULL,
    mode text NOT NULL,
    collection text COLLATE "C" NOT NULL,
    model text NOT NULL,
    outcome text NOT NULL,
    error_reason text NOT NULL,
    origin text NOT NULL,
    degradations text[] NOT NULL,
    quality double precision,
    call_count bigint NOT NULL,
    estimated_call_count bigint NOT NULL,
    prompt_token_count bigint NOT NULL,
    completion_token_count bigint NOT NULL,
    -- Billionths of the currency.
    cost_nanos bigint NOT NULL,
    saved_token_count bigint NOT NULL,
    saved_cost_nanos bigint NOT NULL,
    duration_seconds double precision NOT NULL,
    first_text_seconds double precision,
    bottleneck text NOT NULL,
    trace_id text NOT NULL,
    -- Variant by experiment.
    variants jsonb NOT NULL,
    -- The semantic cache's entry that the answer came from or is kept as; NULL without one.
    cache_entry jsonb,
    -- A pannier.rag.v1.Profile.
    profile bytea NOT NULL,
    -- Empty unless texts are kept.
    question text NOT NULL,
    answer text NOT NULL,
    PRIMARY KEY (tenant_id, query_id)
);

CREATE INDEX query_log_latest ON rag.query_log (tenant_id, started_at DESC, query_id DESC);
CREATE INDEX query_log_oldest ON rag.query_log (started_at);

CREATE TABLE rag.usage_hour (
    tenant_id text COLLATE "C" NOT NULL,
    hour timestamptz NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    query_count bigint NOT NULL,
    failed_query_count bigint NOT NULL,
    cached_query_count bigint NOT NULL,
    call_count bigint NOT NULL,
    estimated_call_count bigint NOT NULL,
    prompt_token_count bigint NOT NULL,
    completion_token_count bigint NOT NULL,
    cost_nanos bigint NOT NULL,
    saved_token_count bigint NOT NULL,
    saved_cost_nanos bigint NOT NULL,
    PRIMARY KEY (tenant_id, hour, user_id, mode, model, kind)
);

CREATE INDEX usage_hour_oldest ON rag.usage_hour (hour);

-- What budgets are compared with.
CREATE TABLE rag.usage_day (
    tenant_id text COLLATE "C" NOT NULL,
    day date NOT NULL,
    cost_nanos bigint NOT NULL,
    token_count bigint NOT NULL,
    PRIMARY KEY (tenant_id, day)
);

-- Batches that have been counted, so that none is counted twice when nobody knows what became of it.
CREATE TABLE rag.usage_batch (
    batch_id uuid PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE rag.tracked_call (
    tenant_id text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, idempotency_key)
);

CREATE INDEX tracked_call_oldest ON rag.tracked_call (created_at);

CREATE TABLE rag.budget (
    tenant_id text COLLATE "C" PRIMARY KEY,
    daily_cost_nanos bigint,
    monthly_cost_nanos bigint,
    daily_token_count bigint,
    monthly_token_count bigint
);

CREATE TABLE rag.feedback (
    tenant_id text COLLATE "C" NOT NULL,
    query_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    rating smallint NOT NULL CHECK (rating BETWEEN -1 AND 1),
    reasons text[] NOT NULL,
    comment text NOT NULL,
    corrected_answer text NOT NULL,
    relevant_passage_ids text[] NOT NULL,
    -- Of the query, which may be forgotten sooner.
    mode text NOT NULL,
    model text NOT NULL,
    variants jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, query_id, user_id)
);

CREATE INDEX feedback_latest
    ON rag.feedback (tenant_id, updated_at DESC, query_id DESC, user_id DESC);

SELECT rag.confine('rag.query_log');
SELECT rag.confine('rag.usage_hour');
SELECT rag.confine('rag.usage_day');
SELECT rag.confine('rag.tracked_call');
SELECT rag.confine('rag.budget');
SELECT rag.confine('rag.feedback');
