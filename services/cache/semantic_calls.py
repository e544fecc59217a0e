"""Calls for answers to questions that mean the same."""

from opentelemetry import trace

from pannier.cache.v1 import semantic_pb2 as pb
from services.cache import semantic_convert as convert
from services.cache.call_spans import describe_semantic_lookup, describe_semantic_store
from services.cache.convert import mode_or_carried
from services.cache.core.layers import Layer
from services.cache.core.model import WriteOutcome
from services.cache.core.semantic.decision import SemanticOutcome
from services.cache.look_up_semantic import SemanticLookup, look_up_semantic
from services.cache.report_outcome import report_outcome
from services.cache.semantic_layer import SemanticLayer, Where
from services.cache.semantic_store import OtherDimension
from services.cache.semantic_validate import (
    dimension_mismatch,
    validate_lookup,
    validate_report,
    validate_store,
)
from services.cache.store_semantic import store_semantic
from services.common.identity import current_identity

__all__ = ["SemanticCalls"]

_HITS = (SemanticOutcome.EXACT, SemanticOutcome.SIMILAR)


class SemanticCalls:
    """Answers for questions that mean the same.

    Args:
        layer: The semantic layer.
    """

    def __init__(self, layer: SemanticLayer) -> None:
        self._layer = layer

    async def look_up_semantic(
        self, request: pb.LookupSemanticRequest
    ) -> pb.LookupSemanticResponse:
        """Looks up the answer to a question that means the same."""
        started = self._layer.levels.clock.monotonic()
        validate_lookup(request)
        question = convert.question(request, self._where(request.partition))
        try:
            lookup = await look_up_semantic(self._layer, question)
        except OtherDimension as error:
            raise dimension_mismatch(error.dimension, request.vector.dimension) from error
        self._record(
            lookup,
            mode_or_carried(request.mode),
            question.where.tenant_id,
            started,
            # One question is one lookup, though it takes two calls.
            with_vector_to_follow=request.vector_follows and not request.HasField("vector"),
        )
        describe_semantic_lookup(lookup)
        return convert.lookup(lookup)

    async def store_semantic(self, request: pb.StoreSemanticRequest) -> pb.StoreSemanticResponse:
        """Keeps an answer for questions that mean the same."""
        payload = convert.payload(request)
        validate_store(request, payload_bytes=len(payload))
        answered = convert.answered(request, self._where(request.partition), payload)
        try:
            stored = await store_semantic(self._layer, answered)
        except OtherDimension as error:
            raise dimension_mismatch(error.dimension, request.vector.dimension) from error
        describe_semantic_store(stored, len(payload))
        return pb.StoreSemanticResponse(
            stored=stored.outcome is WriteOutcome.STORED,
            degraded=stored.degraded or not self._layer.levels.shared.available,
            entry_id=stored.entry_id,
            scope=convert.SCOPES[stored.question_scope],
        )

    async def report_outcome(self, request: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse:
        """Learns whether a match was right."""
        validate_report(request)
        report = convert.report(request, self._where(request.partition))
        reported = await report_outcome(self._layer, report)
        trace.get_current_span().set_attributes(
            {
                "app.cache.layer": Layer.SEMANTIC.value,
                "app.cache.verdict": report.verdict.value,
                "app.cache.judge": report.judge.value,
                "app.cache.similarity": report.similarity,
                "app.cache.degraded": reported.degraded,
            }
        )
        return pb.ReportOutcomeResponse(degraded=reported.degraded, threshold=reported.threshold)

    def _where(self, partition: pb.SemanticPartition) -> Where:
        return convert.where(
            partition,
            tenant_id=current_identity.get().tenant_id,
            pepper=self._layer.levels.pepper,
        )

    def _record(
        self,
        lookup: SemanticLookup,
        mode: str,
        tenant_id: str,
        started: float,
        *,
        with_vector_to_follow: bool,
    ) -> None:
        levels, match = self._layer.levels, lookup.match
        if with_vector_to_follow and lookup.outcome is SemanticOutcome.MISS:
            return
        levels.recorder.semantic_looked_up(
            lookup.outcome,
            similarity=lookup.best_similarity,
            mode=mode,
            tenant_id=tenant_id,
            duration_seconds=levels.clock.monotonic() - started,
            age_seconds=None if match is None else match.answer.age_seconds,
            degraded=lookup.degraded,
        )
        if match is not None and lookup.outcome in _HITS:
            levels.recorder.saved(Layer.SEMANTIC, match.entry.savings, tenant_id=tenant_id)
