"""Rewording questions and finding other wordings: time, failures, the cache."""

import asyncio
import json

import pytest
from opentelemetry.trace import NoOpTracer

from services.common.errors import PeerUnavailable
from services.rag.brief import BriefAnswers
from services.rag.cache_port import CachedInference, Failure, FailureKind, InferenceLookup
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    TokenUsage,
)
from services.rag.core.options import ExpansionPolicy, Turn
from services.rag.core.profile import DegradationReason
from services.rag.core.prompt_size import PromptSizes
from services.rag.expand import Expander
from services.rag.models import ModelCatalogue
from services.rag.ports import ModelFacts
from services.rag.recorder import Recorder
from services.rag.rewrite import Rewriter
from tests.kit.virtual_time import LoopClock, run_virtually

HISTORY = (Turn("What is the premium plan?", "A plan with 100 GB [1]."),)
QUESTION = "How much does it cost?"
REWORDED = json.dumps({"question": "How much does the premium plan cost?"})
WORDINGS = json.dumps({"queries": ["price of the plan", "monthly fee"]})
EXPANDED = "What does the premium plan cost?"


class Models:
    """A fleet with one model that says what it is told to."""

    def __init__(self, text, *, seconds=0.0, error=None, complete=True, finish_reason="stop"):
        self.text, self.seconds, self.error, self.complete = text, seconds, error, complete
        self.finish_reason = finish_reason
        self.requests = []

    async def list_models(self):
        return tuple(
            ModelFacts(name=name, digest=name, generates=True, embeds=False)
            for name in ("talker:latest", "small:latest")
        )

    async def chat(self, model, messages, sampling, **options):
        self.requests.append((model, messages, sampling, options))
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        yield ChatStarted(model=model, model_digest=model, backend_id="b")
        yield self.text
        if self.complete:
            yield ChatCompleted(
                finish_reason=self.finish_reason, usage=TokenUsage(10, 5), generation_seconds=0.1
            )


class Fill:
    def __init__(self, cache, key):
        self.cache, self.key, self.text, self.ended = cache, key, "", False

    def send(self, text):
        self.text += text

    async def commit(self, inference):
        self.ended = True
        self.cache.entries[self.key] = inference
        return True

    def hand_over(self, inference):
        self.ended = True
        self.cache.handed_over.append(inference.text)

    def discard(self):
        self.cache.discarded += not self.ended


class Cache:
    """A cache for the answers to prompts."""

    def __init__(self, *, error=None, failure=None):
        self.entries, self.discarded, self.error, self.failure = {}, 0, error, failure
        self.handed_over = []

    async def lookup_inference(self, key, *, mode, wait_seconds):
        if self.error is not None:
            raise self.error
        if self.failure is not None:
            return InferenceLookup(outcome="hit_negative", failure=self.failure)
        found = self.entries.get(key)
        if found is not None:
            return InferenceLookup(outcome="hit_shared", inference=found)
        return InferenceLookup(outcome="miss", lease="lease", read_time_ns=1)

    def fill_inference(self, key, lease, dependencies, *, basis_time_ns):
        assert (lease, dependencies, basis_time_ns) == ("lease", None, 1)
        return Fill(self, key)


def answers(models, cache=None, *, remaining=None, model=""):
    return BriefAnswers(
        cache=cache or Cache(),
        models=models,
        catalogue=ModelCatalogue(models, clock=LoopClock(), chat_model="", embedding_model=""),
        model=model,
        context_token_count=8192,
        sizes=PromptSizes(),
        remaining_seconds=lambda: remaining,
    )


def recorder():
    return Recorder(clock=LoopClock(), tracer=NoOpTracer())


def expand(models, cache=None, *, remaining=None, limit=3.0, kind=ExpansionPolicy.MULTI_QUERY):
    """Returns the variants, the recorder, and how long it took."""

    async def main():
        notes = recorder()
        expander = Expander(answers(models, cache, remaining=remaining), time_limit_seconds=3.0)
        variants = await expander.expand(EXPANDED, kind, notes, time_limit_seconds=limit)
        return [each.text for each in variants], notes, notes.elapsed_seconds()

    return run_virtually(main())


def rewrite(models, question=QUESTION, history=HISTORY, *, remaining=None, model=""):
    async def main():
        notes = recorder()
        rewriter = Rewriter(
            answers(models, remaining=remaining, model=model),
            time_limit_seconds=1.5,
            context_token_count=8192,
        )
        rewritten = await rewriter.rewrite(question, history, notes, model="talker")
        return rewritten, notes, notes.elapsed_seconds()

    return run_virtually(main())


def reasons(notes):
    return [each.reason for each in notes.degradations]


def test_a_question_is_worded_otherwise():
    models = Models(WORDINGS)
    variants, notes, _ = expand(models)
    assert variants == ["price of the plan", "monthly fee"]
    assert not notes.degradations
    (stage,) = notes.stages
    assert (stage.name, stage.item_count, stage.cache_outcome) == ("expand", 2, "miss")
    ((model, _, sampling, options),) = models.requests
    assert model == "talker:latest"
    assert sampling.temperature == 0
    assert sampling.context_token_count == 8192
    assert 0 < sampling.max_output_token_count <= 256
    assert "queries" in options["output_format"].json_schema


def test_the_same_question_is_worded_otherwise_once():
    cache = Cache()
    expand(Models(WORDINGS), cache)
    models = Models("never asked")
    variants, notes, _ = expand(models, cache)
    assert variants == ["price of the plan", "monthly fee"]
    assert not models.requests
    assert notes.stages[0].cache_outcome == "hit_shared"


def test_without_the_cache_a_question_is_worded_otherwise_all_the_same():
    variants, notes, _ = expand(Models(WORDINGS), Cache(error=PeerUnavailable("cache", "away")))
    assert len(variants) == 2
    assert not notes.degradations
    assert notes.stages[0].cache_outcome == "unavailable"


@pytest.mark.parametrize("kind", [ExpansionPolicy.NONE, ExpansionPolicy.AUTO])
def test_the_policy_says_whether_and_how(kind):
    models = Models(WORDINGS)
    variants, notes, _ = expand(models, kind=kind)
    assert bool(variants) == (kind is ExpansionPolicy.AUTO)
    assert bool(notes.stages) == bool(models.requests) == bool(variants)


@pytest.mark.parametrize(
    "models",
    [
        Models(WORDINGS, error=PeerUnavailable("balancer", "away")),
        Models(WORDINGS, complete=False),
        Models(" "),
        Models("I cannot help with that."),
    ],
)
def test_without_wordings_there_is_a_degradation_and_the_lease_goes_back(models):
    cache = Cache()
    variants, notes, _ = expand(models, cache)
    assert variants == []
    assert reasons(notes) == [DegradationReason.EXPANSION_SKIPPED]
    assert notes.stages[0].failed
    assert cache.discarded == (not cache.entries)


def test_wordings_that_were_cut_are_for_those_who_wait_for_them_only():
    cache = Cache()
    expand(Models(WORDINGS, finish_reason="length"), cache)
    assert not cache.entries
    assert cache.handed_over == [WORDINGS]


def test_what_comes_of_a_prompt_that_the_backend_has_cut_is_not_used():
    # The model says that it has read 10 tokens.
    messages = (ChatMessage("user", "A plan with 100 GB in all halls. " * 400),)
    cache = Cache()

    async def main():
        stage = recorder().begin("rewrite")
        return await answers(Models(REWORDED), cache).ask(
            messages, None, stage, output_token_count=64, time_limit_seconds=1.0, keep=True
        )

    with pytest.raises(PeerUnavailable, match="a part of the prompt"):
        run_virtually(main())
    assert cache.discarded == 1
    assert not cache.entries


def test_what_is_known_to_fail_is_not_tried():
    models = Models(WORDINGS)
    known = Cache(failure=Failure(kind=FailureKind.TRANSIENT, message="no model answers"))
    variants, notes, _ = expand(models, known)
    assert (variants, models.requests) == ([], [])
    assert notes.degradations[0].detail == "no model answers"


@pytest.mark.parametrize(
    ("remaining", "limit", "seconds"), [(None, 60.0, 3.0), (None, 2.0, 2.0), (4.0, 60.0, 1.0)]
)
def test_wordings_are_waited_for_no_longer_than_the_least_limit(remaining, limit, seconds):
    cache = Cache()
    slow = Models(WORDINGS, seconds=100)
    variants, notes, elapsed = expand(slow, cache, remaining=remaining, limit=limit)
    assert variants == []
    assert elapsed == pytest.approx(seconds)
    assert reasons(notes) == [DegradationReason.EXPANSION_SKIPPED]
    assert cache.discarded == 1


def test_a_question_that_stands_alone_asks_no_model():
    models = Models(REWORDED)
    for question, history in [(EXPANDED, HISTORY), (QUESTION, ())]:
        rewritten, notes, _ = rewrite(models, question, history)
        assert (rewritten.text, rewritten.keyword_text) == (question, question)
        assert not notes.stages
    assert not models.requests


def test_a_question_is_reworded_by_the_model_that_answers_it():
    models = Models(REWORDED)
    rewritten, notes, _ = rewrite(models)
    assert rewritten.text == rewritten.keyword_text == "How much does the premium plan cost?"
    assert not notes.degradations
    ((model, messages, sampling, _),) = models.requests
    assert model == "talker:latest"
    assert sampling.max_output_token_count <= 64
    assert "premium plan" in messages[1].content
    assert notes.stages[0].completion_token_count == 5


def test_a_smaller_model_can_be_set_for_it():
    models = Models(REWORDED)
    rewrite(models, model="small")
    assert models.requests[0][0] == "small:latest"


@pytest.mark.parametrize(
    ("models", "remaining", "seconds"),
    [
        (Models(REWORDED, seconds=100), None, 1.5),
        (Models(REWORDED, seconds=100), 2.0, 0.5),
        (Models(REWORDED, error=PeerUnavailable("balancer", "away")), None, 0),
        (Models("The premium plan costs 20 dollars."), None, 0),
    ],
)
def test_what_cannot_be_reworded_is_taken_as_it_is_with_the_words_of_the_last_question(
    models, remaining, seconds
):
    rewritten, notes, elapsed = rewrite(models, remaining=remaining)
    assert rewritten.text == QUESTION
    assert rewritten.keyword_text == f"premium plan {QUESTION}"
    assert reasons(notes) == [DegradationReason.REWRITE_SKIPPED]
    assert elapsed == pytest.approx(seconds)


def test_a_cancelled_rewording_is_cancelled():
    async def main():
        rewriter = Rewriter(
            answers(Models(REWORDED, seconds=100)), time_limit_seconds=1.5, context_token_count=8192
        )
        task = asyncio.create_task(rewriter.rewrite(QUESTION, HISTORY, recorder()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtually(main())


def test_an_inference_that_was_kept_is_whole():
    cache = Cache()
    expand(Models(WORDINGS), cache)
    (kept,) = cache.entries.values()
    assert isinstance(kept, CachedInference)
    assert (kept.text, kept.finish_reason) == (WORDINGS, "stop")
