"""UsageService and UsageAdminService over gRPC: read the request, call, write the response."""

from contextlib import suppress
from typing import Any

import grpc

from pannier.rag.v1 import usage_service_pb2 as pb
from pannier.rag.v1.usage_service_pb2_grpc import (
    UsageAdminServiceServicer,
    UsageServiceServicer,
)
from services.common.identity import current_identity
from services.common.unknown_fields import unknown_field_violations
from services.common.validation import Violations
from services.rag import usage_convert as convert
from services.rag.books import Books
from services.rag.core.errors import StoreUnavailable
from services.rag.give_feedback import FeedbackDesk
from services.rag.read_books import BookReader
from services.rag.track_calls import CallTracker, TrackedCall
from services.rag.usage_port import UsageStore

__all__ = ["UsageAdminServicer", "UsageServicer", "tracked_call_of"]

Context = grpc.aio.ServicerContext[Any, Any]

MAXIMUM_MODEL_LENGTH = 200
MAXIMUM_KEY_LENGTH = 128
MAXIMUM_TOKEN_COUNT = 10**9
MAXIMUM_COST_NANOS = 10**15
_DEFAULT_MODE = "tracked"


class UsageServicer(UsageServiceServicer):
    """Answers what is asked of the books, and takes down what callers say.

    Args:
        reader: Reads the books.
        desk: Takes feedback.
        tracker: Counts calls of callers.
    """

    def __init__(self, reader: BookReader, *, desk: FeedbackDesk, tracker: CallTracker) -> None:
        self._reader = reader
        self._desk = desk
        self._tracker = tracker

    async def GetProfile(
        self, request: pb.GetProfileRequest, context: Context
    ) -> pb.GetProfileResponse:
        """Gets a query."""
        return await self._reader.get_profile(current_identity.get().tenant_id, request)

    async def ListProfiles(
        self, request: pb.ListProfilesRequest, context: Context
    ) -> pb.ListProfilesResponse:
        """Lists queries."""
        return await self._reader.list_profiles(current_identity.get().tenant_id, request)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """Sums up what was used."""
        return await self._reader.get_usage(current_identity.get().tenant_id, request)

    async def TrackModelCall(
        self, request: pb.TrackModelCallRequest, context: Context
    ) -> pb.TrackModelCallResponse:
        """Counts a call that the caller has made by itself."""
        counted, cost_nanos = await self._tracker.track(tracked_call_of(request))
        return pb.TrackModelCallResponse(counted=counted, cost_nanos=cost_nanos)

    async def SubmitFeedback(
        self, request: pb.SubmitFeedbackRequest, context: Context
    ) -> pb.SubmitFeedbackResponse:
        """Takes what a user thinks of an answer."""
        feedback = convert.feedback_of(request)
        removed = await self._desk.submit(current_identity.get(), feedback)
        return pb.SubmitFeedbackResponse(cache_entry_removed=removed)

    async def ListFeedback(
        self, request: pb.ListFeedbackRequest, context: Context
    ) -> pb.ListFeedbackResponse:
        """Lists what users have said."""
        return await self._reader.list_feedback(current_identity.get().tenant_id, request)

    async def GetExperimentReport(
        self, request: pb.GetExperimentReportRequest, context: Context
    ) -> pb.GetExperimentReportResponse:
        """Compares the variants of an experiment."""
        return await self._reader.report_experiment(current_identity.get().tenant_id, request)

    async def GetBudget(
        self, request: pb.GetBudgetRequest, context: Context
    ) -> pb.GetBudgetResponse:
        """Gets the tenant's budget."""
        return await self._reader.get_budget(current_identity.get().tenant_id)


class UsageAdminServicer(UsageAdminServiceServicer):
    """Sets budgets.

    Args:
        store: Keeps them.
        books: Are told, to go by them at once.
    """

    def __init__(self, store: UsageStore, *, books: Books) -> None:
        self._store = store
        self._books = books

    async def SetBudget(
        self, request: pb.SetBudgetRequest, context: Context
    ) -> pb.SetBudgetResponse:
        """Sets the tenant's budget."""
        violations = Violations()
        violations.extend(unknown_field_violations(request))
        violations.require(request.HasField("budget"), "budget", "Must be set.")
        violations.raise_found()
        budget = convert.budget_of(request.budget)
        await self._store.put_budget(current_identity.get().tenant_id, budget)
        # It is kept; this replica would read it a little later.
        with suppress(StoreUnavailable):
            await self._books.refresh_budgets()
        return pb.SetBudgetResponse(budget=convert.to_budget(budget))


def tracked_call_of(request: pb.TrackModelCallRequest) -> TrackedCall:
    """Reads a call that a caller has made.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations = Violations()
    violations.check_text(
        "model", request.model, minimum_length=1, maximum_length=MAXIMUM_MODEL_LENGTH
    )
    violations.check_plain("model", request.model)
    convert.check_mode("mode", request.mode, violations)
    for name in ("prompt_token_count", "completion_token_count"):
        violations.check_range(name, getattr(request, name), 0, MAXIMUM_TOKEN_COUNT)
    cost = request.cost_nanos if request.HasField("cost_nanos") else None
    violations.check_range("cost_nanos", cost, 0, MAXIMUM_COST_NANOS)
    violations.check_text(
        "idempotency_key", request.idempotency_key, maximum_length=MAXIMUM_KEY_LENGTH
    )
    violations.check_plain("idempotency_key", request.idempotency_key)
    violations.raise_found()
    return TrackedCall(
        model=request.model.strip(),
        mode=request.mode or _DEFAULT_MODE,
        prompt_token_count=request.prompt_token_count,
        completion_token_count=request.completion_token_count,
        cached=request.cached,
        cost_nanos=cost,
        idempotency_key=request.idempotency_key,
    )
