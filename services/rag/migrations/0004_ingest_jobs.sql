-- Documents that are taken in after the call that sent them, with their contents until then.

CREATE SEQUENCE rag.ingest_lease;

CREATE TABLE rag.ingest_job (
    tenant_id text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    collection text COLLATE "C" NOT NULL,
    chunking jsonb NOT NULL,
    state text NOT NULL DEFAULT 'receiving'
        CHECK (state IN ('receiving', 'active', 'completed', 'cancelled')),
    document_count integer NOT NULL DEFAULT 0,
    -- Of the documents that it is done with; whoever changes them holds the row.
    created_count integer NOT NULL DEFAULT 0,
    updated_count integer NOT NULL DEFAULT 0,
    unchanged_count integer NOT NULL DEFAULT 0,
    failed_count integer NOT NULL DEFAULT 0,
    done_count integer NOT NULL
        GENERATED ALWAYS AS (created_count + updated_count + unchanged_count + failed_count) STORED,
    chunk_count integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- While it is being received: the last sign of life of who receives it.
    touched_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    PRIMARY KEY (tenant_id, job_id)
);

CREATE UNIQUE INDEX ingest_job_by_number ON rag.ingest_job (tenant_id, number);
CREATE INDEX ingest_job_unfinished ON rag.ingest_job (number)
    WHERE state IN ('receiving', 'active');
CREATE INDEX ingest_job_finished ON rag.ingest_job (completed_at) WHERE completed_at IS NOT NULL;

CREATE TABLE rag.ingest_document (
    tenant_id text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    ordinal integer NOT NULL,
    -- The order in which documents of all jobs came in.
    number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    collection text COLLATE "C" NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    header jsonb NOT NULL,
    byte_count integer NOT NULL,
    -- NULL once the document is done with.
    content bytea,
    attempt_count integer NOT NULL DEFAULT 0,
    -- Leases that expired: whoever held them has died, perhaps of this very document.
    abandoned_count integer NOT NULL DEFAULT 0,
    lease_token bigint,
    lease_until timestamptz,
    retry_at timestamptz,
    -- NULL until the document is done with, as is what follows.
    outcome text CHECK (outcome IN ('created', 'updated', 'unchanged', 'failed')),
    -- The n-th document that the job is done with.
    done_number integer,
    chunk_count integer NOT NULL DEFAULT 0,
    computed_embedding_count integer NOT NULL DEFAULT 0,
    pending_vector_count integer NOT NULL DEFAULT 0,
    warnings text[] NOT NULL DEFAULT '{}',
    failure jsonb,
    PRIMARY KEY (tenant_id, job_id, ordinal),
    FOREIGN KEY (tenant_id, job_id) REFERENCES rag.ingest_job ON DELETE CASCADE
);

-- Packed formats do not shrink, and text is read once.
ALTER TABLE rag.ingest_document ALTER COLUMN content SET STORAGE EXTERNAL;

CREATE INDEX ingest_document_waiting ON rag.ingest_document (tenant_id, job_id, ordinal)
    INCLUDE (byte_count) WHERE outcome IS NULL;
CREATE INDEX ingest_document_leased ON rag.ingest_document (tenant_id)
    WHERE outcome IS NULL AND lease_until IS NOT NULL;
-- Documents with the same id are taken in one after the other, whichever jobs they are of.
CREATE INDEX ingest_document_by_id
    ON rag.ingest_document (tenant_id, collection, document_id, number) WHERE outcome IS NULL;
CREATE UNIQUE INDEX ingest_document_result
    ON rag.ingest_document (tenant_id, job_id, done_number) WHERE outcome IS NOT NULL;

SELECT rag.confine('rag.ingest_job');
SELECT rag.confine('rag.ingest_document');
