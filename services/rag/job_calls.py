"""The calls about jobs: look at them, follow them, end them."""

from collections.abc import AsyncGenerator

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.clock import Clock
from services.common.identity import current_identity
from services.common.pagination import check_page_size, decode_page_number, encode_page_token
from services.common.unknown_fields import unknown_field_violations
from services.common.validation import Violations
from services.rag import corpus_convert as convert
from services.rag.core.ingest_job import IngestJobState
from services.rag.jobs_port import IngestJobs

__all__ = ["JobCalls"]

_WATCH_INTERVAL_SECONDS = 0.25
_WATCH_PAGE_SIZE = 500
_MAXIMUM_JOB_ID_LENGTH = 64


class JobCalls:
    """Answers calls about jobs.

    Args:
        jobs: The jobs.
        clock: Waits between one look at a job and the next.
    """

    def __init__(self, jobs: IngestJobs, *, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock

    async def get(self, request: pb.GetIngestJobRequest) -> pb.GetIngestJobResponse:
        """Gets a job with a page of its results."""
        violations = Violations()
        _check_job_id(request.job_id, violations)
        size = check_page_size(request.page_size, violations)
        violations.raise_found()
        tenant_id = current_identity.get().tenant_id
        scope = f"ingest-job/{request.job_id}"
        after = _position(scope, request.page_token)
        job = await self._jobs.get(tenant_id, request.job_id)
        results = await self._jobs.list_results(
            tenant_id, request.job_id, limit=size + 1, after=after
        )
        more = len(results) > size
        return pb.GetIngestJobResponse(
            job=convert.to_ingest_job(job),
            results=[convert.to_result(each.done) for each in results[:size]],
            next_page_token=(
                encode_page_token(scope, str(results[size - 1].number)) if more else ""
            ),
        )

    async def list(self, request: pb.ListIngestJobsRequest) -> pb.ListIngestJobsResponse:
        """Lists jobs."""
        violations = Violations()
        size = check_page_size(request.page_size, violations)
        violations.raise_found()
        scope = f"ingest-jobs/{request.active_only}"
        before = _position(scope, request.page_token)
        jobs = await self._jobs.list_jobs(
            current_identity.get().tenant_id,
            limit=size + 1,
            before=before or None,
            active_only=request.active_only,
        )
        more = len(jobs) > size
        return pb.ListIngestJobsResponse(
            jobs=[convert.to_ingest_job(each) for each in jobs[:size]],
            next_page_token=encode_page_token(scope, str(jobs[size - 1].number)) if more else "",
        )

    async def watch(
        self, request: pb.WatchIngestJobRequest
    ) -> AsyncGenerator[pb.WatchIngestJobResponse, None]:
        """Follows a job until it ends."""
        violations = Violations()
        _check_job_id(request.job_id, violations)
        violations.raise_found()
        tenant_id = current_identity.get().tenant_id
        seen_count, first = 0, True
        while True:
            # The job first: its results are then all there.
            job = await self._jobs.get(tenant_id, request.job_id)
            changed = job.done_count > seen_count
            while results := (
                await self._jobs.list_results(
                    tenant_id, request.job_id, limit=_WATCH_PAGE_SIZE, after=seen_count
                )
                if seen_count < job.done_count
                else ()
            ):
                for each in results:
                    seen_count = each.number
                    yield pb.WatchIngestJobResponse(result=convert.to_result(each.done))
            ended = job.state is not IngestJobState.ACTIVE
            if first or changed or ended:
                yield pb.WatchIngestJobResponse(job=convert.to_ingest_job(job))
            if ended:
                return
            first = False
            await self._clock.sleep(_WATCH_INTERVAL_SECONDS)

    async def cancel(self, request: pb.CancelIngestJobRequest) -> pb.CancelIngestJobResponse:
        """Ends a job."""
        violations = Violations()
        violations.extend(unknown_field_violations(request))
        _check_job_id(request.job_id, violations)
        violations.raise_found()
        job = await self._jobs.cancel(current_identity.get().tenant_id, request.job_id)
        return pb.CancelIngestJobResponse(job=convert.to_ingest_job(job))


def _check_job_id(job_id: str, violations: Violations) -> None:
    violations.check_text("job_id", job_id, minimum_length=1, maximum_length=_MAXIMUM_JOB_ID_LENGTH)
    violations.check_plain("job_id", job_id)


def _position(scope: str, token: str) -> int:
    return decode_page_number(scope, token) or 0
