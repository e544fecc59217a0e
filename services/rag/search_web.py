"""Looks outside of the documents where these probably do not hold the answer."""

from collections.abc import Callable
from dataclasses import replace

from services.common.errors import ServiceError
from services.common.metrics import Metrics
from services.rag.core.options import WebPolicy
from services.rag.core.passages import PassageOrigin
from services.rag.core.profile import DegradationReason
from services.rag.core.retrieved import Band, Retrieved
from services.rag.ports import WebSearch
from services.rag.suspects import mark_suspects
from services.rag.task import AnswerTask

__all__ = ["WebFallback"]

_STAGE = "web_search"
_DEADLINE_SHARE_RATIO = 0.25
# So many of the documents' passages stay where the web comes first.
_LEAST_OWN_COUNT = 2


class WebFallback:
    """Adds passages of the web to what was found.

    Args:
        web: Searches; None where no provider is configured.
        metrics: Receives why the web was searched.
        limit_seconds: Longest time of a search; never more than a quarter of what is left of the
            deadline.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        web: WebSearch | None,
        *,
        metrics: Metrics,
        limit_seconds: float,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._web = web
        self._metrics = metrics
        self._limit = limit_seconds
        self._remaining_seconds = remaining_seconds

    async def widen(self, task: AnswerTask, retrieved: Retrieved) -> Retrieved:
        """Returns what was found, with passages of the web where they are wanted.

        Where the passages leave little hope those of the web come first.
        """
        policy, recorder = task.question.web, task.recorder
        is_low = retrieved.confidence.band is Band.LOW
        if policy is WebPolicy.NEVER or (policy is WebPolicy.AUTO and not is_low):
            return retrieved
        if self._web is None:
            if policy is WebPolicy.ALWAYS:
                recorder.degrade(
                    DegradationReason.WEB_SEARCH_UNAVAILABLE, _STAGE, "no provider is configured"
                )
            return retrieved
        count = task.question.retrieval.passage_count
        reason = _reason(policy, retrieved)
        self._metrics.count("rag_web_fallbacks_total", reason)
        try:
            with recorder.stage(_STAGE) as stage:
                stage.span.set_attribute("app.web.reason", reason)
                found = await self._web.search(
                    task.asked, recorder, limit=count, time_limit_seconds=self._limit_seconds()
                )
                stage.item_count = len(found)
        except ServiceError as error:
            recorder.degrade(DegradationReason.WEB_SEARCH_UNAVAILABLE, _STAGE, error.message)
            return retrieved
        web = tuple(
            replace(each, passage=replace(each.passage, origin=PassageOrigin.WEB))
            for each in await mark_suspects(found, recorder)
        )
        own = retrieved.passages
        if is_low:
            passages = (*web[: max(1, count - _LEAST_OWN_COUNT)], *own)[: max(count, len(web))]
        else:
            passages = (*own, *web)
        return replace(retrieved, passages=passages)

    def _limit_seconds(self) -> float:
        remaining = self._remaining_seconds()
        if remaining is None:
            return self._limit
        return min(self._limit, remaining * _DEADLINE_SHARE_RATIO)


def _reason(policy: WebPolicy, retrieved: Retrieved) -> str:
    if policy is WebPolicy.ALWAYS:
        return "requested"
    return "low_confidence" if retrieved.passages else "nothing_found"
