import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from opentelemetry.trace import NoOpTracer

from services.common.clock import SystemClock
from services.common.errors import PeerUnavailable
from services.common.metrics import Metrics
from services.rag.core.analysis import analyse_document
from services.rag.core.bm25 import score_chunks
from services.rag.core.documents import CollectionStats
from services.rag.core.errors import CollectionNotFound, StoreUnavailable
from services.rag.core.expansion import Variant
from services.rag.core.filters import Access, DocumentFilter
from services.rag.core.options import (
    ExpansionPolicy,
    Mode,
    RerankPolicy,
    RetrievalOptions,
    SearchArms,
)
from services.rag.core.passages import KeywordMatches, ScoredChunk, TermStatistics
from services.rag.core.profile import DegradationReason
from services.rag.core.retrieved import Band
from services.rag.embed import EmbeddingsFound
from services.rag.meter import Meter, current_meter
from services.rag.metrics import CATALOGUE
from services.rag.ports import ModelFacts, RerankerUnavailable
from services.rag.rank import Ranker
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever
from services.rag.search import Searcher, TimeLimits
from tests.kit.candidates import candidate, passage

DIGEST = "0" * 64
MODEL = ModelFacts(name="all-minilm:latest", digest=DIGEST, generates=False, embeds=True)
OPTIONS = RetrievalOptions(expansion=ExpansionPolicy.NONE, merge_neighbors=False)
TEXTS = {
    1: "Llamas carry loads over the mountain passes.",
    2: "Alpacas are shorn for their wool once in a year.",
    3: "Rain falls in the valley during summer.",
    4: "The mountain railway runs twice a day.",
}


def embed(text: str):
    """A vector with a place for each word, so that texts with common words are near each other."""
    vector = np.full(64, 0.01, np.float32)
    for term in analyse_document(text).counts:
        vector[sum(term.encode()) % 64] += 1
    return vector / np.linalg.norm(vector)


class Store:
    """Documents of one passage each, in memory; `gate` holds a method, `fail` has it fail."""

    def __init__(self, texts=TEXTS):
        self.passages = {
            number: passage(number, text, document_id=f"doc{number}")
            for number, text in texts.items()
        }
        self.calls = []
        self.holds = {}
        self.failures = {}
        self.reached = {}
        self.pending_vector_count = 0
        self.without_vectors = frozenset()
        self.languages = ("en",)
        self.embedding_model = f"{MODEL.name}@{DIGEST}"

    async def _enter(self, method, **arguments):
        self.calls.append((method, arguments))
        if method in self.reached:
            self.reached[method].set()
        if method in self.holds:
            await self.holds[method].wait()
        if method in self.failures:
            raise self.failures[method]

    async def get_collection(self, tenant_id, name):
        await self._enter("get_collection")
        now = datetime(2026, 1, 1, tzinfo=UTC)
        return CollectionStats(
            name=name,
            embedding_model=self.embedding_model,
            embedding_dimension=64,
            document_count=len(self.passages),
            chunk_count=len(self.passages),
            token_sum=100,
            version=1,
            created_at=now,
            updated_at=now,
            pending_vector_count=self.pending_vector_count,
            languages=self.languages,
        )

    async def search_vector(self, tenant_id, collection, *, vector, limit, filter, access, **_):
        await self._enter("search_vector", filter=filter, access=access)
        scored = [
            ScoredChunk(number, float(embed(each.text) @ vector))
            for number, each in self.passages.items()
            if number not in self.without_vectors
        ]
        return tuple(sorted(scored, key=lambda hit: -hit.score)[:limit])

    async def search_keyword(self, tenant_id, collection, *, terms, limit, filter, access):
        await self._enter("search_keyword", filter=filter, access=access, terms=terms)
        analysed = {number: analyse_document(each.text) for number, each in self.passages.items()}
        scores = score_chunks(terms, analysed)
        hits = [ScoredChunk(number, score) for number, score in scores.items()]
        frequencies = {
            term: sum(term in each.counts for each in analysed.values()) for term in terms
        }
        return KeywordMatches(
            hits=tuple(sorted(hits, key=lambda hit: -hit.score)[:limit]),
            statistics=TermStatistics(
                chunk_count=len(analysed), average_length=8.0, document_frequencies=frequencies
            ),
        )

    async def load_passages(self, tenant_id, chunk_ids, *, access):
        await self._enter("load_passages", access=access)
        return {number: self.passages[number] for number in chunk_ids if number in self.passages}

    async def load_vectors(self, tenant_id, collection, chunk_ids):
        await self._enter("load_vectors")
        return {
            number: embed(self.passages[number].text)
            for number in chunk_ids
            if number not in self.without_vectors
        }

    async def load_spans(self, tenant_id, spans, *, access):
        await self._enter("load_spans", access=access)
        return {span: "\n" * (span.char_end - span.char_start) for span in spans}

    async def sample_vectors(self, tenant_id, collection, *, limit):
        await self._enter("sample_vectors")
        return tuple(embed(each.text) for each in self.passages.values())

    def called(self, method):
        return [arguments for name, arguments in self.calls if name == method]


class Embeddings:
    def __init__(self):
        self.hold = None
        self.reached = asyncio.Event()
        self.failure = None
        self.is_degraded = False
        self.texts = []
        self.models = []
        self.bypasses = []
        self.cancelled_count = 0

    async def embed_question(self, model, question, *, time_limit_seconds):
        return await self.embed(model, [question])

    async def embed(self, model, texts, *, time_limit_seconds=None, bypass_cache=False):
        self.texts += texts
        self.models.append(model.name)
        self.bypasses.append(bypass_cache)
        self.reached.set()
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled_count += 1
                raise
        if self.failure is not None:
            raise self.failure
        return EmbeddingsFound(
            vectors=tuple(embed(text) for text in texts),
            computed_count=len(texts),
            cache_outcome="miss",
            cache_degraded=self.is_degraded,
        )


class Models:
    async def embedding_model(self, name=""):
        return replace(MODEL, name=name)


class Expander:
    def __init__(self, *variants):
        self.variants = variants
        self.asked = []

    async def expand(self, question, kind, recorder, *, time_limit_seconds):
        self.asked.append(kind)
        return self.variants


class Judge:
    name = "judge"

    def __init__(self, logits=None, failure=None):
        self.logits = logits or {}
        self.failure = failure
        self.asked = []

    async def score(self, question, texts, *, time_limit_seconds):
        self.asked.append(len(texts))
        if self.failure is not None:
            raise self.failure
        return [
            next((logit for word, logit in self.logits.items() if word in text), None)
            for text in texts
        ]


class Kit:
    """A retriever with its parts."""

    def __init__(self, *, expander=None, judge=None, remaining=None, arm_seconds=20.0, texts=TEXTS):
        self.store, self.embeddings = Store(texts), Embeddings()
        self.metrics = Metrics(CATALOGUE, version="test")
        self.recorder = Recorder(clock=SystemClock(), tracer=NoOpTracer())
        limits = TimeLimits(
            embedding=20.0, arm=arm_seconds, reranking=20.0, remaining=lambda: remaining
        )
        self.ranker = Ranker(store=self.store, reranker=judge, rerank_count=40, limits=limits)
        self.retriever = Retriever(
            store=self.store,
            searcher=Searcher(
                store=self.store, embeddings=self.embeddings, models=Models(), limits=limits
            ),
            ranker=self.ranker,
            expander=expander,
            limits=limits,
            metrics=self.metrics,
        )

    async def find(self, question, options=OPTIONS, *, mode=Mode.RAG, **facts):
        search = await self.retriever.open("acme", "docs", question, options, self.recorder)
        search.mode = mode
        for name, value in facts.items():
            setattr(search, name, value)
        return await self.retriever.find(search)

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)

    @property
    def stages(self):
        return [stage.name for stage in self.recorder.stages]

    @property
    def degradations(self):
        return [(each.reason, each.stage) for each in self.recorder.degradations]


def numbers(retrieved):
    return [each.passage.chunk_id for each in retrieved.passages]


@asynccontextmanager
async def finding(kit, question="llamas on mountain passes", options=OPTIONS):
    task = asyncio.create_task(kit.find(question, options))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_search_for_a_caller_is_measured_and_one_behind_the_scenes_only_counted():
    kit = Kit()
    await kit.find("Which animals carry loads over mountain passes?")
    retrievals = "rag_retrievals_total"
    assert kit.value(retrievals, mode="other", outcome="success") == 1
    assert kit.value("rag_searches_total", band="high") == 0
    assert kit.value("rag_retrieval_confidence_count") == 0
    current_meter.set(Meter("deep"))
    await kit.find("Which animals carry loads over mountain passes?")
    assert kit.value(retrievals, mode="deep", outcome="success") == 1
    assert kit.value("rag_searches_total", band="high") == 1
    assert kit.value("rag_retrieval_confidence_count") == 1


async def test_a_search_that_is_cancelled_has_neither_found_nor_failed():
    kit = Kit()
    async with finding(kit):
        await asyncio.sleep(0)
    for outcome in ("success", "empty", "error"):
        assert kit.value("rag_retrievals_total", mode="other", outcome=outcome) == 0


async def test_both_arms_find_and_the_stages_are_recorded():
    kit = Kit()
    found = await kit.find("Which animals carry loads over mountain passes?")
    assert numbers(found)[0] == 1
    assert found.passages[0].ranking.vector_rank == found.passages[0].ranking.keyword_rank == 1
    assert found.confidence.band is Band.HIGH
    assert found.expansions == ()
    assert kit.degradations == []
    assert sorted(kit.stages) == sorted(
        ["collection", "embed_question", "vector_search", "keyword_search", "fuse",
         "load_passages", "diversify"]
    )  # fmt: skip


async def test_words_are_searched_while_the_question_is_being_embedded():
    kit = Kit()
    kit.embeddings.hold = asyncio.Event()
    kit.store.reached["search_keyword"] = asyncio.Event()
    async with finding(kit) as task:
        await kit.embeddings.reached.wait()
        await kit.store.reached["search_keyword"].wait()
        assert kit.store.called("search_vector") == []
        kit.embeddings.hold.set()
        assert numbers(await task)[0] == 1


async def retrieve(kit, question="llamas on mountain passes", options=OPTIONS):
    """Searches for a question in a collection that was asked before."""
    await kit.find("alpacas")
    kit.embeddings.texts.clear()
    kit.embeddings.models.clear()
    kit.embeddings.reached.clear()
    return asyncio.create_task(
        kit.retriever.retrieve("acme", "docs", question, options, kit.recorder)
    )


async def test_the_question_is_embedded_while_a_collection_that_is_known_is_looked_up():
    kit = Kit()
    task = await retrieve(kit)
    hold = kit.store.holds["get_collection"] = asyncio.Event()
    await kit.embeddings.reached.wait()
    assert len(kit.store.called("search_keyword")) == 1
    hold.set()
    assert numbers(await task)[0] == 1
    assert kit.embeddings.texts == ["llamas on mountain passes"]
    assert kit.degradations == []


async def test_a_question_is_embedded_anew_where_another_model_embeds_its_collection_now():
    kit = Kit()
    task = await retrieve(kit)
    kit.store.embedding_model = f"other@{DIGEST}"
    kit.embeddings.is_degraded = True
    hold = kit.store.holds["get_collection"] = asyncio.Event()
    await kit.embeddings.reached.wait()
    hold.set()
    assert numbers(await task)[0] == 1
    assert kit.embeddings.models == [MODEL.name, "other"]
    assert kit.degradations == [(DegradationReason.CACHE_UNAVAILABLE, "embed_question")]


@pytest.mark.parametrize("failure", [CollectionNotFound("docs"), StoreUnavailable("away")])
async def test_what_was_begun_for_a_collection_that_is_gone_ends_without_a_trace(failure):
    kit = Kit()
    task = await retrieve(kit)
    kit.embeddings.hold = asyncio.Event()
    hold = kit.store.holds["get_collection"] = asyncio.Event()
    kit.store.failures["get_collection"] = failure
    await kit.embeddings.reached.wait()
    hold.set()
    with pytest.raises(type(failure)):
        await task
    assert kit.embeddings.cancelled_count == 1
    assert kit.degradations == []


async def test_an_embedding_that_was_begun_early_and_failed_counts_only_with_its_collection():
    kit = Kit()
    task = await retrieve(kit)
    kit.embeddings.failure = PeerUnavailable("balancer", "away")
    kit.store.failures["get_collection"] = CollectionNotFound("docs")
    with pytest.raises(CollectionNotFound):
        await task
    assert kit.degradations == []


async def test_nothing_is_embedded_early_that_may_not_be_wanted():
    kit = Kit()
    by_words = replace(OPTIONS, arms=SearchArms.KEYWORD)
    await (await retrieve(kit, options=by_words))
    assert kit.embeddings.texts == []
    begun = kit.retriever.begun("acme", "docs", "they", OPTIONS, kit.recorder, is_final=False)
    async with begun as search:
        search.question = "llamas"
        await kit.retriever.find(search)
    assert kit.embeddings.texts == ["llamas"]


async def test_without_the_cache_a_question_is_embedded_early_without_it():
    kit = Kit()
    await kit.find("alpacas")
    kit.embeddings.bypasses.clear()
    begun = kit.retriever.begun("acme", "docs", "llamas", OPTIONS, kit.recorder, cache_is_away=True)
    async with begun as search:
        await kit.retriever.find(search)
    assert kit.embeddings.bypasses == [True]


async def test_meaning_is_searched_while_words_are():
    kit = Kit()
    kit.store.holds["search_keyword"] = asyncio.Event()
    kit.store.reached["search_vector"] = asyncio.Event()
    async with finding(kit) as task:
        await kit.store.reached["search_vector"].wait()
        kit.store.holds["search_keyword"].set()
        assert numbers(await task)[0] == 1


async def test_the_sample_of_the_collection_is_drawn_beside_the_search_and_once():
    kit = Kit()
    kit.store.holds["sample_vectors"] = asyncio.Event()
    kit.store.reached["search_vector"] = asyncio.Event()
    async with finding(kit) as task:
        await kit.store.reached["search_vector"].wait()
        kit.store.holds["sample_vectors"].set()
        assert (await task).confidence.vector_percentile is not None
    await kit.find("alpacas")
    assert len(kit.store.called("sample_vectors")) == 1


@pytest.mark.parametrize(
    ("arms", "asked"),
    [
        (SearchArms.HYBRID, {"search_vector", "search_keyword"}),
        (SearchArms.VECTOR, {"search_vector"}),
        (SearchArms.KEYWORD, {"search_keyword"}),
    ],
)
async def test_only_the_arms_asked_for_are_searched(arms, asked):
    kit = Kit()
    found = await kit.find("llamas", replace(OPTIONS, arms=arms))
    assert numbers(found)[0] == 1
    assert {name for name, _ in kit.store.calls if name.startswith("search")} == asked
    assert bool(kit.embeddings.texts) is (arms is not SearchArms.KEYWORD)
    assert (found.confidence.keyword_ratio is None) is (arms is SearchArms.VECTOR)
    assert (found.confidence.vector_percentile is None) is (arms is SearchArms.KEYWORD)
    assert kit.degradations == []


async def test_filter_and_access_reach_every_statement():
    kit = Kit()
    access, documents = Access(("user:ann",)), DocumentFilter(any_tags=("x",))
    await kit.find("llamas", replace(OPTIONS, access=access, filter=documents))
    calls = dict(kit.store.calls)
    for method in ("search_vector", "search_keyword"):
        assert calls[method] == calls[method] | {"filter": documents, "access": access}
    assert calls["load_passages"]["access"] == access


async def test_words_may_be_searched_in_another_form_than_meaning():
    kit = Kit()
    await kit.find("And what of them?", keyword_text="What of alpacas and wool?")
    assert "alpaca" in kit.store.called("search_keyword")[0]["terms"]
    assert kit.embeddings.texts == ["And what of them?"]


async def test_words_are_searched_in_the_forms_of_all_languages_and_judged_in_those_of_one():
    kit = Kit()
    kit.store.languages = ("de", "en")
    kit.store.passages = {
        1: replace(kit.store.passages[1], language="en"),
        5: replace(passage(5, "Die Bahnen fahren t\u00e4glich."), language="de"),
    }
    found = await kit.find("llamas carrying loads", replace(OPTIONS, arms=SearchArms.KEYWORD))
    assert {"carri", "carrying"} & set(kit.store.called("search_keyword")[0]["terms"])
    assert numbers(found)[0] == 1
    assert found.confidence.coverage_ratio == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("method", "stage"),
    [("search_vector", "vector_search"), ("search_keyword", "keyword_search")],
)
async def test_where_one_arm_fails_the_other_answers(method, stage):
    kit = Kit()
    kit.store.failures[method] = StoreUnavailable("broken")
    assert numbers(await kit.find("llamas"))[0] == 1
    assert kit.degradations == [(DegradationReason.SEARCH_ARM_FAILED, stage)]


@pytest.mark.parametrize("method", ["search_vector", "search_keyword"])
async def test_where_one_arm_takes_more_than_half_of_the_time_left_the_other_answers(
    method, monkeypatch
):
    kit = Kit(remaining=30.0)
    kit.store.holds[method] = asyncio.Event()
    limits, make = [], asyncio.timeout

    def timeout(seconds):
        # Time passes for whoever is held.
        limits.append(seconds)
        return make(None)

    monkeypatch.setattr("services.rag.search.asyncio.timeout", timeout)
    kit.store.reached[method] = asyncio.Event()
    async with finding(kit) as task:
        await kit.store.reached[method].wait()
        kit.store.failures[method] = TimeoutError()
        kit.store.holds[method].set()
        assert numbers(await task)[0] == 1
    searching, reading = 15.0, 7.5
    assert set(limits) == {searching, reading}
    ((reason, _),) = kit.degradations
    assert reason is DegradationReason.SEARCH_ARM_FAILED
    assert "took too long" in kit.recorder.degradations[0].detail


async def test_texts_that_are_late_are_those_of_a_store_that_is_away():
    kit = Kit(remaining=30.0)
    kit.store.failures["load_passages"] = TimeoutError()
    with pytest.raises(StoreUnavailable, match="timed out"):
        await kit.find("llamas")


async def test_vectors_that_are_late_leave_words_to_compare():
    kit = Kit(remaining=30.0)
    kit.store.failures["load_vectors"] = TimeoutError()
    found = await kit.find("llamas", replace(OPTIONS, relevance_weight_ratio=0.5))
    assert numbers(found)[0] == 1


async def test_where_both_arms_fail_the_store_is_to_blame():
    kit = Kit()
    kit.store.failures = dict.fromkeys(
        ("search_vector", "search_keyword"), StoreUnavailable("broken")
    )
    with pytest.raises(StoreUnavailable):
        await kit.find("llamas")


async def test_without_a_vector_words_answer():
    kit = Kit()
    kit.embeddings.failure = PeerUnavailable("balancer", "away")
    found = await kit.find("llamas")
    assert numbers(found) == [1]
    assert kit.degradations == [(DegradationReason.EMBEDDING_UNAVAILABLE, "embed_question")]
    with pytest.raises(PeerUnavailable):
        await kit.find("llamas", replace(OPTIONS, arms=SearchArms.VECTOR))


async def test_the_estimate_does_without_a_sample_that_cannot_be_read():
    kit = Kit()
    kit.store.failures["sample_vectors"] = StoreUnavailable("broken")
    found = await kit.find("llamas on mountain passes")
    assert found.confidence.vector_percentile is None
    assert found.confidence.score > 0
    assert kit.degradations == []


async def test_what_was_replaced_meanwhile_is_searched_for_once_more():
    kit = Kit()
    load = kit.store.load_passages

    async def replaced(tenant_id, chunk_ids, *, access):
        if 1 in kit.store.passages:
            old = kit.store.passages.pop(1)
            kit.store.passages[9] = replace(old, chunk_id=9)
        return await load(tenant_id, chunk_ids, access=access)

    kit.store.load_passages = replaced
    assert numbers(await kit.find("llamas"))[0] == 9
    assert len(kit.store.called("search_keyword")) == 2
    assert len(kit.embeddings.texts) == 1


async def test_documents_without_vectors_are_told_of():
    kit = Kit()
    kit.store.pending_vector_count = 2
    await kit.find("llamas")
    assert kit.degradations == [(DegradationReason.VECTORS_PENDING, "vector_search")]


async def test_few_documents_without_vectors_are_told_of_where_they_are_among_the_best():
    new = {number: f"zebra number {number} in the herd" for number in (1, 2, 3)}
    old = {number: f"parcel {number} on its way" for number in range(4, 101)}
    kit = Kit(texts=new | old)
    kit.store.pending_vector_count, kit.store.without_vectors = 3, frozenset(new)
    options = replace(OPTIONS, candidate_count=20)
    await kit.find("parcel on its way", options)
    assert kit.degradations == []
    await kit.find("zebra in the herd", options)
    assert kit.degradations == [(DegradationReason.VECTORS_PENDING, "vector_search")]


WOOL = Variant(text="wool of alpacas", weight=0.5, by_meaning_only=False)
PLAIN = "Something else entirely"


@pytest.mark.parametrize(
    ("policy", "mode", "question", "asked"),
    [
        (ExpansionPolicy.AUTO, Mode.DEEP, PLAIN, [ExpansionPolicy.MULTI_QUERY]),
        (ExpansionPolicy.AUTO, Mode.DEEP, TEXTS[1], []),
        (ExpansionPolicy.AUTO, Mode.RAG, PLAIN, []),
        (ExpansionPolicy.NONE, Mode.DEEP, PLAIN, []),
        (ExpansionPolicy.HYDE, Mode.RAG, TEXTS[1], [ExpansionPolicy.HYDE]),
    ],
)
async def test_other_wordings_are_asked_for_where_policy_mode_and_doubt_say_so(
    policy, mode, question, asked
):
    expander = Expander(WOOL)
    kit = Kit(expander=expander)
    found = await kit.find(question, replace(OPTIONS, expansion=policy), mode=mode)
    assert expander.asked == asked
    assert found.expansions == ((WOOL.text,) if asked else ())


async def test_what_another_wording_finds_comes_up_and_what_the_question_found_stays():
    kit = Kit(expander=Expander(WOOL))
    options = replace(OPTIONS, expansion=ExpansionPolicy.MULTI_QUERY, arms=SearchArms.KEYWORD)
    found = await kit.find("llamas", options)
    assert numbers(found) == [1, 2]
    assert found.passages[1].ranking.keyword_rank is None


async def test_other_wordings_are_searched_at_the_same_time():
    variants = [replace(WOOL, text=f"wool {number}") for number in range(3)]
    kit = Kit(expander=Expander(*variants))
    search, entered, all_in = kit.store.search_keyword, [], asyncio.Event()

    async def together(*rest, **arguments):
        if any(term.startswith("wool") for term in arguments["terms"]):
            entered.append(arguments["terms"])
            if len(entered) == len(variants):
                all_in.set()
            await all_in.wait()
        return await search(*rest, **arguments)

    kit.store.search_keyword = together
    async with asyncio.timeout(20):
        await kit.find("llamas", replace(OPTIONS, expansion=ExpansionPolicy.MULTI_QUERY))
    assert len(kit.store.called("search_vector")) == 4


async def test_a_made_up_passage_is_not_searched_for_by_its_words():
    kit = Kit(expander=Expander(replace(WOOL, by_meaning_only=True)))
    await kit.find("llamas", replace(OPTIONS, expansion=ExpansionPolicy.HYDE))
    assert len(kit.store.called("search_keyword")) == 1
    assert len(kit.store.called("search_vector")) == 2


async def test_without_a_model_that_words_otherwise_a_wish_for_it_is_a_degradation():
    kit = Kit()
    await kit.find("llamas", replace(OPTIONS, expansion=ExpansionPolicy.STEP_BACK))
    assert kit.degradations == [(DegradationReason.EXPANSION_SKIPPED, "expand")]
    kit = Kit()
    await kit.find(PLAIN, replace(OPTIONS, expansion=ExpansionPolicy.AUTO), mode=Mode.DEEP)
    assert kit.degradations == []


@pytest.mark.parametrize(
    ("policy", "mode", "question", "is_asked"),
    [
        (RerankPolicy.AUTO, Mode.RAG, PLAIN, True),
        (RerankPolicy.AUTO, Mode.RAG, TEXTS[1], False),
        (RerankPolicy.AUTO, Mode.DEEP, TEXTS[1], True),
        (RerankPolicy.ON, Mode.RAG, TEXTS[1], True),
        (RerankPolicy.OFF, Mode.DEEP, PLAIN, False),
    ],
)
async def test_candidates_are_judged_where_policy_mode_and_doubt_say_so(
    policy, mode, question, is_asked
):
    judge = Judge({"": 1.0})
    kit = Kit(judge=judge)
    found = await kit.find(question, replace(OPTIONS, rerank=policy), mode=mode)
    assert bool(judge.asked) is is_asked
    assert (found.confidence.rerank_ratio is not None) is is_asked
    assert kit.degradations == []


async def test_the_judge_has_the_greater_say_in_the_order():
    kit = Kit(judge=Judge({"Alpacas": 5.0, "": -5.0}))
    found = await kit.find("mountain", replace(OPTIONS, rerank=RerankPolicy.ON))
    assert numbers(found)[0] == 2
    assert found.passages[0].ranking.rerank_score == pytest.approx(0.993, abs=0.001)


async def test_a_judge_that_fails_or_runs_out_of_time_leaves_the_order_and_says_so():
    options = replace(OPTIONS, rerank=RerankPolicy.ON)
    plain = numbers(await Kit().find("mountain"))
    kit = Kit(judge=Judge(failure=RerankerUnavailable("no such file")))
    assert numbers(await kit.find("mountain", options)) == plain
    assert kit.degradations == [(DegradationReason.RERANK_UNAVAILABLE, "rerank")]
    kit = Kit(judge=Judge())
    assert numbers(await kit.find("mountain", options)) == plain
    assert kit.degradations == [(DegradationReason.RERANK_BUDGET_EXCEEDED, "rerank")]
    kit = Kit()
    assert numbers(await kit.find("mountain", options)) == plain
    assert kit.degradations == [(DegradationReason.RERANK_UNAVAILABLE, "rerank")]


async def test_copies_leave_their_places_to_others():
    copies = dict.fromkeys(range(10, 15), "Llamas carry loads over the mountain passes.")
    kit = Kit(texts={**TEXTS, **copies})
    found = await kit.find("llamas and alpacas", replace(OPTIONS, passage_count=2))
    assert sorted(numbers(found)) == [1, 2]


async def test_variety_is_sought_among_vectors_where_it_is_asked_for():
    kit = Kit()
    await kit.find("mountain", replace(OPTIONS, relevance_weight_ratio=0.5))
    assert "load_vectors" in kit.stages
    kit = Kit()
    await kit.find("mountain")
    assert "load_vectors" not in kit.stages


async def test_without_any_weight_on_variety_the_order_is_the_plain_one():
    texts = ("ash", "birch", "cedar", "elm", "fir", "oak", "yew")
    kit = Kit(texts=dict(enumerate(texts)))
    documents = ("one", "one", "one", "one", "two", "three", "four")
    candidates = [
        candidate(passage(number, text, document_id=document, ordinal=number), 1 - number / 10)
        for number, (text, document) in enumerate(zip(texts, documents, strict=True))
    ]

    async def order(**options):
        options = replace(OPTIONS, passage_count=7, **options)
        search = await kit.retriever.open("acme", "docs", "trees", options, kit.recorder)
        return [each.passage.chunk_id for each in await kit.ranker.choose(search, candidates)]

    assert await order() == [0, 1, 2, 4, 5, 6, 3]
    assert await order(relevance_weight_ratio=1.0) == [0, 1, 2, 4, 5, 6, 3]


async def test_passages_that_follow_each_other_are_joined_unless_told_otherwise():
    kit = Kit()
    kit.store.passages = {
        1: passage(1, "Llamas carry.", ordinal=0),
        2: passage(2, "Llamas rest.", ordinal=1, char_start=15),
    }
    (joined,) = (await kit.find("llamas", replace(OPTIONS, merge_neighbors=True))).passages
    assert joined.passage.text == "Llamas carry.\n\nLlamas rest."
    assert len((await kit.find("llamas")).passages) == 2
    kit.store.failures["load_spans"] = StoreUnavailable("broken")
    apart = await kit.find("llamas", replace(OPTIONS, merge_neighbors=True))
    assert len(apart.passages) == 2


async def test_a_collection_without_any_vectors_is_searched_by_words():
    kit = Kit()
    collection = kit.store.get_collection

    async def unsettled(tenant_id, name):
        return replace(await collection(tenant_id, name), embedding_model=None)

    kit.store.get_collection = unsettled
    assert numbers(await kit.find("llamas")) == [1]
    assert numbers(await kit.find("llamas", replace(OPTIONS, arms=SearchArms.VECTOR))) == []
    assert kit.degradations == []
