"""Finds out, after an answer was given again, whether the same would come of answering anew."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from services.rag.core.draft import Draft
from services.rag.core.injection import demote_suspects
from services.rag.core.passages import RankedPassage
from services.rag.core.prompt import fit_passages, messages_for
from services.rag.core.reuse import ReusableAnswer, Verdict, judge_answers, says_the_same
from services.rag.embed import EmbeddingSource
from services.rag.models import ModelCatalogue, split_identity
from services.rag.ports import ModelsPort
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever, Search
from services.rag.semantic_port import Judge, SemanticCachePort, SemanticMatch, SemanticPartition
from services.rag.task import AnswerTask

__all__ = ["Verifier"]

_LIMIT_SECONDS = 120.0


class Verifier:
    """Answers questions anew, behind all that anyone waits for, and compares.

    Args:
        cache: Learns what came of it.
        retriever: Finds passages.
        embeddings: Makes vectors of answers.
        models: Has them generated.
        catalogue: Models of the fleet.
        make_recorder: Makes what receives the stages, which nobody reads.
    """

    def __init__(
        self,
        *,
        cache: SemanticCachePort,
        retriever: Retriever,
        embeddings: EmbeddingSource,
        models: ModelsPort,
        catalogue: ModelCatalogue,
        make_recorder: Callable[[], Recorder],
    ) -> None:
        self._cache = cache
        self._retriever = retriever
        self._embeddings = embeddings
        self._models = models
        self._catalogue = catalogue
        self._make_recorder = make_recorder

    async def verify(
        self, task: AnswerTask, partition: SemanticPartition, match: SemanticMatch
    ) -> None:
        """Compares the answer of a match with a new one, and reports what came of it.

        Nothing is reported where the new answer is a lesser one, or none at all.

        Raises:
            ServiceError: The question could not be answered anew, or the report not be taken.
        """
        task = replace(task, recorder=self._make_recorder())
        question = task.question
        search = await self._retriever.open(
            task.tenant_id, question.collection, question.text, question.retrieval, task.recorder
        )
        search.mode = question.mode
        retrieved = await self._retriever.find(search)
        passages = fit_passages(
            question.text,
            demote_suspects(retrieved.passages),
            context_token_count=task.sampling.context_token_count or 0,
            answer_token_count=task.sampling.max_output_token_count or 0,
            prompt=task.prompt,
        )
        if task.recorder.degradations or not passages:
            return
        text = await self._answer(task, passages)
        if text.strip():
            verdict = await self._compare(search, match.answer, text, passages)
            await self._cache.report(
                partition,
                match,
                verdict,
                Judge.RECOMPUTATION,
                served=False,
                mode=question.mode.value,
            )

    async def _answer(self, task: AnswerTask, passages: tuple[RankedPassage, ...]) -> str:
        model = await self._catalogue.chat_model(task.question.model)
        chat = self._models.chat(
            model.name,
            messages_for(task.question.text, passages, task.prompt),
            task.sampling,
            time_limit_seconds=_LIMIT_SECONDS,
            urgent=False,
            output_format=task.question.output_format,
        )
        async with aclosing(chat):
            return "".join([event async for event in chat if isinstance(event, str)])

    async def _compare(
        self,
        search: Search,
        kept: ReusableAnswer,
        text: str,
        passages: tuple[RankedPassage, ...],
    ) -> Verdict:
        if says_the_same(kept.text, text):
            return Verdict.RIGHT
        draft = Draft(passages)
        draft.append(text)
        draft.finish()
        draft.judge()
        cited = {passages[each.passage_index].passage.chunk_id for each in draft.citations}
        name, _ = split_identity(search.collection.embedding_model or "")
        model = await self._catalogue.embedding_model(name)
        found = await self._embeddings.embed(
            model,
            [kept.text, text],
            time_limit_seconds=_LIMIT_SECONDS,
            bypass_cache=True,
            urgent=False,
        )
        first, second = found.vectors
        lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
        return judge_answers(
            (kept.text, kept.cited_chunk_ids),
            (text, cited),
            similarity=float(np.dot(first, second)) / lengths,
        )
