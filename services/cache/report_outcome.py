"""Learning whether a match was right."""

from dataclasses import dataclass

from services.cache.core.layers import Layer
from services.cache.core.savings import NOTHING
from services.cache.core.semantic.bins import bin_of
from services.cache.core.semantic.budget import effective_threshold
from services.cache.core.semantic.verdict import Finding, Judge, Verdict, finding_of
from services.cache.semantic_layer import SemanticLayer, Where

__all__ = ["Report", "Reported", "report_outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found out.

    Attributes:
        where: The partition.
        form: Digest of the entry's normal form.
        version: Version of the entry.
        similarity: Its similarity as the lookup gave it.
        verdict: Whether the match was right.
        judge: Who says so.
        served: Whether the answer of a candidate was given.
        mode: What the lookup was counted under.
    """

    where: Where
    form: str
    version: bytes
    similarity: float
    verdict: Verdict
    judge: Judge
    served: bool
    mode: str


@dataclass(frozen=True, slots=True)
class Reported:
    """What follows.

    Attributes:
        threshold: Least similarity that counts in the namespace from now on.
        degraded: Whether the shared store could not be told; this replica knows all the same.
    """

    threshold: float
    degraded: bool


async def report_outcome(layer: SemanticLayer, report: Report) -> Reported:
    """Counts a verdict, and removes an entry that was found wrong, everywhere.

    Args:
        layer: Where it counts.
        report: The verdict.
    """
    where, recorder = report.where, layer.levels.recorder
    knowledge = await layer.ready(where)
    entry = layer.feed.partition(where.name).find(report.form)
    savings = NOTHING
    if entry is not None and entry.version == report.version:
        savings = entry.savings
    if _is_similar(report):
        computed_anew = report.judge is Judge.RECOMPUTATION
        spent = savings if computed_anew else NOTHING
        recorder.verified(report.verdict, report.judge, spent=spent)
    if report.served:
        recorder.semantic_confirmed(report.mode, where.tenant_id)
        recorder.saved(Layer.SEMANTIC, savings, tenant_id=where.tenant_id)
    told = await _count(layer, report)
    if report.verdict is Verdict.WRONG and report.judge is not Judge.EVIDENCE:
        told = await layer.feed.remove(where.name, report.form, report.version) and told
    threshold = effective_threshold(
        layer.calibration.verdicts(where.subject),
        layer.threshold(where),
        budget_ratio=layer.policy.error_budget_ratio,
    )
    return Reported(threshold, degraded=not told or knowledge.degraded)


def _is_similar(report: Report) -> bool:
    """Returns whether an answer to other words is judged.

    One to the same words, right or wrong, says nothing about those to similar ones.
    """
    return report.similarity < 1.0


async def _count(layer: SemanticLayer, report: Report) -> bool:
    number, finding = bin_of(report.similarity), finding_of(report.verdict, report.judge)
    if number is None or finding is None or not _is_similar(report):
        return True
    if finding is Finding.UNFIT and not _is_drawn(layer):
        return True
    return await layer.calibration.count(report.where.subject, number, finding)


def _is_drawn(layer: SemanticLayer) -> bool:
    """Returns whether an answer that was not given counts against those that are.

    Evidence judges every candidate, but right answers are only known of the share that is verified:
    were all the others counted, wrong ones would weigh as much more as this share is smaller.
    """
    ratio = layer.policy.verification_ratio
    return ratio == 0 or layer.levels.draw() < ratio
