"""Has a model word a question otherwise, so that documents are found that use other words."""

from services.common.errors import ServiceError
from services.rag.brief import BriefAnswers
from services.rag.core.expansion import (
    Variant,
    expansion_format,
    expansion_messages,
    variants_of,
)
from services.rag.core.options import ExpansionPolicy
from services.rag.core.profile import DegradationReason
from services.rag.recorder import Recorder

__all__ = ["Expander"]

_STAGE = "expand"
_OUTPUT_TOKEN_COUNT = 256


class Expander:
    """Makes other wordings of questions.

    The same question is worded otherwise once only: the cache keeps what the model said.

    Args:
        answers: Asks the model.
        time_limit_seconds: Longest time of one expansion.
    """

    def __init__(self, answers: BriefAnswers, *, time_limit_seconds: float) -> None:
        self._answers = answers
        self._time_limit_seconds = time_limit_seconds

    async def expand(
        self,
        question: str,
        kind: ExpansionPolicy,
        recorder: Recorder,
        *,
        time_limit_seconds: float,
    ) -> tuple[Variant, ...]:
        """Returns what to search for beside a question; never fails, but notes a degradation.

        Args:
            question: The question.
            kind: What to make; AUTO is MULTI_QUERY.
            recorder: Receives the stage and the degradation.
            time_limit_seconds: What the caller can wait.
        """
        if kind is ExpansionPolicy.NONE:
            return ()
        if kind is ExpansionPolicy.AUTO:
            kind = ExpansionPolicy.MULTI_QUERY
        try:
            with recorder.stage(_STAGE) as stage:
                output = await self._answers.ask(
                    expansion_messages(kind, question),
                    expansion_format(kind),
                    stage,
                    output_token_count=_OUTPUT_TOKEN_COUNT,
                    time_limit_seconds=min(time_limit_seconds, self._time_limit_seconds),
                    keep=True,
                )
                variants = variants_of(kind, question, output)
                stage.item_count = len(variants or ())
                stage.failed = variants is None
        except ServiceError as error:
            recorder.degrade(DegradationReason.EXPANSION_SKIPPED, _STAGE, error.message)
            return ()
        if variants is None:
            recorder.degrade(
                DegradationReason.EXPANSION_SKIPPED, _STAGE, "the model's output cannot be used"
            )
            return ()
        return variants
