"""Between messages and values of searches, with the checks of what a caller asks for."""

from functools import lru_cache

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.validation import Violations
from services.rag.answer_convert import to_confidence, to_passages
from services.rag.caller import caller_access
from services.rag.core.filters import Access
from services.rag.core.fusion import FusionMethod
from services.rag.core.options import (
    ExpansionPolicy,
    RerankPolicy,
    RetrievalOptions,
    SearchArms,
)
from services.rag.core.quality import degraded_score
from services.rag.core.retrieved import Retrieved
from services.rag.filter_convert import filter_of
from services.rag.recorder import Recorder
from services.rag.stream_convert import to_degradation, to_profile

__all__ = [
    "check_collection",
    "check_query",
    "retrieval_of",
    "to_confidence",
    "to_retrieve_response",
]

MAXIMUM_QUERY_LENGTH = 8000
MAXIMUM_COLLECTION_LENGTH = 64
MAXIMUM_PASSAGE_COUNT = 50
MAXIMUM_CANDIDATE_COUNT = 500

_MOST_CALLERS = 128

_FUSIONS = {
    pb.FUSION_METHOD_UNSPECIFIED: FusionMethod.CONVEX,
    pb.FUSION_METHOD_CONVEX: FusionMethod.CONVEX,
    pb.FUSION_METHOD_RRF: FusionMethod.RECIPROCAL_RANK,
}
_ARMS = {
    pb.SEARCH_ARMS_UNSPECIFIED: SearchArms.HYBRID,
    **{pb.SearchArms.Value(f"SEARCH_ARMS_{each.name}"): each for each in SearchArms},
}
_RERANK_POLICIES = {
    pb.RERANK_POLICY_UNSPECIFIED: RerankPolicy.AUTO,
    **{pb.RerankPolicy.Value(f"RERANK_POLICY_{each.name}"): each for each in RerankPolicy},
}
_EXPANSION_POLICIES = {
    pb.EXPANSION_POLICY_UNSPECIFIED: ExpansionPolicy.AUTO,
    **{pb.ExpansionPolicy.Value(f"EXPANSION_POLICY_{each.name}"): each for each in ExpansionPolicy},
}


def check_collection(name: str, violations: Violations) -> None:
    """Checks the form of a collection's name in a request that reads it."""
    violations.check_text(
        "collection", name, minimum_length=1, maximum_length=MAXIMUM_COLLECTION_LENGTH
    )
    violations.check_plain("collection", name)


def check_query(text: str, violations: Violations) -> None:
    """Checks a question."""
    violations.check_text("query", text, minimum_length=1, maximum_length=MAXIMUM_QUERY_LENGTH)
    violations.check_plain("query", text)


def retrieval_of(
    message: pb.RetrievalOptions, violations: Violations, *, field: str
) -> RetrievalOptions:
    """Reads retrieval options on behalf of the caller of the running call.

    Args:
        message: The options.
        violations: Receives what is wrong.
        field: Path of the options in the request.
    """
    if not message.ByteSize():
        # As it mostly is.
        return _default_options(caller_access())
    defaults = RetrievalOptions()
    passage_count = _given(message, "passage_count", defaults.passage_count)
    candidate_count = _given(message, "candidate_count", defaults.candidate_count)
    weight = _given(message, "vector_weight_ratio", defaults.vector_weight_ratio)
    variety = message.relevance_weight_ratio if message.HasField("relevance_weight_ratio") else None
    violations.check_range(f"{field}.passage_count", passage_count, 1, MAXIMUM_PASSAGE_COUNT)
    violations.check_range(f"{field}.candidate_count", candidate_count, 1, MAXIMUM_CANDIDATE_COUNT)
    violations.check_range(f"{field}.vector_weight_ratio", weight, 0, 1)
    violations.check_range(f"{field}.relevance_weight_ratio", variety, 0, 1)
    for name, known, kind in (
        ("fusion", _FUSIONS, "FusionMethod"),
        ("arms", _ARMS, "SearchArms"),
        ("rerank", _RERANK_POLICIES, "RerankPolicy"),
        ("expansion", _EXPANSION_POLICIES, "ExpansionPolicy"),
    ):
        violations.require(
            getattr(message, name) in known, f"{field}.{name}", f"Is no known {kind}."
        )
    return RetrievalOptions(
        passage_count=int(passage_count),
        candidate_count=max(int(candidate_count), int(passage_count)),
        fusion=_FUSIONS.get(message.fusion, defaults.fusion),
        vector_weight_ratio=weight,
        filter=filter_of(message.filter, violations, field=f"{field}.filter"),
        access=caller_access(),
        arms=_ARMS.get(message.arms, defaults.arms),
        rerank=_RERANK_POLICIES.get(message.rerank, defaults.rerank),
        expansion=_EXPANSION_POLICIES.get(message.expansion, defaults.expansion),
        relevance_weight_ratio=variety,
        merge_neighbors=message.merge_neighbors if message.HasField("merge_neighbors") else True,
        prefer_recent=message.prefer_recent,
    )


@lru_cache(maxsize=_MOST_CALLERS)
def _default_options(access: Access) -> RetrievalOptions:
    return RetrievalOptions(access=access)


def to_retrieve_response(retrieved: Retrieved, recorder: Recorder) -> pb.RetrieveResponse:
    """Writes what was found."""
    profile = to_profile(recorder.profile())
    recorder.told_profile = profile.SerializeToString()
    recorder.told_bottleneck = profile.bottleneck
    return pb.RetrieveResponse(
        passages=to_passages(retrieved.passages),
        degradations=[to_degradation(each) for each in recorder.degradations],
        profile=profile,
        confidence=to_confidence(retrieved.confidence),
        quality_score=degraded_score(
            retrieved.confidence.score, [each.reason for each in recorder.degradations]
        ),
        expansions=retrieved.expansions,
        query_id=recorder.query_id,
        experiment_variants=recorder.variants,
    )


def _given(message: pb.RetrievalOptions, name: str, default: float) -> float:
    present = message.HasField(name)  # type: ignore[arg-type]  # an optional field's name
    return float(getattr(message, name)) if present else default
