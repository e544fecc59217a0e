"""Answers questions: from what was answered before, else from documents by a model.

Each way is tried only when the ones before it have come to nothing: the answer to the same
question, that to one like it, that to the same prompt, a new one. Where a model cannot be asked the
sources answer; where the documents do not hold the answer, that is said.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from services.rag.agent import Agent, Gathered
from services.rag.compose import Composer
from services.rag.core.answer import Answer, AnswerEvent, PassagesFound
from services.rag.core.conversation import TokenUsage
from services.rag.core.errors import StoreUnavailable
from services.rag.core.options import AnswerPolicy, CachePolicy, Mode, Question, WebPolicy
from services.rag.core.profile import DegradationReason
from services.rag.core.prompt import Prompt, fit_history
from services.rag.core.prompt_size import PromptSizes
from services.rag.core.retrieved import NOTHING_FOUND, Retrieved
from services.rag.models import ModelCatalogue
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever, Search
from services.rag.reuse import AnswerReuse, Reuse
from services.rag.rewrite import Rewriter
from services.rag.search_web import WebFallback
from services.rag.suspects import mark_suspects
from services.rag.task import AnswerDefaults, AnswerTask

__all__ = ["Answerer"]


_NOTHING = Retrieved((), NOTHING_FOUND)
_WEB_ALONE = "The documents could not be asked; this answer stands on pages of the web alone."


@dataclass(slots=True, kw_only=True)
class _Findings:
    """What was found before anything is generated.

    Attributes:
        search: The search; None where the store is away.
        reuse: Keeps the new answer; None where it must not be kept.
        answer: An answer given before that is given again.
        retrieved: Else what an answer can be made from.
        outage: Why the documents could not be asked; None where they were.
    """

    search: Search | None = None
    reuse: Reuse | None = None
    answer: Answer | None = None
    retrieved: Retrieved = _NOTHING
    outage: StoreUnavailable | None = None


class Answerer:
    """Answers questions.

    Args:
        retriever: Finds passages.
        reuse: Finds answers given before.
        composer: Makes new answers.
        web: Finds passages outside of the documents.
        agent: Has models look for passages themselves.
        catalogue: Models of the fleet.
        sizes: Knows how many tokens prompts have.
        defaults: What holds where the caller says nothing.
        rewriter: Understands questions in the light of a conversation; None where none can be.
    """

    def __init__(
        self,
        *,
        retriever: Retriever,
        reuse: AnswerReuse,
        composer: Composer,
        web: WebFallback,
        agent: Agent,
        catalogue: ModelCatalogue,
        sizes: PromptSizes,
        defaults: AnswerDefaults,
        rewriter: Rewriter | None = None,
    ) -> None:
        self._retriever = retriever
        self._reuse = reuse
        self._composer = composer
        self._web = web
        self._agent = agent
        self._catalogue = catalogue
        self._sizes = sizes
        self._defaults = defaults
        self._rewriter = rewriter

    async def answer(
        self, tenant_id: str, question: Question, recorder: Recorder, *, partial_answers: bool
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers a question as the answer comes.

        Args:
            tenant_id: Owner of the collection.
            question: What is asked.
            recorder: Receives stages, degradations and warnings.
            partial_answers: Whether the caller shows the texts as they come. A generation that
                breaks off then ends in `AnswerInterrupted`, else it is tried once more, and then
                ends in an extractive answer.

        Raises:
            CollectionNotFound: The tenant has no such collection.
            ModelNotFound: The fleet does not have the model the caller named.
            AnswerInterrupted: See `partial_answers`.
            StoreUnavailable: Nothing could be searched, and nothing else could answer.
            PeerUnavailable: Mode DIRECT, and the balancer cannot be asked.
            RelayedError: The balancer refused the request, or in mode DIRECT could not answer.
        """
        task = self._begin(tenant_id, question, recorder, partial_answers=partial_answers)
        steps = self._steps(task)
        async with aclosing(steps):
            async for event in steps:
                if isinstance(event, str):
                    recorder.mark_first_text()
                yield event

    def _steps(self, task: AnswerTask) -> AsyncGenerator[AnswerEvent, None]:
        mode = task.question.mode
        if mode is Mode.DIRECT:
            return self._composer.direct(task)
        return self._gathered(task) if mode is Mode.AGENT else self._grounded(task)

    def _begin(
        self, tenant_id: str, question: Question, recorder: Recorder, *, partial_answers: bool
    ) -> AnswerTask:
        model = self._catalogue.known_chat_model(question.model)
        digest = model.digest if model is not None else ""
        sampling = self._defaults.applied_to(
            question.sampling,
            model_context_count=model.context_token_count if model is not None else 0,
        )
        history = fit_history(
            question.history,
            context_token_count=sampling.context_token_count or 0,
            count_tokens=lambda text: self._sizes.estimate(digest, text),
        )
        return AnswerTask(
            tenant_id=tenant_id,
            question=question,
            sampling=sampling,
            recorder=recorder,
            partial_answers=partial_answers,
            model_digest=digest,
            prompt=Prompt(
                policy=question.answer_policy,
                output_format=question.output_format,
                history=history,
            ),
        )

    async def _grounded(self, task: AnswerTask) -> AsyncGenerator[AnswerEvent, None]:
        findings = await self._find(task)
        if findings.answer is not None:
            async for event in _given(findings.answer):
                yield event
            return
        reuse, search = findings.reuse, findings.search
        steps = self._answer_from(task, findings)
        async with aclosing(steps):
            async for event in steps:
                if isinstance(event, Answer) and reuse is not None and search is not None:
                    await reuse.keep(event, search.vector)
                yield event

    async def _gathered(self, task: AnswerTask) -> AsyncGenerator[AnswerEvent, None]:
        """Answers from what a model gathers with tools; without that as the other modes do."""
        question = task.question
        try:
            collection = await self._retriever.look_up(
                task.tenant_id, question.collection, task.recorder
            )
        except StoreUnavailable:
            # The way of the other modes ends in the lesser answers there are then.
            gathered, steps = None, self._grounded(task)
        else:
            gathered = await self._agent.gather(task)
            if gathered.problem:
                task.recorder.degrade(DegradationReason.TOOL_FAILED, "agent", gathered.problem)
            if len(gathered.findings):
                steps = self._answer_gathered(task, gathered, collection.embedding_model)
            else:
                if gathered.problem:
                    task.question = replace(question, mode=Mode.DEEP)
                steps = self._grounded(task)
        async with aclosing(steps):
            async for event in steps:
                if isinstance(event, Answer) and gathered is not None:
                    yield _with_tools(event, gathered)
                else:
                    yield event

    async def _answer_gathered(
        self, task: AnswerTask, gathered: Gathered, embedding_model: str | None
    ) -> AsyncGenerator[AnswerEvent, None]:
        findings = gathered.findings
        fitting = self._composer.fitting(task, findings.in_turn())
        found = Retrieved(findings.in_order(fitting), gathered.confidence, gathered.queries)
        if task.question.web is WebPolicy.ALWAYS and not gathered.has_used("web_search"):
            found = await self._web.widen(task, found)
        steps = self._composer.compose(task, found, embedding_model, chosen=True)
        async with aclosing(steps):
            async for event in steps:
                yield event

    async def _find(self, task: AnswerTask) -> _Findings:
        """Finds an answer, or what one can be made from; where the store is away, an old one.

        Raises:
            StoreUnavailable: Nor may an answer be made without the documents.
        """
        try:
            return await self._find_current(task)
        except StoreUnavailable as error:
            task.recorder.degrade(DegradationReason.STORE_UNAVAILABLE, "collection", error.message)
            answer = await self._reuse.find_stale(task)
            if answer is not None:
                return _Findings(answer=answer)
            if not _allows_model(task) and task.question.web is not WebPolicy.ALWAYS:
                raise
            return _Findings(outage=error)

    async def _find_current(self, task: AnswerTask) -> _Findings:
        question = task.question
        early = self._reuse.begin_early(task)
        if early is not None:
            with suppress(StoreUnavailable):
                # The collection that is looked up next then says so, or that it is back.
                if (answer := await early.find_same()) is not None:
                    return _Findings(reuse=early, answer=answer)
        begun = self._retriever.begun(
            task.tenant_id,
            question.collection,
            question.text,
            question.retrieval,
            task.recorder,
            bypass_cache=question.cache_policy is CachePolicy.BYPASS,
            cache_is_away=task.cache_is_away,
            # In the light of a history it is worded otherwise.
            is_final=not question.history,
        )
        async with begun as search:
            search.mode = question.mode
            return await self._find_in(task, search, early)

    async def _find_in(self, task: AnswerTask, search: Search, early: Reuse | None) -> _Findings:
        reuse = self._reuse.begin(task, search, early)
        found = _Findings(search=search, reuse=reuse)
        if reuse is not None and not reuse.was_looked_up:
            found.answer = await reuse.find_same()
        if found.answer is None:
            await self._understand(task, search)
            if reuse is not None and not reuse.is_over:
                found.answer = await self._find_similar(task, search, reuse)
        if found.answer is None:
            search.cache_is_away |= task.cache_is_away
            retrieved = await self._retriever.find(search)
            task.cache_is_away |= search.cache_is_away
            passages = await mark_suspects(retrieved.passages, task.recorder)
            found.retrieved = replace(retrieved, passages=passages)
            if reuse is not None:
                found.answer = await reuse.confirm(retrieved.passages)
        return found

    async def _understand(self, task: AnswerTask, search: Search) -> None:
        """Words a question so that it is understood without what was said before."""
        question = task.question
        if not question.history or self._rewriter is None:
            return
        rewritten = await self._rewriter.rewrite(
            question.text, question.history, task.recorder, model=question.model
        )
        if rewritten.text != question.text:
            task.rewritten = rewritten.text
            search.question = rewritten.text
        if rewritten.keyword_text != search.question:
            search.keyword_text = rewritten.keyword_text

    async def _find_similar(self, task: AnswerTask, search: Search, reuse: Reuse) -> Answer | None:
        """Looks for the answer to a question that means the same."""
        await self._retriever.embed(search)
        task.cache_is_away |= search.cache_is_away
        if search.vector is None or task.cache_is_away:
            return None
        return await reuse.find_similar(search.vector)

    async def _answer_from(
        self, task: AnswerTask, findings: _Findings
    ) -> AsyncGenerator[AnswerEvent, None]:
        found = await self._web.widen(task, findings.retrieved)
        search, outage = findings.search, findings.outage
        if outage is not None and found.passages:
            task.recorder.degrade(DegradationReason.UNGROUNDED, "web_search", _WEB_ALONE)
        elif outage is not None and not _allows_model(task):
            raise outage
        steps = self._composer.compose(
            task, found, search.collection.embedding_model if search is not None else None
        )
        async with aclosing(steps):
            async for event in steps:
                yield event


def _allows_model(task: AnswerTask) -> bool:
    """Says whether a model may answer from what it knows."""
    return task.question.answer_policy is AnswerPolicy.ALLOW_MODEL_KNOWLEDGE


def _with_tools(answer: Answer, gathered: Gathered) -> Answer:
    usage = answer.usage
    if not answer.origin.is_given_again:
        usage = TokenUsage(
            usage.prompt_token_count + gathered.usage.prompt_token_count,
            usage.completion_token_count + gathered.usage.completion_token_count,
        )
    return replace(answer, usage=usage, tool_executions=gathered.executions)


async def _given(answer: Answer) -> AsyncGenerator[AnswerEvent, None]:
    """Gives an answer that is complete."""
    yield PassagesFound(answer.passages)
    yield answer.text
    for citation in answer.citations:
        yield citation
    yield answer
