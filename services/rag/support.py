"""Checks an answer's sentences by meaning: one call that embeds them all with their evidence."""

from collections.abc import Callable

import numpy as np

from services.common.errors import ServiceError
from services.rag.core.citations import Citation
from services.rag.core.documents import Vector
from services.rag.core.draft import Draft
from services.rag.core.profile import DegradationReason
from services.rag.embed import EmbeddingSource
from services.rag.models import ModelCatalogue, split_identity
from services.rag.task import AnswerTask

__all__ = ["MeaningSupport"]

_STAGE = "verify"
# More sentences than this are checked by their words alone.
_MOST_SENTENCES = 64
_LIMIT_SECONDS = 5.0
_DEADLINE_SHARE_RATIO = 0.5
_MOST_CHARACTERS = 2000


class MeaningSupport:
    """Judges drafts by meaning.

    Args:
        embeddings: Makes vectors of sentences.
        catalogue: Models of the fleet.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        *,
        embeddings: EmbeddingSource,
        catalogue: ModelCatalogue,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._embeddings = embeddings
        self._catalogue = catalogue
        self._remaining_seconds = remaining_seconds

    async def check(
        self, task: AnswerTask, draft: Draft, embedding_model: str | None
    ) -> list[Citation]:
        """Judges the sentences of a finished draft anew, and returns the citations this adds.

        Where they cannot be embedded what was found by words stands, and a degradation says so.

        Args:
            task: The question.
            draft: Its answer.
            embedding_model: Identity of the model of the collection's vectors; None without any.
        """
        checks = draft.meaning_checks()[:_MOST_SENTENCES]
        if not checks:
            return []
        recorder = task.recorder
        if embedding_model is None or any(
            each.reason is DegradationReason.EMBEDDING_UNAVAILABLE for each in recorder.degradations
        ):
            recorder.degrade(
                DegradationReason.VERIFICATION_REDUCED, _STAGE, "the question had no vector either"
            )
            return []
        texts = [text for each in checks for text in (each.statement, each.window)]
        try:
            with recorder.stage(_STAGE) as stage:
                stage.item_count = len(checks)
                name, _ = split_identity(embedding_model)
                model = await self._catalogue.embedding_model(name)
                found = await self._embeddings.embed(
                    model,
                    [text[:_MOST_CHARACTERS] or " " for text in texts],
                    time_limit_seconds=self._limit_seconds(),
                    bypass_cache=True,
                )
        except ServiceError as error:
            recorder.degrade(DegradationReason.VERIFICATION_REDUCED, _STAGE, error.message)
            return []
        vectors = found.vectors
        return draft.judge_meaning(
            {
                each.sentence_index: _cosine(vectors[2 * place], vectors[2 * place + 1])
                for place, each in enumerate(checks)
            }
        )

    def _limit_seconds(self) -> float:
        remaining = self._remaining_seconds()
        if remaining is None:
            return _LIMIT_SECONDS
        return min(_LIMIT_SECONDS, remaining * _DEADLINE_SHARE_RATIO)


def _cosine(first: Vector, second: Vector) -> float:
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(np.dot(first, second)) / lengths
