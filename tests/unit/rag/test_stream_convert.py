import pytest

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import (
    DeadlineExceeded,
    InvalidRequest,
    PeerUnavailable,
    RelayedError,
    StatusCode,
)
from services.rag.core.profile import Degradation, DegradationReason, Stage, profile_of
from services.rag.core.stream_errors import AnswerOutOfTime
from services.rag.recorder import Progress, ProgressState
from services.rag.stream_convert import (
    check_resume,
    to_degradation,
    to_failed,
    to_profile,
    to_progress,
)


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (PeerUnavailable("balancer", "gone"), True),
        (AnswerOutOfTime(), True),
        (DeadlineExceeded(1.0), True),
        (RelayedError("No.", code=StatusCode.NOT_FOUND, reason="MODEL_NOT_FOUND"), False),
        (RelayedError("No.", code=StatusCode.INTERNAL, reason="INTERNAL"), False),
    ],
)
def test_what_may_pass_may_be_tried_again(error, retryable):
    failed = to_failed(error, "Be")
    assert (failed.reason, failed.retryable) == (error.error_reason, retryable)
    assert (failed.message, failed.partial_answer) == (error.message, "Be")


@pytest.mark.parametrize("state", ProgressState)
def test_every_state_has_its_value(state):
    progress = to_progress(Progress("fuse", state, 1.5, 7, "miss"))
    assert pb.ProgressState.Name(progress.state) == f"PROGRESS_STATE_{state.name}"
    assert (progress.elapsed.seconds, progress.elapsed.nanos) == (1, 500_000_000)
    assert (progress.item_count, progress.cache_outcome) == (7, "miss")


@pytest.mark.parametrize("reason", DegradationReason)
def test_every_reason_has_its_value(reason):
    degradation = to_degradation(Degradation(reason, "stage", "detail"))
    assert pb.DegradationReason.Name(degradation.reason).endswith(reason.name)


def test_a_profile_is_written_as_a_tree():
    stages = [
        Stage(number=0, name="retrieve", start_seconds=0, duration_seconds=4),
        Stage(
            number=1,
            parent=0,
            name="embed_question",
            start_seconds=1,
            duration_seconds=2,
            failed=True,
            error_reason="PEER_UNAVAILABLE",
        ),
    ]
    profile = to_profile(profile_of(stages, total_seconds=5, first_text_seconds=None))
    outer, inner = profile.stages
    assert not outer.HasField("parent_index")
    assert inner.parent_index == 0
    assert (outer.self_duration.seconds, inner.self_duration.seconds) == (2, 2)
    assert inner.error_reason == "PEER_UNAVAILABLE"
    assert profile.critical_path.seconds == 4
    assert profile.retrieval.seconds == 2
    assert not profile.HasField("rerank")
    assert not inner.HasField("usage")


def test_all_that_is_wrong_with_a_resumption_is_named_at_once():
    with pytest.raises(InvalidRequest) as refused:
        check_resume(pb.ResumeQueryRequest(after_sequence=-1))
    assert {each.field for each in refused.value.violations} == {"query_id", "after_sequence"}
