"""Errors of the balancer that a caller may see.

ServiceError
+-- ModelNotFound           NOT_FOUND            MODEL_NOT_FOUND
+-- ModelCapabilityMissing  FAILED_PRECONDITION  MODEL_CAPABILITY_MISSING
+-- AllAttemptsFailed       UNAVAILABLE          ALL_ATTEMPTS_FAILED
+-- StreamInterrupted       ABORTED              STREAM_INTERRUPTED
+-- BackendRejectedRequest  INVALID_ARGUMENT     BACKEND_REJECTED_REQUEST
"""

from collections.abc import Sequence

from services.common.errors import ServiceError, StatusCode

__all__ = [
    "AllAttemptsFailed",
    "BackendRejectedRequest",
    "ModelCapabilityMissing",
    "ModelNotFound",
    "StreamInterrupted",
]

_LISTED_MODELS = 10


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
    """

    reason = "STREAM_INTERRUPTED"
    code = StatusCode.ABORTED

    def __init__(self, backend_id: str, emitted_character_count: int, cause: str) -> None:
        super().__init__(
            f"The answer broke off after {emitted_character_count} characters: {cause}. "
            "The text received is incomplete; ask again.",
            metadata={
                "backend_id": backend_id,
                "emitted_character_count": str(emitted_character_count),
            },
        )


class BackendRejectedRequest(ServiceError):
    """A backend refused the request as faulty.

    Args:
        model: The name asked for.
        backend_message: What the backend said.
    """

    reason = "BACKEND_REJECTED_REQUEST"
    code = StatusCode.INVALID_ARGUMENT

    def __init__(self, model: str, backend_message: str) -> None:
        super().__init__(
            f"The model {model} cannot take this request: {backend_message}",
            metadata={"model": model, "backend_message": backend_message},
        )
