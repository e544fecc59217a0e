import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.trace import NoOpTracer

from pannier.rag.v1 import filter_pb2, quality_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.clock import SystemClock
from services.common.errors import InvalidRequest
from services.common.identity import Identity, current_identity
from services.common.validation import Violations
from services.rag.core.filters import Access
from services.rag.core.fusion import FusionMethod
from services.rag.core.options import ExpansionPolicy, RerankPolicy, RetrievalOptions, SearchArms
from services.rag.core.passages import FusedChunk, RankedPassage
from services.rag.core.profile import DegradationReason
from services.rag.core.retrieved import Band, Confidence, Retrieved
from services.rag.recorder import Recorder
from services.rag.retrieval_convert import retrieval_of, to_confidence, to_retrieve_response
from tests.kit.candidates import passage


def read(message: pb.RetrievalOptions) -> RetrievalOptions:
    violations = Violations()
    options = retrieval_of(message, violations, field="options")
    violations.raise_found()
    return options


def refused(**fields) -> list[str]:
    with pytest.raises(InvalidRequest) as raised:
        read(pb.RetrievalOptions(**fields))
    return sorted(each.field for each in raised.value.violations)


@pytest.fixture
def caller():
    token = current_identity.set(Identity("acme", "ann", ("staff",)))
    yield
    current_identity.reset(token)


def test_what_is_not_given_takes_its_default():
    assert read(pb.RetrievalOptions()) == RetrievalOptions()
    assert read(pb.RetrievalOptions(passage_count=8)) == RetrievalOptions()


def test_whoever_gives_no_options_may_read_what_others_may(caller):
    found = read(pb.RetrievalOptions())
    assert found.access == Access.of("ann", ("staff",))
    assert found == read(pb.RetrievalOptions(passage_count=8))


def test_every_option_is_read():
    found = read(
        pb.RetrievalOptions(
            passage_count=3,
            candidate_count=70,
            fusion=pb.FUSION_METHOD_RRF,
            vector_weight_ratio=0.0,
            filter=filter_pb2.DocumentFilter(any_tags=["x"], updated_from=Timestamp(seconds=1)),
            arms=pb.SEARCH_ARMS_VECTOR,
            rerank=pb.RERANK_POLICY_OFF,
            expansion=pb.EXPANSION_POLICY_HYDE,
            relevance_weight_ratio=0.7,
            merge_neighbors=False,
            prefer_recent=True,
        )
    )
    assert (found.passage_count, found.candidate_count) == (3, 70)
    assert found.fusion is FusionMethod.RECIPROCAL_RANK
    assert found.vector_weight_ratio == 0.0
    assert found.filter.any_tags == ("x",)
    assert found.filter.updated_from is not None
    assert found.arms is SearchArms.VECTOR
    assert found.rerank is RerankPolicy.OFF
    assert found.expansion is ExpansionPolicy.HYDE
    assert found.relevance_weight_ratio == 0.7
    assert found.merge_neighbors is False
    assert found.prefer_recent is True


def test_access_is_that_of_the_caller(caller):
    assert read(pb.RetrievalOptions()).access == Access(("group:staff", "user:ann"))


def test_there_are_at_least_as_many_candidates_as_passages():
    assert read(pb.RetrievalOptions(passage_count=40, candidate_count=5)).candidate_count == 40


def test_all_that_is_wrong_is_named_at_once():
    assert refused(
        passage_count=10_000,
        candidate_count=0,
        vector_weight_ratio=1.1,
        relevance_weight_ratio=float("nan"),
        fusion=99,
        arms=99,
        rerank=99,
        expansion=99,
        filter=filter_pb2.DocumentFilter(source_prefix="x" * 2001),
    ) == [
        "options.arms",
        "options.candidate_count",
        "options.expansion",
        "options.filter.source_prefix",
        "options.fusion",
        "options.passage_count",
        "options.relevance_weight_ratio",
        "options.rerank",
        "options.vector_weight_ratio",
    ]


@pytest.mark.parametrize("passage_count", [0, -1, 51, 10_000])
def test_a_count_out_of_range_is_refused_with_its_field(passage_count):
    assert refused(passage_count=passage_count) == ["options.passage_count"]


def test_signals_that_are_missing_stay_absent():
    found = to_confidence(Confidence(score=0.4, band=Band.MEDIUM, keyword_ratio=0.0))
    assert found.band == quality_pb2.CONFIDENCE_BAND_MEDIUM
    assert found.HasField("keyword_ratio")
    assert not found.HasField("rerank_ratio")


def test_a_response_tells_all_that_is_known():
    recorder = Recorder(clock=SystemClock(), tracer=NoOpTracer())
    with recorder.stage("fuse"):
        pass
    recorder.degrade(DegradationReason.RERANK_UNAVAILABLE, "rerank", "none is configured")
    ranking = FusedChunk(chunk_id=7, score=0.5, vector_rank=1, vector_score=0.9, rerank_score=0.75)
    found = to_retrieve_response(
        Retrieved(
            (RankedPassage(passage(7, "Llamas."), ranking),),
            Confidence(score=0.9, band=Band.HIGH, agreement_ratio=0.3),
            ("Which llamas?",),
        ),
        recorder,
    )
    (shown,) = found.passages
    assert (shown.marker, shown.text, shown.passage_id) == (1, "Llamas.", "7")
    assert shown.score.rerank_score == 0.75
    assert found.confidence.band == quality_pb2.CONFIDENCE_BAND_HIGH
    assert found.confidence.agreement_ratio == 0.3
    assert list(found.expansions) == ["Which llamas?"]
    assert [each.reason for each in found.degradations] == [
        pb.DEGRADATION_REASON_RERANK_UNAVAILABLE
    ]
    assert [each.name for each in found.profile.stages] == ["fuse"]
