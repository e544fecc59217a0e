"""What the balancer needs of the world outside."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from services.balancer.core.models import ModelDescription, ServerReport
from services.balancer.core.requests import (
    Completion,
    EmbeddingReply,
    GenerationRequest,
    TextDelta,
)

__all__ = ["ModelServer"]


class ModelServer(Protocol):
    """One Ollama server. Every method raises `AttemptFailed`, and nothing else, when it fails."""

    async def check(self, limit_seconds: float) -> ServerReport:
        """Asks for version, models on disk and models in memory.

        Args:
            limit_seconds: Longest time it may take.
        """
        ...

    async def describe(self, model_name: str) -> ModelDescription:
        """Asks what a model can do."""
        ...

    def generate(
        self, request: GenerationRequest, *, model_name: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[TextDelta | Completion, None]:
        """Generates text.

        Yields deltas, the first of them (which may be empty) with the first token, then exactly
        one completion. Closing the generator ends the work of the server.

        Args:
            request: What to generate.
            model_name: The model by the server's own name for it.
            headers: Trace context.
        """
        ...

    async def embed(
        self, texts: Sequence[str], *, model_name: str, headers: Mapping[str, str]
    ) -> EmbeddingReply:
        """Turns texts into vectors, one for each.

        Args:
            texts: The texts, at least one.
            model_name: The model by the server's own name for it.
            headers: Trace context.
        """
        ...
