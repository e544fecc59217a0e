"""Which models the fleet has, remembered for a while so that not every answer asks."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.rag.core.errors import ModelNotFound
from services.rag.ports import ModelFacts, ModelsPort

__all__ = ["ModelCatalogue", "canonical_name", "model_identity", "split_identity"]

_INTERVAL_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 1.0


def canonical_name(name: str) -> str:
    """Completes a model's name with the tag Ollama assumes, in the lower case it compares in."""
    lowered = name.strip().lower()
    return lowered if ":" in lowered.rpartition("/")[2] else f"{lowered}:latest"


def model_identity(model: ModelFacts) -> str:
    """Writes a model's name and version in one, as collections record what embedded them."""
    return f"{canonical_name(model.name)}@{model.digest}"


def split_identity(identity: str) -> tuple[str, str]:
    """Splits what `model_identity` wrote into name and digest."""
    name, _, digest = identity.rpartition("@")
    return name, digest


class ModelCatalogue:
    """Resolves model names to models of the fleet.

    What is known is used without asking, and learned anew in the background; so a balancer that
    is away or frozen keeps no cached answer out of reach.

    Args:
        models: The balancer.
        clock: Waits between one look and the next.
        chat_model: Default model that answers; empty for the first that generates text.
        embedding_model: Default model that embeds; empty for the first that embeds.
    """

    def __init__(
        self, models: ModelsPort, *, clock: Clock, chat_model: str, embedding_model: str
    ) -> None:
        self._models = models
        self._clock = clock
        self._chat_model = chat_model
        self._embedding_model = embedding_model
        self._known: tuple[ModelFacts, ...] = ()
        self._learning: asyncio.Task[None] | None = None

    async def watch(self) -> None:
        """Learns from time to time which models there are; never returns."""
        while True:
            with suppress(ServiceError):
                await self._learn()
            await self._clock.sleep(_INTERVAL_SECONDS if self._known else _FIRST_PAUSE_SECONDS)

    async def chat_model(self, name: str = "") -> ModelFacts:
        """Finds the model that answers.

        Args:
            name: Model asked for; empty for the default.

        Raises:
            ModelNotFound: The fleet does not have it.
            ServiceError: It is not known yet, and the balancer cannot be asked.
        """
        return await self._find(
            name or self._chat_model, "generates text", lambda model: model.generates
        )

    def known_chat_model(self, name: str = "") -> ModelFacts | None:
        """Returns the model that answers, without asking the balancer; None where not known."""
        return self._search(name or self._chat_model, lambda model: model.generates)

    async def embedding_model(self, name: str = "") -> ModelFacts:
        """Finds the model that embeds; arguments and errors as for `chat_model`."""
        return await self._find(
            name or self._embedding_model, "embeds texts", lambda model: model.embeds
        )

    def known_embedding_models(self) -> tuple[ModelFacts, ...]:
        """Returns the models that embed, the default first, without asking the balancer."""
        default = self._search(self._embedding_model, lambda model: model.embeds)
        if default is None:
            return ()
        return (default, *(each for each in self._known if each.embeds and each is not default))

    async def _find(
        self, name: str, ability: str, able: Callable[[ModelFacts], bool]
    ) -> ModelFacts:
        found = self._search(name, able)
        if found is None:
            await self._learn()
            found = self._search(name, able)
        if found is None:
            raise ModelNotFound(
                name, ability=ability, known=[each.name for each in self._known if able(each)]
            )
        return found

    def _search(self, name: str, able: Callable[[ModelFacts], bool]) -> ModelFacts | None:
        wanted = canonical_name(name) if name else ""
        return next(
            (
                model
                for model in self._known
                if able(model) and (not wanted or canonical_name(model.name) == wanted)
            ),
            None,
        )

    async def _learn(self) -> None:
        """Asks the balancer, once for all who wait; whoever stops waiting stops nobody else."""
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._ask())
        await asyncio.shield(self._learning)

    async def _ask(self) -> None:
        self._known = await self._models.list_models()
