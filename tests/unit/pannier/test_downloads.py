"""The count that is kept of downloads."""

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.commands.downloads import Download, note_progress


def progress(backend_id: str, **fields) -> pb.PullModelResponse:
    return pb.PullModelResponse(backend_id=backend_id, progress=pb.PullProgress(**fields))


def test_bytes_are_summed_over_the_parts_of_a_model():
    downloads: dict[str, Download] = {}
    note_progress(
        downloads, progress("a", status="p", digest="x", completed_bytes=1, total_bytes=9)
    )
    note_progress(
        downloads, progress("a", status="p", digest="x", completed_bytes=9, total_bytes=9)
    )
    note_progress(
        downloads, progress("a", status="q", digest="y", completed_bytes=2, total_bytes=5)
    )
    assert (downloads["a"].completed_bytes, downloads["a"].total_bytes) == (11, 14)


def test_a_step_without_bytes_changes_the_status_only():
    downloads: dict[str, Download] = {}
    note_progress(
        downloads, progress("a", status="p", digest="x", completed_bytes=1, total_bytes=9)
    )
    note_progress(downloads, progress("a", status="verifying"))
    assert downloads["a"] == Download(status="verifying", parts={"x": (1, 9)})


def test_each_backend_has_a_count_of_its_own():
    downloads: dict[str, Download] = {}
    note_progress(downloads, progress("a", digest="x", completed_bytes=1, total_bytes=9))
    done = pb.PullModelResponse(backend_id="b", completed=pb.PullCompleted(model_digest="d" * 64))
    assert note_progress(downloads, done).model_digest == "d" * 64
    assert downloads["a"].model_digest is None


def test_events_of_kinds_not_known_are_passed_over():
    downloads: dict[str, Download] = {}
    assert note_progress(downloads, pb.PullModelResponse(backend_id="a")) == Download()
