"""Has a model word a question so that it is understood without the conversation before it."""

from services.common.errors import ServiceError
from services.rag.brief import BriefAnswers
from services.rag.core.options import Turn
from services.rag.core.profile import DegradationReason
from services.rag.core.rewriting import (
    REWRITE_FORMAT,
    Rewritten,
    fit_history,
    needs_rewrite,
    rewrite_messages,
    rewritten_of,
    with_last_turn,
)
from services.rag.recorder import Recorder

__all__ = ["Rewriter"]

_STAGE = "rewrite"
_OUTPUT_TOKEN_COUNT = 64


class Rewriter:
    """Words questions of a conversation so that each stands alone.

    What the model says is not cached: it is made from what one person said, and goes when the
    conversation is deleted.

    Args:
        answers: Asks the model.
        time_limit_seconds: Longest time of one rewriting.
        context_token_count: Context window of the model; the history takes a quarter at the most.
    """

    def __init__(
        self, answers: BriefAnswers, *, time_limit_seconds: float, context_token_count: int
    ) -> None:
        self._answers = answers
        self._time_limit_seconds = time_limit_seconds
        self._context_token_count = context_token_count

    async def rewrite(
        self, question: str, history: tuple[Turn, ...], recorder: Recorder, *, model: str = ""
    ) -> Rewritten:
        """Returns a question as it is to be searched for; never fails, but notes a degradation.

        Args:
            question: The question.
            history: What was said before, oldest first.
            recorder: Receives the stage and the degradation.
            model: Model that answers the question; empty for the default.

        Returns:
            The question itself where it stands alone.
        """
        if not history or not needs_rewrite(question, history):
            return Rewritten(question, question)
        try:
            with recorder.stage(_STAGE) as stage:
                turns = fit_history(history, context_token_count=self._context_token_count)
                output = await self._answers.ask(
                    rewrite_messages(question, turns),
                    REWRITE_FORMAT,
                    stage,
                    model=model,
                    output_token_count=_OUTPUT_TOKEN_COUNT,
                    time_limit_seconds=self._time_limit_seconds,
                    keep=False,
                )
                rewritten = rewritten_of(question, turns, output)
                stage.failed = rewritten is None
        except ServiceError as error:
            recorder.degrade(DegradationReason.REWRITE_SKIPPED, _STAGE, error.message)
            return with_last_turn(question, history)
        if rewritten is None:
            recorder.degrade(
                DegradationReason.REWRITE_SKIPPED, _STAGE, "the model's output cannot be used"
            )
            return with_last_turn(question, history)
        return rewritten
