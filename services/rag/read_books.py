"""Reads the books: queries, sums of usage, feedback, comparisons of variants, budgets."""

import json

from pannier.rag.v1 import rag_service_pb2
from pannier.rag.v1 import usage_service_pb2 as pb
from services.common.clock import Clock
from services.common.errors import PageTokenMismatch
from services.common.pagination import check_page_size, decode_page_token, encode_page_token
from services.common.validation import Violations
from services.rag import usage_convert as convert
from services.rag.books import Books, profiled
from services.rag.core.bookkeeping_errors import ExperimentNotFound, QueryUnknown
from services.rag.core.budget import period_of
from services.rag.core.errors import StoreUnavailable
from services.rag.core.experiment import Experiment
from services.rag.core.query_record import QueryFilter, QueryPage
from services.rag.core.usage import Amounts, UsageRow
from services.rag.usage_port import FeedbackStore, UsageStore

__all__ = ["BookReader"]

# Messages have 4 MiB at the most.
_PAGE_BYTES = 2 * 1024 * 1024


class BookReader:
    """Answers what is asked of the books.

    Args:
        books: Know the latest.
        store: Knows the rest.
        feedback: Keeps feedback.
        experiments: Those that are set.
        clock: Tells the time.
        currency: Of all amounts.
    """

    def __init__(
        self,
        *,
        books: Books,
        store: UsageStore,
        feedback: FeedbackStore,
        experiments: tuple[Experiment, ...],
        clock: Clock,
        currency: str,
    ) -> None:
        self._books = books
        self._store = store
        self._feedback = feedback
        self._experiments = {each.name: each for each in experiments}
        self._clock = clock
        self._currency = currency

    async def get_profile(
        self, tenant_id: str, request: pb.GetProfileRequest
    ) -> pb.GetProfileResponse:
        """Gets a query and where its time went."""
        violations = Violations()
        convert.check_name("query_id", request.query_id, violations)
        violations.raise_found()
        recent = self._books.find_recent(tenant_id, request.query_id)
        if recent is not None:
            found = profiled(recent)
        else:
            kept = await self._store.find_query(tenant_id, request.query_id)
            if kept is None:
                raise QueryUnknown(request.query_id)
            found = kept
        return pb.GetProfileResponse(
            record=convert.to_record(found.record, found.bottleneck),
            profile=rag_service_pb2.Profile.FromString(found.profile),
            currency=self._currency,
        )

    async def list_profiles(
        self, tenant_id: str, request: pb.ListProfilesRequest
    ) -> pb.ListProfilesResponse:
        """Lists queries, the latest first."""
        violations = Violations()
        size = check_page_size(request.page_size, violations)
        wanted = convert.filter_of(request, violations)
        violations.raise_found()
        scope = f"profiles\0{tenant_id}\0{wanted}"
        place = convert.place_of(decode_page_token(scope, request.page_token), name_count=1)
        after = None if place is None else (place[0], place[1][0])
        partial = not await self._books.flush()
        if not partial:
            try:
                page = await self._store.list_queries(
                    tenant_id, wanted, page_size=size, after=after
                )
            except StoreUnavailable:
                partial = True
        if partial:
            page = self._page_of_recent(tenant_id, wanted, size, after)
        response = pb.ListProfilesResponse(partial=partial, currency=self._currency)
        size_bytes = 0
        for record, bottleneck in page.records:
            message = convert.to_record(record, bottleneck)
            size_bytes += message.ByteSize()
            if size_bytes > _PAGE_BYTES and response.records:
                break
            response.records.append(message)
        if page.more or len(response.records) < len(page.records):
            last = page.records[len(response.records) - 1][0]
            position = convert.position_of(last.started_seconds, last.query_id)
            response.next_page_token = encode_page_token(scope, position)
        return response

    async def get_usage(self, tenant_id: str, request: pb.GetUsageRequest) -> pb.GetUsageResponse:
        """Sums up what was used."""
        violations = Violations()
        size = check_page_size(request.page_size, violations)
        span = convert.span_of(request, violations, now=self._clock.now())
        violations.raise_found()
        # Without the times, which may be those of the call.
        scope = f"usage\0{tenant_id}\0{span.bucket}\0{span.group_by}"
        offset_row = _row_at(decode_page_token(scope, request.page_token))
        if not await self._books.flush():
            raise StoreUnavailable("the latest usage could not be written")
        rows = await self._store.sum_usage(
            tenant_id, span, page_size=size + 1, offset_row=offset_row
        )
        ratings = await self._feedback.count_feedback(
            tenant_id, start_seconds=span.start_seconds, end_seconds=span.end_seconds
        )
        return pb.GetUsageResponse(
            rows=[convert.to_usage_row(row) for row in rows[:size]],
            next_page_token=(
                encode_page_token(scope, _position(rows[size - 1])) if len(rows) > size else ""
            ),
            total=convert.to_amounts(await self._store.total_usage(tenant_id, span)),
            currency=self._currency,
            feedback=convert.to_counts(ratings),
        )

    async def list_feedback(
        self, tenant_id: str, request: pb.ListFeedbackRequest
    ) -> pb.ListFeedbackResponse:
        """Lists what users have said."""
        violations = Violations()
        size = check_page_size(request.page_size, violations)
        rating = request.rating if request.HasField("rating") else None
        violations.check_range("rating", rating, -1, 1)
        since: float | None = None
        if request.HasField("since"):
            since = convert.seconds_of(request.since, "since", violations)
        violations.raise_found()
        scope = f"feedback\0{tenant_id}\0{rating}\0{since}"
        place = convert.place_of(decode_page_token(scope, request.page_token), name_count=2)
        page = await self._feedback.list_feedback(
            tenant_id,
            rating=rating,
            since_seconds=since,
            page_size=size,
            after=None if place is None else (place[0], place[1][0], place[1][1]),
        )
        counts = await self._feedback.count_feedback(
            tenant_id, start_seconds=since, end_seconds=None
        )
        response = pb.ListFeedbackResponse(counts=convert.to_counts(counts))
        size_bytes = 0
        for each in page.feedback:
            message = convert.to_feedback(each)
            size_bytes += message.ByteSize()
            if size_bytes > _PAGE_BYTES and response.feedback:
                break
            response.feedback.append(message)
        if page.more or len(response.feedback) < len(page.feedback):
            last = page.feedback[len(response.feedback) - 1]
            position = convert.position_of(last.updated_seconds, last.query_id, last.user_id)
            response.next_page_token = encode_page_token(scope, position)
        return response

    async def report_experiment(
        self, tenant_id: str, request: pb.GetExperimentReportRequest
    ) -> pb.GetExperimentReportResponse:
        """Compares the variants of an experiment."""
        violations = Violations()
        convert.check_name("name", request.name, violations)
        since: float | None = None
        if request.HasField("since"):
            since = convert.seconds_of(request.since, "since", violations)
        violations.raise_found()
        experiment = self._experiments.get(request.name)
        if experiment is None:
            raise ExperimentNotFound(request.name, known=tuple(self._experiments))
        if not await self._books.flush():
            raise StoreUnavailable("the latest queries could not be written")
        figures = await self._feedback.compare_variants(
            tenant_id, experiment.name, since_seconds=since
        )
        return pb.GetExperimentReportResponse(
            name=experiment.name,
            variants=convert.to_variant_reports(experiment, figures),
            currency=self._currency,
        )

    async def get_budget(self, tenant_id: str) -> pb.GetBudgetResponse:
        """Gets a tenant's budget and what is spent; from now on this replica goes by it."""
        await self._books.refresh_budgets()
        budget, spent = await self._store.load_budget(tenant_id, period_of(self._clock.now()))
        return pb.GetBudgetResponse(
            budget=convert.to_budget(budget),
            spent=convert.to_budget(spent),
            exceeded=budget.exceeded(spent) is not None,
            currency=self._currency,
        )

    def _page_of_recent(
        self, tenant_id: str, wanted: QueryFilter, size: int, after: tuple[float, str] | None
    ) -> QueryPage:
        found = sorted(
            (each for each in self._books.recent(tenant_id) if wanted.matches(each.record)),
            key=lambda each: (each.record.started_seconds, each.record.query_id),
            reverse=True,
        )
        if after is not None:
            found = [
                each
                for each in found
                if (round(each.record.started_seconds, 6), each.record.query_id) < after
            ]
        records = tuple((each.record, profiled(each).bottleneck) for each in found[:size])
        return QueryPage(records, len(found) > size)


def _position(row: UsageRow) -> str:
    return json.dumps([row.start_seconds or 0, row.user_id, row.mode, row.model, row.kind])


def _row_at(position: str) -> UsageRow | None:
    if not position:
        return None
    try:
        start, user_id, mode, model, kind = json.loads(position)
    except (ValueError, TypeError):
        raise PageTokenMismatch from None
    texts = (user_id, mode, model, kind)
    if not all(isinstance(each, str) for each in texts) or not isinstance(start, int):
        raise PageTokenMismatch
    if not 0 <= start < 253_402_300_800:
        raise PageTokenMismatch
    return UsageRow(
        start_seconds=start,
        user_id=user_id,
        mode=mode,
        model=model,
        kind=kind,
        amounts=Amounts(),
    )
