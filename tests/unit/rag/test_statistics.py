import pytest
from opentelemetry.trace import NoOpTracer

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.clock import SystemClock
from services.common.metrics import Metrics
from services.rag.core.answer import Answer, AnswerOrigin
from services.rag.core.options import Mode, Question
from services.rag.core.profile import DegradationReason, Stage, WarningKind
from services.rag.core.quality import Quality
from services.rag.core.verification import SentenceSupport, SupportStatus
from services.rag.metrics import CATALOGUE
from services.rag.recorder import CANCELLED, Recorder
from services.rag.statistics import RagStatistics, cache_label
from services.rag.stream_convert import to_stats


class Counting:
    def __init__(self):
        self.metrics = Metrics(CATALOGUE, version="test")
        self.statistics = RagStatistics(self.metrics, start_time_seconds=5)

    def value(self, name, *labels):
        (found,) = [
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and tuple(sample.labels.values()) == labels
        ]
        return found

    def answer(self, mode=Mode.RAG, *, outcome="success", quality=None, statuses=(), stages=()):
        recorder = Recorder(clock=SystemClock(), tracer=NoOpTracer())
        for name, reason, *count in stages:
            stage = recorder.begin(name)
            stage.failed, stage.error_reason = bool(reason), reason
            stage.item_count = count[0] if count else None
            recorder.end(stage)
        answer = Answer(
            text="Yes.",
            origin=AnswerOrigin.GENERATED,
            mode=mode,
            quality=quality
            and Quality(
                score=quality,
                retrieval_confidence=1,
                groundedness=1,
                citation_precision=1,
                citation_coverage=1,
            ),
            sentences=tuple(
                SentenceSupport(answer_char_start=0, answer_char_end=4, status=status)
                for status in statuses
            ),
        )
        self.statistics.begin(Question(collection="docs", text="Why?", mode=mode))
        self.statistics.end(mode, recorder, answer if outcome == "success" else None, outcome)

    def mode(self, mode):
        (found,) = [each for each in to_stats(self.statistics).modes if each.mode == mode]
        return found


@pytest.fixture
def counting():
    return Counting()


def test_what_has_never_happened_is_there_with_zero(counting):
    for reason in DegradationReason:
        assert counting.value("rag_degradations_total", reason.value) == 0
    for status in SupportStatus:
        assert counting.value("rag_verified_sentences_total", status.value) == 0
    for mode in Mode:
        assert counting.value("rag_requests_total", mode.value, "success") == 0


def test_every_mode_is_counted_by_itself(counting):
    for mode in Mode:
        counting.answer(mode)
    counting.answer(Mode.DEEP)
    assert counting.mode(pb.QUERY_MODE_DEEP).query_count == 2
    assert counting.mode(pb.QUERY_MODE_DIRECT).query_count == 1
    assert counting.value("rag_requests_total", "deep", "success") == 2


def test_quality_is_a_mean_of_the_answers_that_have_one(counting):
    for quality in (0.7, 0.9, None):
        counting.answer(quality=quality)
    assert counting.mode(pb.QUERY_MODE_RAG).mean_quality == pytest.approx(0.8)
    assert counting.value("rag_quality_score_count", "rag") == 2
    counting.answer(Mode.DIRECT)
    assert not counting.mode(pb.QUERY_MODE_DIRECT).HasField("mean_quality")


def test_sentences_are_counted_by_what_checking_them_found(counting):
    counting.answer(statuses=[SupportStatus.SUPPORTED, SupportStatus.SUPPORTED])
    counting.answer(statuses=[SupportStatus.NUMBER_MISMATCH])
    assert counting.value("rag_verified_sentences_total", "supported") == 2
    assert counting.value("rag_verified_sentences_total", "number_mismatch") == 1


def test_who_was_told_to_stop_has_not_failed(counting):
    counting.answer(
        outcome="cancelled", stages=[("generate", CANCELLED), ("generate", "PEER_UNAVAILABLE")]
    )
    (stage,) = to_stats(counting.statistics).stages
    assert (stage.run_count, stage.failure_count) == (2, 1)
    mode = counting.mode(pb.QUERY_MODE_RAG)
    assert (mode.cancelled_count, mode.failure_count) == (1, 0)


def test_what_the_parts_of_an_answer_have_done_is_read_from_its_stages(counting):
    counting.answer(
        stages=[
            ("vector_search", "", 7),
            ("vector_search", "", 0),
            ("keyword_search", "STORE_UNAVAILABLE"),
            ("keyword_search", CANCELLED),
            ("fuse", "", 9),
            ("rerank", "", 4),
            ("expand", "PEER_UNAVAILABLE"),
            ("generate", CANCELLED),
            ("verify", "", 2),
        ]
    )
    calls = "rag_retriever_calls_total"
    assert counting.value(calls, "vector", "success") == counting.value(calls, "vector", "empty")
    assert counting.value(calls, "vector", "empty") == 1
    assert counting.value(calls, "words", "error") == 1
    assert counting.value(calls, "words", "success") == counting.value(calls, "words", "empty") == 0
    chunks = {
        stage: (
            counting.value("rag_retrieved_chunks_count", stage),
            counting.value("rag_retrieved_chunks_sum", stage),
        )
        for stage in ("vector", "words", "fuse", "rerank")
    }
    assert chunks == {"vector": (2, 7), "words": (0, 0), "fuse": (1, 9), "rerank": (1, 4)}
    invoked = "rag_agent_invocations_total"
    assert counting.value(invoked, "expander", "error") == 1
    assert counting.value(invoked, "reranker", "success") == 1
    assert counting.value(invoked, "verifier", "success") == 1
    for outcome in ("success", "error"):
        assert counting.value(invoked, "generator", outcome) == 0


@pytest.mark.parametrize(
    ("origin", "lookups", "label"),
    [
        (AnswerOrigin.CACHED, [("query_lookup", "hit_exact")], "hit"),
        (AnswerOrigin.CACHED, [("inference_lookup", "hit_coalesced")], "hit"),
        (AnswerOrigin.CACHED_SIMILAR, [("semantic_lookup", "hit_similar")], "semantic_hit"),
        (AnswerOrigin.GENERATED, [("query_lookup", "miss")], "miss"),
        (AnswerOrigin.REFUSED, [("query_lookup", "unavailable")], "miss"),
        (
            AnswerOrigin.GENERATED,
            [("query_lookup", "bypassed"), ("inference_lookup", "miss")],
            "miss",
        ),
        (AnswerOrigin.GENERATED, [("query_lookup", "bypassed")], "bypass"),
        # The vector of a question is no answer to it.
        (AnswerOrigin.GENERATED, [("embed_question", "hit_local")], "bypass"),
        (AnswerOrigin.GENERATED, [], "bypass"),
    ],
)
def test_an_answer_says_what_the_caches_had_to_do_with_it(origin, lookups, label):
    stages = [
        Stage(number=number, name=name, start_seconds=0, duration_seconds=0, cache_outcome=outcome)
        for number, (name, outcome) in enumerate(lookups)
    ]
    assert cache_label(origin, stages) == label


def test_warnings_and_prompts_are_counted_once_when_a_call_has_ended(counting):
    recorder = Recorder(clock=SystemClock(), tracer=NoOpTracer())
    recorder.warn(WarningKind.LINK, "A link was removed.")
    recorder.warn(WarningKind.LINK, "Another one.")
    recorder.prompt_passage_counts += [3, 5]
    counting.statistics.add_stages(recorder)
    assert recorder.warnings == ["A link was removed.", "Another one."]
    assert counting.value("rag_warnings_total", "link") == 2
    assert counting.value("rag_warnings_total", "budget") == 0
    assert counting.value("rag_retrieved_chunks_sum", "prompt") == 8


def test_degradations_are_counted_by_reason(counting):
    recorder = Recorder(clock=SystemClock(), tracer=NoOpTracer())
    recorder.degrade(DegradationReason.UNGROUNDED, "generate", "no sources")
    recorder.degrade(DegradationReason.UNGROUNDED, "generate", "no sources")
    counting.statistics.add_stages(recorder)
    (found,) = to_stats(counting.statistics).degradations
    assert (found.reason, found.count) == (pb.DEGRADATION_REASON_UNGROUNDED, 1)
    assert counting.value("rag_degradations_total", "ungrounded") == 1
