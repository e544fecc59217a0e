from datetime import UTC, datetime

from services.rag.core.ingest_job import IngestJob, IngestJobState, pause_before_retry
from services.rag.core.intake import IngestOutcome


def test_pauses_double_and_end_at_a_minute():
    pauses = [pause_before_retry(count) for count in range(1, 9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_before_retry(10**6) == 60


def test_a_job_is_done_with_what_has_any_outcome():
    job = IngestJob(
        job_id="j",
        number=1,
        collection="docs",
        state=IngestJobState.ACTIVE,
        document_count=9,
        counts={IngestOutcome.CREATED: 2, IngestOutcome.FAILED: 3},
        chunk_count=2,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        completed_at=None,
    )
    assert job.done_count == 5
