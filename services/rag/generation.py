"""One generation: what the model has said, and who else gets it."""

from dataclasses import dataclass

from services.common.errors import PeerUnavailable, RelayedError, ServiceError, StatusCode
from services.rag.cache_port import CachedInference, Failure, FailureKind, Fill
from services.rag.core.bookkeeping_errors import BudgetExceeded
from services.rag.core.conversation import ChatCompleted, ChatStarted
from services.rag.core.replay import Replay
from services.rag.recorder import OpenStage

__all__ = ["Generation", "known_failure"]

# Only of these do those who ask next learn: others say something of one call, as its deadline does.
_TELLING_CODES = frozenset(
    {StatusCode.UNAVAILABLE, StatusCode.ABORTED, StatusCode.RESOURCE_EXHAUSTED, StatusCode.INTERNAL}
)


@dataclass(slots=True)
class Generation:
    """One generation.

    Attributes:
        fill: Takes the answer for others; None where there is no lease or no more use for it.
        replay: Leaves out what the caller has been shown.
        served: What the model said at the beginning.
        completed: What it said at the end.
    """

    fill: Fill | None
    replay: Replay
    served: ChatStarted | None = None
    completed: ChatCompleted | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the model has begun and ended."""
        return self.served is not None and self.completed is not None

    @property
    def started(self) -> ChatStarted:
        """Who has answered."""
        assert self.served is not None  # noqa: S101 - checked by `is_complete`
        return self.served

    def begin(self, started: ChatStarted, *, listed_digest: str) -> None:
        """Notes who answers; another version of the model than listed fills nothing."""
        self.served = started
        if started.model_digest != listed_digest:
            self.give_up()

    def describe(self, stage: OpenStage) -> None:
        """Notes on its stage who has answered, and what it cost."""
        if self.served is not None:
            stage.model, stage.backend_id = self.served.model, self.served.backend_id
        if self.completed is not None:
            stage.prompt_token_count = self.completed.usage.prompt_token_count
            stage.completion_token_count = self.completed.usage.completion_token_count

    def inference(self, text: str) -> CachedInference:
        """Returns the whole answer."""
        assert self.completed is not None  # noqa: S101 - checked by `is_complete`
        return CachedInference(
            text=text,
            finish_reason=self.completed.finish_reason,
            usage=self.completed.usage,
            generation_seconds=self.completed.generation_seconds,
        )

    def fail(self, error: ServiceError) -> None:
        """Tells those who ask next why there is no answer, where it concerns them."""
        kind = None if isinstance(error, BudgetExceeded) else _failure_kind(error)
        if self.fill is not None and kind is not None:
            self.fill.abort(Failure(kind=kind, message=error.message))
            self.fill = None

    def cannot_go_on(self) -> PeerUnavailable:
        """Gives up since the caller was shown the beginning of another answer."""
        self.give_up()
        return PeerUnavailable("cache", "the answer that it was passing on broke off")

    def hand_over(self, made: CachedInference) -> None:
        """Lets those have the answer who wait for it, and nobody else."""
        if self.fill is not None:
            self.fill.hand_over(made)
            self.fill = None

    def give_up(self) -> None:
        """Gives the lease back, if there still is one."""
        if self.fill is not None:
            self.fill.discard()
            self.fill = None


def known_failure(failure: Failure, model: str) -> RelayedError:
    """Makes the error that computing the answer would end in."""
    if failure.kind is FailureKind.MODEL_NOT_FOUND:
        return RelayedError(
            failure.message,
            code=StatusCode.NOT_FOUND,
            reason="MODEL_NOT_FOUND",
            metadata={"model": model},
        )
    if failure.kind is FailureKind.REJECTED:
        return RelayedError(
            failure.message,
            code=StatusCode.INVALID_ARGUMENT,
            reason="BACKEND_REJECTED_REQUEST",
            metadata={"model": model, "backend_message": failure.message},
        )
    return RelayedError(
        failure.message,
        code=StatusCode.UNAVAILABLE,
        reason="ALL_ATTEMPTS_FAILED",
        metadata={"model": model, "last_failure": failure.message},
        retry_delay_seconds=failure.remaining_seconds,
    )


def _failure_kind(error: ServiceError) -> FailureKind | None:
    if error.error_reason == "MODEL_NOT_FOUND":
        return FailureKind.MODEL_NOT_FOUND
    if error.status_code is StatusCode.INVALID_ARGUMENT:
        return FailureKind.REJECTED
    return FailureKind.TRANSIENT if error.status_code in _TELLING_CODES else None
