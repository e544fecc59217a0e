"""Where the time of a call went: a tree of stages, the critical path in it, the bottlenecks."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from services.rag.core.advice import advise
from services.rag.core.critical_path import Interval, covered_seconds, critical_seconds

__all__ = [
    "BOTTLENECK_RATIO",
    "Degradation",
    "DegradationReason",
    "Profile",
    "ProfiledStage",
    "Stage",
    "WarningKind",
    "profile_of",
]

BOTTLENECK_RATIO = 0.3
"""Share of a call's time on the critical path that makes a stage a bottleneck."""

_RETRIEVAL = frozenset(
    {
        "collection",
        "embed_question",
        "embed_variants",
        "expand",
        "search_variants",
        "vector_search",
        "keyword_search",
        "fuse",
        "load_passages",
        "load_vectors",
        "diversify",
        "merge_neighbors",
        "web_search",
        "tool_retrieve",
        "tool_web_search",
    }
)
_RERANK = frozenset({"rerank"})
_GENERATION = frozenset({"generate"})
_VERIFICATION = frozenset({"verify"})


class DegradationReason(Enum):
    """What could not be done as it should have been."""

    EMBEDDING_UNAVAILABLE = "embedding_unavailable"
    MODEL_UNAVAILABLE = "model_unavailable"
    CACHE_UNAVAILABLE = "cache_unavailable"
    SEARCH_ARM_FAILED = "search_arm_failed"
    GENERATION_INTERRUPTED = "generation_interrupted"
    RERANK_UNAVAILABLE = "rerank_unavailable"
    RERANK_BUDGET_EXCEEDED = "rerank_budget_exceeded"
    REWRITE_SKIPPED = "rewrite_skipped"
    EXPANSION_SKIPPED = "expansion_skipped"
    WEB_SEARCH_UNAVAILABLE = "web_search_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    SERVED_STALE = "served_stale"
    UNGROUNDED = "ungrounded"
    CONTEXT_TRUNCATED = "context_truncated"
    DEADLINE_TRUNCATED = "deadline_truncated"
    VECTORS_PENDING = "vectors_pending"
    VERIFICATION_REDUCED = "verification_reduced"
    TOOL_FAILED = "tool_failed"
    BUDGET_EXCEEDED = "budget_exceeded"


class WarningKind(Enum):
    """What a warning is about; the values label metrics."""

    BUDGET = "budget"
    CONTEXT = "context"
    CITATION = "citation"
    LINK = "link"
    ECHO = "echo"
    EMPTY_ANSWER = "empty_answer"
    ANSWER_CUT = "answer_cut"
    OUTPUT_FORMAT = "output_format"
    INJECTION = "injection"
    NOT_KEPT = "not_kept"
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Degradation:
    """A lesser result than was asked for, with the stage and what is known of the cause."""

    reason: DegradationReason
    stage: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a call.

    Attributes:
        number: Identity within the call, in the order of the starts.
        parent: Number of the stage it is part of; None for one of the call itself.
        name: For example `vector_search`.
        start_seconds: Counted from the call's arrival.
        duration_seconds: How long it took.
        cache_outcome: `hit_local`, `hit_shared`, `miss`, `bypassed` or `unavailable`; empty where
            the stage asks no cache.
        item_count: Items it produced; None where it produces none.
        failed: Whether it failed.
        error_reason: Why it failed, as in `google.rpc.ErrorInfo`; `CANCELLED` where it was told to
            stop; empty where it did not fail.
        model: Full name of the model it asked; empty where it asked none.
        backend_id: Backend that answered; empty where none did.
        prompt_token_count: Tokens that the model read.
        completion_token_count: Tokens that the model generated.
    """

    number: int
    parent: int | None = None
    name: str
    start_seconds: float
    duration_seconds: float
    cache_outcome: str = ""
    item_count: int | None = None
    failed: bool = False
    error_reason: str = ""
    model: str = ""
    backend_id: str = ""
    prompt_token_count: int = 0
    completion_token_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledStage:
    """A stage in the light of the whole call.

    Attributes:
        stage: The stage.
        parent_index: Position of the stage it is part of; None for one of the call itself.
        self_seconds: Its time in which none of its parts was under way.
        critical_seconds: Of that, what lies on the critical path.
        on_critical_path: Whether the call would have ended earlier had it, or one of its parts,
            taken less time.
    """

    stage: Stage
    parent_index: int | None
    self_seconds: float
    critical_seconds: float
    on_critical_path: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All stages of a call in the order of their starts.

    Attributes:
        stages: The stages; parallel ones overlap.
        total_seconds: From the call's arrival until its end.
        own_seconds: Time in which no stage was under way.
        critical_path_seconds: Length of the critical path: the time in which some stage was.
        parallel_saving_seconds: What the call would have taken longer had its stages run one after
            the other.
        bottleneck: Stage with the most time of its own; empty without stages.
        bottlenecks: Names with more than `BOTTLENECK_RATIO` of the total on the critical path,
            worst first.
        advice: What to do about them, a sentence each.
        first_text_seconds: From the call's arrival until the first text; None without text.
        retrieval_seconds: Time in which passages were looked for; None where they were not.
        rerank_seconds: Time in which passages were reranked; None where they were not.
        generation_seconds: Time in which a model answered; None where none did.
        verification_seconds: Time in which the answer was checked; None where it was not.
    """

    stages: tuple[ProfiledStage, ...]
    total_seconds: float
    own_seconds: float
    critical_path_seconds: float
    parallel_saving_seconds: float
    bottleneck: str
    bottlenecks: tuple[str, ...]
    advice: tuple[str, ...]
    first_text_seconds: float | None
    retrieval_seconds: float | None
    rerank_seconds: float | None
    generation_seconds: float | None
    verification_seconds: float | None


def profile_of(
    stages: Sequence[Stage], *, total_seconds: float, first_text_seconds: float | None
) -> Profile:
    """Sums up a call.

    Args:
        stages: In any order; numbers must differ. A parent that is not among them (it is still
            under way) counts as none.
        total_seconds: From the call's arrival until its end.
        first_text_seconds: From the call's arrival until the first text; None without text.
    """
    ordered = sorted(stages, key=lambda each: (each.start_seconds, each.number))
    positions = {each.number: index for index, each in enumerate(ordered)}
    parents = [None if each.parent is None else positions.get(each.parent) for each in ordered]
    intervals = [_interval(each) for each in ordered]
    whole = Interval(0.0, total_seconds)
    own_times = critical_seconds(intervals, parents, whole)
    children: defaultdict[int | None, list[Interval]] = defaultdict(list)
    for interval, parent in zip(intervals, parents, strict=True):
        children[parent].append(interval)
    self_seconds = [
        interval.seconds - covered_seconds(children[index], interval)
        for index, interval in enumerate(intervals)
    ]
    path = _with_ancestors({index for index, own in enumerate(own_times) if own > 0}, parents)
    own_seconds = total_seconds - covered_seconds(children[None], whole)
    bottlenecks = _bottlenecks(ordered, own_times, total_seconds)
    slowest = max(range(len(ordered)), key=lambda index: self_seconds[index], default=None)

    names = {each.name for each in ordered}

    def time_of(kind: frozenset[str]) -> float | None:
        if kind.isdisjoint(names):
            return None
        return covered_seconds([_interval(each) for each in ordered if each.name in kind], whole)

    return Profile(
        stages=tuple(
            ProfiledStage(
                stage=stage,
                parent_index=parents[index],
                self_seconds=self_seconds[index],
                critical_seconds=own_times[index],
                on_critical_path=index in path,
            )
            for index, stage in enumerate(ordered)
        ),
        total_seconds=total_seconds,
        own_seconds=own_seconds,
        critical_path_seconds=sum(own_times),
        parallel_saving_seconds=max(0.0, sum(self_seconds) - sum(own_times)),
        bottleneck=ordered[slowest].name if slowest is not None else "",
        bottlenecks=bottlenecks,
        advice=advise(
            bottlenecks,
            cache_is_away=any(each.cache_outcome == "unavailable" for each in ordered),
            idle_seconds=own_seconds,
            total_seconds=total_seconds,
        ),
        first_text_seconds=first_text_seconds,
        retrieval_seconds=time_of(_RETRIEVAL),
        rerank_seconds=time_of(_RERANK),
        generation_seconds=time_of(_GENERATION),
        verification_seconds=time_of(_VERIFICATION),
    )


def _interval(stage: Stage) -> Interval:
    return Interval(stage.start_seconds, stage.start_seconds + stage.duration_seconds)


def _with_ancestors(indices: set[int], parents: Sequence[int | None]) -> set[int]:
    path = set(indices)
    for index in indices:
        above = parents[index]
        while above is not None and above not in path:
            path.add(above)
            above = parents[above]
    return path


def _bottlenecks(
    stages: Sequence[Stage], own_times: Sequence[float], total_seconds: float
) -> tuple[str, ...]:
    by_name: defaultdict[str, float] = defaultdict(float)
    for stage, own in zip(stages, own_times, strict=True):
        by_name[stage.name] += own
    slow = [name for name, own in by_name.items() if own > BOTTLENECK_RATIO * total_seconds]
    return tuple(sorted(slow, key=lambda name: (-by_name[name], name)))
