-- Documents, their chunks, vectors and keyword index. Every primary key starts with the tenant.
-- Keys compare by bytes, so that page order does not depend on the database's locale.

CREATE EXTENSION IF NOT EXISTS vector;

CREATE SEQUENCE rag.collection_version;

CREATE TABLE rag.collection (
    tenant_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    collection_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    -- Both are set together, by the first document.
    embedding_model text,
    embedding_dimension integer,
    document_count bigint NOT NULL DEFAULT 0,
    chunk_count bigint NOT NULL DEFAULT 0,
    token_sum bigint NOT NULL DEFAULT 0,
    -- From one sequence, so that a collection made anew never repeats an old version.
    version bigint NOT NULL DEFAULT nextval('rag.collection_version'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE rag.document (
    tenant_id text COLLATE "C" NOT NULL,
    collection_id bigint NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    title text NOT NULL,
    source_uri text NOT NULL,
    media_type text NOT NULL,
    content_digest text NOT NULL,
    index_fingerprint text NOT NULL,
    byte_count bigint NOT NULL,
    character_count integer NOT NULL,
    chunk_count integer NOT NULL,
    version bigint NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    text text NOT NULL,
    PRIMARY KEY (tenant_id, collection_id, document_id)
);

CREATE SEQUENCE rag.chunk_id CACHE 64;

CREATE TABLE rag.chunk (
    tenant_id text COLLATE "C" NOT NULL,
    collection_id bigint NOT NULL,
    chunk_id bigint NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    ordinal integer NOT NULL,
    char_start integer NOT NULL,
    char_end integer NOT NULL,
    term_count integer NOT NULL,
    token_estimate integer NOT NULL,
    header text NOT NULL,
    heading_path text[] NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (tenant_id, chunk_id)
);

CREATE UNIQUE INDEX chunk_by_document
    ON rag.chunk (tenant_id, collection_id, document_id, ordinal);

-- The column has no dimension, because each collection has its own; an approximate index can be
-- built per dimension over a cast.
CREATE TABLE rag.embedding (
    tenant_id text COLLATE "C" NOT NULL,
    collection_id bigint NOT NULL,
    chunk_id bigint NOT NULL,
    text_digest bytea NOT NULL,
    embedding halfvec NOT NULL,
    PRIMARY KEY (tenant_id, collection_id, chunk_id)
);

-- Scans read every vector: keep up to 4000 dimensions in the row itself.
ALTER TABLE rag.embedding SET (toast_tuple_target = 8160);

CREATE INDEX embedding_by_text ON rag.embedding (tenant_id, collection_id, text_digest);

CREATE TABLE rag.posting (
    tenant_id text COLLATE "C" NOT NULL,
    collection_id bigint NOT NULL,
    chunk_id bigint NOT NULL,
    frequency integer NOT NULL,
    chunk_length integer NOT NULL,
    term text COLLATE "C" NOT NULL,
    -- BM25 reads this index alone.
    PRIMARY KEY (tenant_id, collection_id, term, chunk_id) INCLUDE (frequency, chunk_length)
);

-- Chunk ids are unique by themselves. With the tenant in front, the planner would prefer this index
-- to the primary key for keyword searches while the table has no statistics (108 ms, not 4).
CREATE INDEX posting_by_chunk ON rag.posting (chunk_id);
