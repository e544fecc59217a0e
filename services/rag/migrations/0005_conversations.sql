-- Conversations and their turns. Of documents only ids and places are kept: what is quoted is read
-- from the documents when a turn is shown, and goes with them.

CREATE TABLE rag.conversation (
    tenant_id text COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Empty for callers who name no user; these share their conversations.
    user_id text COLLATE "C" NOT NULL,
    title text NOT NULL,
    turn_count integer NOT NULL DEFAULT 0,
    summary text NOT NULL DEFAULT '',
    -- The first so many turns are in the summary.
    summarized_turn_count integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Whoever adds a turn; one at a time.
    claim uuid,
    claimed_until timestamptz,
    PRIMARY KEY (tenant_id, conversation_id)
);

CREATE INDEX conversation_by_user
    ON rag.conversation (tenant_id, user_id, updated_at DESC, conversation_id DESC);

CREATE TABLE rag.turn (
    tenant_id text COLLATE "C" NOT NULL,
    conversation_id uuid NOT NULL,
    number integer NOT NULL,
    question text NOT NULL,
    answer text NOT NULL,
    interrupted boolean NOT NULL,
    query_id text NOT NULL,
    model text NOT NULL,
    collection text COLLATE "C" NOT NULL,
    -- Objects with the fields of services.rag.core.dialogue.CitedSpan.
    citations jsonb NOT NULL,
    -- The documents among them.
    document_ids text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, conversation_id, number),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES rag.conversation ON DELETE CASCADE
);

CREATE INDEX turn_by_document ON rag.turn USING gin (document_ids);

SELECT rag.confine('rag.conversation');
SELECT rag.confine('rag.turn');
