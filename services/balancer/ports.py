"""What the balancer needs of the world outside."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from services.balancer.core.models import LoadedModel, ModelDescription, ServerReport
from services.balancer.core.requests import (
    Completion,
    Delta,
    EmbeddingReply,
    GenerationRequest,
    PullProgress,
)

__all__ = ["KEEP_FOR_EVER", "ModelServer", "Servers"]

KEEP_FOR_EVER = -1
"""A `keep_alive` without end."""


class ModelServer(Protocol):
    """One Ollama server. Every method raises `AttemptFailed`, and nothing else, when it fails."""

    async def check(self, limit_seconds: float) -> ServerReport:
        """Asks for version, models on disk and models in memory.

        Args:
            limit_seconds: Longest time it may take.
        """
        ...

    async def loaded(self, limit_seconds: float) -> tuple[LoadedModel, ...]:
        """Asks for the models in memory only.

        Args:
            limit_seconds: Longest time it may take.
        """
        ...

    async def describe(self, model_name: str) -> ModelDescription:
        """Asks what a model can do."""
        ...

    def generate(
        self,
        request: GenerationRequest,
        *,
        model_name: str,
        headers: Mapping[str, str],
        keep_alive: str | int | None = None,
        context_token_count: int | None = None,
        continuation: str = "",
        first_token_limit_seconds: float | None = None,
        stall_limit_seconds: float | None = None,
    ) -> AsyncGenerator[Delta | Completion, None]:
        """Generates text.

        Yields deltas, the first of them (which may be an empty text) with the first token, then
        exactly one completion. Closing the generator ends the work of the server.

        Args:
            request: What to generate; the context window it needs is not told to the server.
            model_name: The model by the server's own name for it.
            headers: Trace context.
            keep_alive: How long the model stays loaded, seconds or as Go writes durations; None
                leaves it as it is.
            context_token_count: Context window; another than the model is loaded with loads it
                anew. None leaves it to the server.
            continuation: Beginning of the answer, to go on from; only for a request that
                `can_resume`.
            first_token_limit_seconds: Longest silence before the first token; None for the usual.
            stall_limit_seconds: Longest silence between two tokens; None for the usual.
        """
        ...

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model_name: str,
        headers: Mapping[str, str],
        keep_alive: str | int | None = None,
        dimension: int | None = None,
        context_token_count: int | None = None,
        limit_seconds: float | None = None,
    ) -> EmbeddingReply:
        """Turns texts into vectors, one for each.

        Args:
            texts: The texts, at least one.
            model_name: The model by the server's own name for it.
            headers: Trace context.
            keep_alive: How long the model stays loaded; None leaves it as it is.
            dimension: Length to cut the vectors to; None leaves them whole.
            context_token_count: Context window that a chat model is loaded with; None for an
                embedding model, which has one only.
            limit_seconds: Longest silence before the vectors; None for the usual.
        """
        ...

    async def load(
        self,
        model_name: str,
        *,
        embedding: bool,
        keep_alive: str | int | None,
        context_token_count: int | None,
        limit_seconds: float,
    ) -> float:
        """Loads a model, or finds it loaded; whoever ends this call ends the load.

        Args:
            model_name: The model by the server's own name for it.
            embedding: Whether it is an embedding model.
            keep_alive: How long the model stays loaded; None for the server's own default.
            context_token_count: Context window to load it with; None for the server's default.
            limit_seconds: Longest time it may take.

        Returns:
            Seconds it took, of which some milliseconds are not the load's.
        """
        ...

    async def unload(self, model_name: str, *, limit_seconds: float = ...) -> None:
        """Lets a model go from memory; returns at once, it goes when it is idle.

        Args:
            model_name: The model by the server's own name for it.
            limit_seconds: Longest time the reply may take.
        """
        ...

    async def probe(
        self,
        model_name: str,
        embedding: bool,  # noqa: FBT001
        limit_seconds: float,
        *,
        context_token_count: int | None = None,
    ) -> None:
        """Has a loaded model do the least there is to do; one that is not loaded would be loaded.

        Args:
            model_name: The model by the server's own name for it.
            embedding: Whether it is an embedding model.
            limit_seconds: Longest time it may take.
            context_token_count: Context window it was loaded with, where one was asked for.
        """
        ...

    def pull(self, model_name: str) -> AsyncGenerator[PullProgress, None]:
        """Downloads a model.

        Yields steps, the last of which has `succeeded`. Closing the generator ends the download.

        Args:
            model_name: The model as the registry knows it.
        """
        ...


Servers = Mapping[str, ModelServer]
"""What reaches each backend, by backend id; backends come and go."""
