"""What a statement does is told by its verb and its tables, whatever else stands in it."""

import pytest

from services.rag.adapters.postgres_tracing import Statement, database_attributes, statement_of


@pytest.mark.parametrize(
    ("text", "operation", "summary"),
    [
        ("SELECT 1", "SELECT", "SELECT"),
        ("\n  select * FROM rag.collection WHERE name = $1", "SELECT", "SELECT collection"),
        (
            "SELECT a FROM rag.chunk JOIN rag.document USING (x) JOIN rag.chunk c ON true",
            "SELECT",
            "SELECT chunk document",
        ),
        (
            "WITH f AS MATERIALIZED (SELECT 1 FROM rag.posting) SELECT * FROM f",
            "SELECT",
            "SELECT posting",
        ),
        (
            "WITH gone AS (DELETE FROM rag.chunk RETURNING 1) SELECT count(*) FROM gone",
            "DELETE",
            "DELETE chunk",
        ),
        (
            "WITH x AS (SELECT 1) INSERT INTO rag.job AS j SELECT * FROM x "
            "ON CONFLICT DO UPDATE SET a = 1",
            "INSERT",
            "INSERT job",
        ),
        ("UPDATE rag.job SET a = 'SELECT secret FROM rag.b'", "UPDATE", "UPDATE job b"),
        ("COMMIT;", "COMMIT", "COMMIT"),
        (
            "SELECT FROM rag.a JOIN rag.b JOIN rag.c JOIN rag.d",
            "SELECT",
            "SELECT a b c",
        ),
    ],
)
def test_a_statement_is_told_by_its_verb_and_its_tables(text, operation, summary):
    assert statement_of(text) == Statement(operation, summary)


@pytest.mark.parametrize(
    "text", ["BEGIN; SET LOCAL app.tenant = 'acme'", "ROLLBACK", "SET LOCAL ROLE x", "", "LOCK x"]
)
def test_what_only_frames_statements_is_none(text):
    assert statement_of(text) is None


@pytest.mark.parametrize(
    ("dsn", "known"),
    [
        (
            "postgresql://u:secret@db:5433/pannier",
            {"db.namespace": "pannier", "server.address": "db", "server.port": 5433},
        ),
        ("postgresql://u@db/x", {"db.namespace": "x", "server.address": "db", "server.port": 5432}),
        ("postgresql:///pannier?host=/run/postgresql", {"db.namespace": "pannier"}),
        # Of several servers any may answer, and an address nobody understands is no reason to fail.
        ("postgresql://u:secret@one:5432,two:5433/pannier", {"db.namespace": "pannier"}),
        ("postgresql://u:secret@one,two/pannier", {"db.namespace": "pannier"}),
        ("postgresql://u:secret@[::1/pannier", {}),
    ],
)
def test_a_database_is_told_by_its_address_as_far_as_that_is_known(dsn, known):
    assert database_attributes(dsn) == {"db.system.name": "postgresql", **known}
