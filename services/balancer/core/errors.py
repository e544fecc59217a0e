"""Errors of the balancer that a caller may see.

ServiceError
+-- ModelNotFound           NOT_FOUND            MODEL_NOT_FOUND
+-- ModelCapabilityMissing  FAILED_PRECONDITION  MODEL_CAPABILITY_MISSING
+-- AllAttemptsFailed       UNAVAILABLE          ALL_ATTEMPTS_FAILED
+-- StreamInterrupted       ABORTED              STREAM_INTERRUPTED
+-- BackendRejectedRequest  INVALID_ARGUMENT     BACKEND_REJECTED_REQUEST
+-- QueueFull               RESOURCE_EXHAUSTED   QUEUE_FULL
+-- DeadlineUnreachable     DEADLINE_EXCEEDED    DEADLINE_UNREACHABLE
+-- BackendNotFound         NOT_FOUND            BACKEND_NOT_FOUND
+-- ModelLoadFailed         UNAVAILABLE          MODEL_LOAD_FAILED
+-- ModelPullFailed         FAILED_PRECONDITION  MODEL_PULL_FAILED
+-- DecisionNotFound        NOT_FOUND            DECISION_NOT_FOUND
"""

from collections.abc import Sequence

from services.common.errors import ServiceError, StatusCode

__all__ = [
    "AllAttemptsFailed",
    "BackendNotFound",
    "BackendRejectedRequest",
    "DeadlineUnreachable",
    "DecisionNotFound",
    "ModelCapabilityMissing",
    "ModelLoadFailed",
    "ModelNotFound",
    "ModelPullFailed",
    "QueueFull",
    "StreamInterrupted",
]

_LISTED_MODELS = 10
# The queue is looked at ten times a second: who comes again sooner finds it as it was.
_SHORTEST_RETRY_SECONDS = 0.1


class ModelNotFound(ServiceError):
    """No backend of the fleet has the model.

    Args:
        model: The name asked for.
        known_models: Names of the models there are.
    """

    reason = "MODEL_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, model: str, known_models: Sequence[str]) -> None:
        listed = ", ".join(known_models[:_LISTED_MODELS]) or "no model at all"
        more = ", ..." if len(known_models) > _LISTED_MODELS else ""
        super().__init__(
            f"No backend has the model {model}. The fleet has {listed}{more}; see ListModels.",
            metadata={"model": model, "known_models": listed + more if known_models else ""},
        )


class ModelCapabilityMissing(ServiceError):
    """The model cannot do what was asked of it.

    Args:
        model: The name asked for.
        capability: What it would have to be capable of.
    """

    reason = "MODEL_CAPABILITY_MISSING"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self, model: str, capability: str) -> None:
        super().__init__(
            f"The model {model} is not capable of {capability}. "
            "ListModels shows what each model can do.",
            metadata={"model": model, "capability": capability},
        )


class AllAttemptsFailed(ServiceError):
    """Every backend tried failed before it produced anything.

    Args:
        model: The name asked for.
        attempt_count: Attempts made.
        last_failure: What the last of them said, or why there was none.
    """

    reason = "ALL_ATTEMPTS_FAILED"
    code = StatusCode.UNAVAILABLE

    def __init__(self, model: str, attempt_count: int, last_failure: str) -> None:
        super().__init__(
            f"No backend served the model {model} in {attempt_count} attempts; "
            f"the last failure: {last_failure}",
            metadata={
                "model": model,
                "attempt_count": str(attempt_count),
                "last_failure": last_failure,
            },
            retry_delay_seconds=1.0,
        )


class StreamInterrupted(ServiceError):
    """A generation broke off after its first token.

    Args:
        backend_id: The backend that served.
        emitted_character_count: Length of the text passed on before.
        cause: What happened.
        resumable: Whether another backend could have gone on, had there been one.
    """

    reason = "STREAM_INTERRUPTED"
    code = StatusCode.ABORTED

    def __init__(
        self, backend_id: str, emitted_character_count: int, cause: str, *, resumable: bool = False
    ) -> None:
        super().__init__(
            f"The answer broke off after {emitted_character_count} characters: {cause}. "
            "The text received is incomplete; ask again.",
            metadata={
                "backend_id": backend_id,
                "emitted_character_count": str(emitted_character_count),
                "resumable": str(resumable).lower(),
            },
        )


class BackendRejectedRequest(ServiceError):
    """A backend refused the request as faulty.

    Args:
        model: The name asked for.
        backend_message: What the backend said.
        text_index: Place of the text at fault among those to be embedded; None where the whole
            request is.
    """

    reason = "BACKEND_REJECTED_REQUEST"
    code = StatusCode.INVALID_ARGUMENT

    def __init__(self, model: str, backend_message: str, *, text_index: int | None = None) -> None:
        metadata = {"model": model, "backend_message": backend_message}
        subject = "this request"
        if text_index is not None:
            metadata["text_index"] = str(text_index)
            subject = f"texts[{text_index}]"
        super().__init__(
            f"The model {model} cannot take {subject}: {backend_message}", metadata=metadata
        )


class QueueFull(ServiceError):
    """There is no room in the queue, or the wait would be longer than the caller accepts.

    Args:
        priority: The queue.
        waiting_count: Requests in it.
        predicted_wait_seconds: When its first token would come.
        decision_id: Id of the decision.
    """

    reason = "QUEUE_FULL"
    code = StatusCode.RESOURCE_EXHAUSTED

    def __init__(
        self,
        priority: str,
        waiting_count: int,
        predicted_wait_seconds: float,
        decision_id: str,
    ) -> None:
        super().__init__(
            f"{waiting_count} {priority} requests wait, and the wait is predicted to be "
            f"{predicted_wait_seconds:.1f} s. Come again then, or add backends.",
            metadata={
                "priority": priority,
                "waiting_count": str(waiting_count),
                "predicted_wait_seconds": f"{predicted_wait_seconds:.1f}",
                "decision_id": decision_id,
            },
            retry_delay_seconds=max(predicted_wait_seconds, _SHORTEST_RETRY_SECONDS),
        )


class DeadlineUnreachable(ServiceError):
    """The deadline cannot be met, so that waiting for it would serve nobody.

    Args:
        predicted_wait_seconds: When the first token is to be expected.
        remaining_seconds: What is left until the deadline.
        decision_id: Id of the decision.
    """

    reason = "DEADLINE_UNREACHABLE"
    code = StatusCode.DEADLINE_EXCEEDED

    def __init__(
        self, predicted_wait_seconds: float, remaining_seconds: float, decision_id: str
    ) -> None:
        super().__init__(
            f"The first token is predicted in {predicted_wait_seconds:.1f} s, the deadline is in "
            f"{remaining_seconds:.1f} s. Set a later deadline, or come again when less is waiting.",
            metadata={
                "predicted_wait_seconds": f"{predicted_wait_seconds:.1f}",
                "remaining_seconds": f"{remaining_seconds:.1f}",
                "decision_id": decision_id,
            },
        )


class BackendNotFound(ServiceError):
    """The fleet has no such backend.

    Args:
        backend_id: The id given.
        known_ids: The ids there are.
    """

    reason = "BACKEND_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, backend_id: str, known_ids: Sequence[str]) -> None:
        listed = ", ".join(known_ids[:_LISTED_MODELS]) or "no backend at all"
        super().__init__(
            f"The fleet has no backend {backend_id}. It has {listed}.",
            metadata={"backend_id": backend_id},
        )


class ModelLoadFailed(ServiceError):
    """A backend could not load a model.

    Args:
        backend_id: The backend.
        model: The model.
        cause: What it said.
    """

    reason = "MODEL_LOAD_FAILED"
    code = StatusCode.UNAVAILABLE

    def __init__(self, backend_id: str, model: str, cause: str) -> None:
        super().__init__(
            f"{backend_id} could not load {model}: {cause}",
            metadata={"backend_id": backend_id, "model": model, "cause": cause},
            retry_delay_seconds=10.0,
        )


class ModelPullFailed(ServiceError):
    """A backend could not download a model.

    Args:
        backend_id: The backend.
        model: The model.
        cause: What it said.
    """

    reason = "MODEL_PULL_FAILED"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self, backend_id: str, model: str, cause: str) -> None:
        super().__init__(
            f"{backend_id} could not download {model}: {cause}",
            metadata={"backend_id": backend_id, "model": model, "cause": cause},
        )


class DecisionNotFound(ServiceError):
    """The decision is not known.

    Args:
        decision_id: The id given.
    """

    reason = "DECISION_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, decision_id: str) -> None:
        super().__init__(
            f"No decision {decision_id} is known; each replica keeps its last 1000.",
            metadata={"decision_id": decision_id},
        )
