"""Keeps count of downloads of a model, one per backend."""

from dataclasses import dataclass, field

from pannier.balancer.v1 import balancer_service_pb2 as pb

__all__ = ["Download", "note_progress"]


@dataclass(slots=True)
class Download:
    """A download of a model onto one backend.

    Attributes:
        status: What the backend says that it does.
        parts: Bytes that are there and bytes in all, by digest of the part.
        model_digest: Digest of the model; None until it is there.
    """

    status: str = ""
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    model_digest: str | None = None

    @property
    def completed_bytes(self) -> int:
        """Bytes that are there."""
        return sum(completed for completed, _ in self.parts.values())

    @property
    def total_bytes(self) -> int:
        """Bytes of the parts that have been begun; 0 before the first."""
        return sum(total for _, total in self.parts.values())


def note_progress(downloads: dict[str, Download], response: pb.PullModelResponse) -> Download:
    """Takes in what has been reported; kinds of events that are not known are passed over.

    Args:
        downloads: By backend id; backends are added as they are heard of.
        response: The report.

    Returns:
        The download it is about.
    """
    download = downloads.setdefault(response.backend_id, Download())
    kind = response.WhichOneof("event")
    if kind == "progress":
        progress = response.progress
        download.status = progress.status
        if progress.digest:
            download.parts[progress.digest] = (progress.completed_bytes, progress.total_bytes)
    elif kind == "completed":
        download.status = "done"
        download.model_digest = response.completed.model_digest
    return download
