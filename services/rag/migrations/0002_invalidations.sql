-- Changes of documents that the cache has still to be told of: noted in the transaction of the
-- change, forgotten when the cache has acknowledged them. Rows are few and short-lived.

CREATE TABLE rag.invalidation (
    number bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('document', 'collection', 'growth')),
    collection text NOT NULL,
    -- Empty but for the kind 'document'.
    document_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
