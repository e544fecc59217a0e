"""Models: what a backend has, and what the fleet has."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Capability",
    "FleetModel",
    "Holdings",
    "InstalledModel",
    "LoadedModel",
    "ModelDescription",
    "ServerReport",
    "merge",
]


class Capability(Enum):
    """What a model can do, by Ollama's names."""

    COMPLETION = "completion"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What only an inquiry for the one model tells on servers before 0.30.

    Attributes:
        capabilities: What it can do; None where not known.
        embedding_dimension: Length of its vectors, 0 where not known.
        context_token_count: Context length it was trained for, 0 where not known.
    """

    capabilities: frozenset[Capability] | None = None
    embedding_dimension: int = 0
    context_token_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """A model on the disk of a backend.

    Attributes:
        name: Full name as the backend writes it.
        digest: 64 hexadecimal digits; equal digests mean equal models.
        size_bytes: Size on disk.
        family: Ollama's name of its family.
        description: What it can do.
    """

    name: str
    digest: str
    size_bytes: int = 0
    family: str = ""
    description: ModelDescription = ModelDescription()

    def can(self, capability: Capability) -> bool:
        """Tells whether it can do something; a model of unknown capabilities may try."""
        capabilities = self.description.capabilities
        return capabilities is None or capability in capabilities

    @property
    def only_embeds(self) -> bool:
        """Whether it is an embedding model, which does one request at a time whatever is set."""
        return self.description.capabilities == frozenset({Capability.EMBEDDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in the memory of a backend.

    Attributes:
        name: Full name as the backend writes it.
        digest: 64 hexadecimal digits; empty where the backend does not tell.
        size_bytes: Memory it takes in all.
        vram_bytes: Memory of graphics cards that it takes, of these.
        context_token_count: Context window of each of its slots; 0 where not known.
        expires_at: When it will be unloaded if it stays idle, seconds since the epoch, as of the
            last time it was idle; None where not known.
    """

    name: str
    digest: str = ""
    size_bytes: int = 0
    vram_bytes: int = 0
    context_token_count: int = 0
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """What a check of a backend found.

    Attributes:
        version: Version of the server.
        installed: Models on its disk; None where it would not tell.
        loaded: Models in its memory; None where it would not tell.
    """

    version: str
    installed: tuple[InstalledModel, ...] | None
    loaded: tuple[LoadedModel, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What one backend has.

    Attributes:
        installed: Models on its disk by key.
        loaded_keys: Keys of the models in its memory.
        differing_keys: Keys of the models that it has in memory with another digest than on disk.
    """

    installed: Mapping[str, InstalledModel]
    loaded_keys: frozenset[str]
    differing_keys: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetModel:
    """A model that at least one backend has.

    Attributes:
        key: What its names have in common.
        model: The variant that most backends have.
        backend_ids: Backends that have it, sorted.
        loaded_backend_ids: Backends that hold it in memory, sorted.
        drifted: Whether backends have different digests under its name, be it one on its disk and
            another in its memory.
    """

    key: str
    model: InstalledModel
    backend_ids: tuple[str, ...]
    loaded_backend_ids: tuple[str, ...]
    drifted: bool


def merge(holdings: Mapping[str, Holdings]) -> tuple[FleetModel, ...]:
    """Lists the models of a fleet, sorted by key.

    Args:
        holdings: What each backend has, by backend id.
    """
    keys = {key for each in holdings.values() for key in each.installed}
    return tuple(_merge_one(key, holdings) for key in sorted(keys))


def _merge_one(key: str, holdings: Mapping[str, Holdings]) -> FleetModel:
    holders = {id_: holdings[id_] for id_ in sorted(holdings) if key in holdings[id_].installed}
    variants = [each.installed[key] for each in holders.values()]
    digest = _most_frequent(variant.digest for variant in variants)
    return FleetModel(
        key=key,
        model=next(variant for variant in variants if variant.digest == digest),
        backend_ids=tuple(holders),
        loaded_backend_ids=tuple(id_ for id_, each in holders.items() if key in each.loaded_keys),
        drifted=any(variant.digest != digest for variant in variants)
        or any(key in each.differing_keys for each in holders.values()),
    )


def _most_frequent(digests: Iterable[str]) -> str:
    counts = Counter(digests)
    return max(sorted(counts), key=lambda digest: counts[digest])
