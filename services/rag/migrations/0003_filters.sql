-- What filters ask for, vectors that come later, pages, and the second wall between tenants.

-- Row-level security: a transaction that runs under the confined role (see PostgresPool) sees and
-- writes the rows of the tenant in `app.tenant` alone. Every table with a tenant is to be confined;
-- tables that are not cannot be reached under that role at all.
CREATE FUNCTION rag.confine(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format(
        'CREATE POLICY tenant ON %s USING (tenant_id = current_setting(''app.tenant'', true))',
        relation
    );
END
$$;

SELECT rag.confine('rag.collection');
SELECT rag.confine('rag.document');
SELECT rag.confine('rag.chunk');
SELECT rag.confine('rag.embedding');
SELECT rag.confine('rag.posting');
SELECT rag.confine('rag.invalidation');

-- `number` stands for one version of one document: chunk n of it has the id (number << 22) + n, so
-- that hits of both arms, which are chunk ids, meet the documents that a filter leaves without
-- another column or join.
ALTER TABLE rag.document
    ADD COLUMN number bigint,
    ADD COLUMN tags text[] NOT NULL DEFAULT '{}',
    -- Empty for everyone of the tenant.
    ADD COLUMN readers text[] NOT NULL DEFAULT '{}',
    ADD COLUMN language text NOT NULL DEFAULT '',
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN page_count integer NOT NULL DEFAULT 0,
    ADD COLUMN pending_vector_count integer NOT NULL DEFAULT 0,
    -- Whether there are callers or times for which it does not count.
    ADD COLUMN guarded boolean NOT NULL
        GENERATED ALWAYS AS (cardinality(readers) > 0 OR expires_at IS NOT NULL) STORED;

ALTER TABLE rag.collection
    ADD COLUMN pending_vector_count bigint NOT NULL DEFAULT 0,
    -- Of the documents it has or had, the earliest first; questions are stemmed in these.
    ADD COLUMN languages text[] NOT NULL DEFAULT '{}';
UPDATE rag.collection SET languages = '{""}' WHERE document_count > 0;

ALTER TABLE rag.chunk
    ADD COLUMN page_start integer NOT NULL DEFAULT 0,
    ADD COLUMN page_end integer NOT NULL DEFAULT 0;

-- Ids of chunks that were deleted may still stand in caches; none is used again.
CREATE SEQUENCE rag.document_number;
SELECT setval('rag.document_number', (SELECT last_value >> 22 FROM rag.chunk_id) + 1);

UPDATE rag.document SET number = nextval('rag.document_number');
CREATE TEMPORARY TABLE renumbered ON COMMIT DROP AS
    SELECT chunk.chunk_id AS old_id, (document.number << 22) + chunk.ordinal AS new_id
    FROM rag.chunk JOIN rag.document USING (tenant_id, collection_id, document_id);
UPDATE rag.chunk SET chunk_id = new_id FROM renumbered WHERE chunk_id = old_id;
UPDATE rag.embedding SET chunk_id = new_id FROM renumbered WHERE chunk_id = old_id;
UPDATE rag.posting SET chunk_id = new_id FROM renumbered WHERE chunk_id = old_id;
DROP SEQUENCE rag.chunk_id;

ALTER TABLE rag.document ALTER COLUMN number SET NOT NULL;

-- Filters read many rows of documents: long texts stay out of them.
ALTER TABLE rag.document SET (toast_tuple_target = 512);

-- Says at once whether a collection has any.
CREATE INDEX document_guarded ON rag.document (tenant_id, collection_id) WHERE guarded;
CREATE INDEX document_expiring ON rag.document (expires_at) WHERE expires_at IS NOT NULL;

-- NULL until the vector is there.
ALTER TABLE rag.embedding ALTER COLUMN embedding DROP NOT NULL;
CREATE INDEX embedding_missing ON rag.embedding (chunk_id) WHERE embedding IS NULL;

-- Most rows are new: the planner and index-only scans need news sooner than after a fifth of them.
ALTER TABLE rag.posting SET (
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_scale_factor = 0.05
);
