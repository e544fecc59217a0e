"""Synthetic models to order, and the TOML profile that lists them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.standin.core.catalogue import (
    COMPLETION,
    EMBEDDING,
    Engine,
    Model,
    Speed,
    digest,
    read_name,
)

_DEFAULT_EMBEDDING_LENGTH = 384
_BYTES_PER_PARAMETER = 0.6
# Synthetic models have no files; all servers must say the same.
_MODIFIED_EPOCH_SECONDS = 1_767_225_600.0


class ProfileError(ValueError):
    """A profile that says something else than models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A synthetic model: what it costs to run, and nothing that could be learnt from it.

    Args:
        name: Its name.
        capability: `completion` or `embedding`.
        capabilities: What it can do besides: `tools`, `thinking`, `vision`, `insert`.
        version: Any text; models of the same name and another version have another digest.
        size_bytes: Bytes on disk and in memory.
        load_seconds: Time to load it; None takes the server's.
        prefill_tokens_per_second: Rate at which a prompt is read; None takes the server's.
        decode_tokens_per_second: Rate of an answer; None takes the server's.
        context_tokens: Longest context.
        embedding_length: Length of its vectors; of an embedding model 384 where 0.
        parallel: Requests that it works on at a time, whatever the server's setting.
        remote: Whether it has to be pulled first.
    """

    name: str
    capability: str = COMPLETION
    capabilities: tuple[str, ...] = ()
    version: str = ""
    size_bytes: int = 1_000_000_000
    load_seconds: float | None = None
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    context_tokens: int = 8192
    embedding_length: int = 0
    parallel: int | None = None
    remote: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ProfileError: One makes no sense.
        """
        try:
            read_name(self.name)
        except ValueError as error:
            raise ProfileError(str(error)) from error
        if self.capability not in {COMPLETION, EMBEDDING}:
            raise ProfileError(f"{self.name}: capability is neither completion nor embedding")
        for name in ("prefill_tokens_per_second", "decode_tokens_per_second", "parallel"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ProfileError(f"{self.name}: {name} must be positive")
        if self.context_tokens < 1 or min(self.size_bytes, self.embedding_length) < 0:
            raise ProfileError(f"{self.name}: a length or a size is out of range")

    def model(self, default: Speed, *, speed_ratio: float, time_scale: float) -> Model:
        """Make the model as a server of a given speed runs it."""
        own = Speed(
            load_seconds=_or(self.load_seconds, default.load_seconds),
            prefill_tokens_per_second=_or(
                self.prefill_tokens_per_second, default.prefill_tokens_per_second
            ),
            decode_tokens_per_second=_or(
                self.decode_tokens_per_second, default.decode_tokens_per_second
            ),
        )
        is_embedding = self.capability == EMBEDDING
        length = self.embedding_length or (_DEFAULT_EMBEDDING_LENGTH if is_embedding else 0)
        identity = digest(
            name=self.name.lower(),
            version=self.version,
            capabilities=sorted({self.capability, *self.capabilities}),
            context_tokens=self.context_tokens,
            embedding_length=length,
        )
        return Model(
            name=read_name(self.name),
            file=identity,
            engine=Engine.SYNTHETIC,
            capabilities=tuple(dict.fromkeys((self.capability, *self.capabilities))),
            architecture="bert" if is_embedding else "llama",
            description="A synthetic model: words that mean nothing, at the speed of a real one.",
            parameter_count=int(self.size_bytes / _BYTES_PER_PARAMETER),
            size_bytes=self.size_bytes,
            digest=identity,
            modified_epoch_seconds=_MODIFIED_EPOCH_SECONDS,
            context_tokens=self.context_tokens,
            embedding_length=length,
            quantization="Q4_K_M",
            file_format="gguf",
            speed=scale(own, speed_ratio=speed_ratio, time_scale=time_scale),
            parallel=1 if is_embedding else self.parallel,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a profile says.

    Args:
        models: The synthetic models.
        builtin_models: Whether the server holds the built-in models too.
    """

    models: tuple[ModelSpec, ...] = ()
    builtin_models: bool = True


def scale(speed: Speed, *, speed_ratio: float, time_scale: float) -> Speed:
    """The speed on a server that computes `speed_ratio` times as fast, with all times shrunk.

    Loading depends on storage more than on compute, so it gains the root of the ratio only.
    """
    rate_ratio = speed_ratio * time_scale
    return Speed(
        load_seconds=speed.load_seconds / math.sqrt(speed_ratio) / time_scale,
        prefill_tokens_per_second=speed.prefill_tokens_per_second * rate_ratio,
        decode_tokens_per_second=speed.decode_tokens_per_second * rate_ratio,
    )


def parse_profile(document: Mapping[str, Any]) -> Profile:
    """Read a profile from its parsed TOML document.

    Raises:
        ProfileError: A key is unknown or a value of the wrong type.
    """
    if unknown := set(document) - {"models", "builtin_models"}:
        raise ProfileError(f"unknown key {min(unknown)!r}")
    builtin = document.get("builtin_models", True)
    entries = document.get("models", [])
    if not isinstance(builtin, bool) or not isinstance(entries, list):
        raise ProfileError("builtin_models must be a boolean and models a list of tables")
    return Profile(models=tuple(map(_spec, entries)), builtin_models=builtin)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "capability": str,
    "capabilities": list,
    "version": str,
    "size_bytes": int,
    "load_seconds": (int, float),
    "prefill_tokens_per_second": (int, float),
    "decode_tokens_per_second": (int, float),
    "context_tokens": int,
    "embedding_length": int,
    "parallel": int,
    "remote": bool,
}


def _spec(entry: Any) -> ModelSpec:
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ProfileError("each of models must be a table with a name")
    for name, value in entry.items():
        if not isinstance(value, _KINDS.get(name, ())):
            raise ProfileError(f"{entry['name']}: {name!r} is unknown or of the wrong type")
    values = dict(entry)
    values["capabilities"] = tuple(map(str, entry.get("capabilities", ())))
    return ModelSpec(**values)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
