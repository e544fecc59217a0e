"""What the answer to a prompt is worth to others who have the same prompt."""

from collections.abc import Callable

from services.rag.cache_port import CachedInference
from services.rag.core.answer import Answer
from services.rag.core.draft import Draft
from services.rag.core.json_answers import form_problem
from services.rag.core.quality import is_good_enough, quality_of
from services.rag.task import AnswerTask

__all__ = ["Worth"]


class Worth:
    """What an answer is worth, which is known once it was checked.

    Args:
        task: The question.
        make_draft: Makes a draft of another answer to the same prompt.
        confidence: How likely the sources hold the answer, 0 to 1; None where there are none, and
            an answer is not rated.

    Attributes:
        is_kept: Whether others may have the answer that was given; until it was checked, none may.
    """

    def __init__(
        self, task: AnswerTask, make_draft: Callable[[], Draft], *, confidence: float | None
    ) -> None:
        self._task = task
        self._make_draft = make_draft
        self._confidence = confidence
        self.is_kept = False

    def note(self, answer: Answer) -> None:
        """Learns of the answer that is given, as checking it has left it."""
        score = answer.quality.score if answer.quality is not None else None
        self.is_kept = self._is_enough(answer.text, answer.finish_reason, score)

    def is_sound(self, made: CachedInference) -> bool:
        """Says whether an answer that nobody reads is worth keeping, as far as its words tell.

        That takes some milliseconds for each of its sentences.
        """
        draft = self._make_draft()
        draft.append(made.text)
        draft.finish()
        if draft.passages:
            draft.judge()
        score = None
        if self._confidence is not None:
            score = quality_of(
                confidence=self._confidence,
                sentences=draft.sentences,
                citations=draft.checked_citations(),
                reasons=self._task.reasons,
            ).score
        return self._is_enough(draft.text, made.finish_reason, score)

    def _is_enough(self, text: str, finish_reason: str, score: float | None) -> bool:
        form = self._task.question.output_format
        return is_good_enough(score, finish_reason=finish_reason, reasons=self._task.reasons) and (
            form is None or form_problem(text, form.json_schema)[0] is None
        )
