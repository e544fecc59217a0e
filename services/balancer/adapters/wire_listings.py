"""What an Ollama server tells of its models: `/api/tags`, `/api/ps`, `/api/show`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.balancer.adapters.wire import count, parse_object
from services.balancer.core.models import (
    Capability,
    InstalledModel,
    LoadedModel,
    ModelDescription,
)

__all__ = ["installed_models", "loaded_models", "model_description"]


def installed_models(body: bytes) -> tuple[InstalledModel, ...]:
    """Reads the reply of `/api/tags`."""
    return tuple(_installed(each) for each in _models(body))


def _installed(values: Mapping[str, Any]) -> InstalledModel:
    details = _details(values)
    return InstalledModel(
        name=str(values["name"]),
        digest=str(values.get("digest", "")),
        size_bytes=count(values, "size"),
        family=str(details.get("family") or ""),
        description=ModelDescription(
            capabilities=_capabilities(values),
            embedding_dimension=count(details, "embedding_length"),
            context_token_count=count(details, "context_length"),
        ),
    )


def loaded_models(body: bytes) -> tuple[LoadedModel, ...]:
    """Reads the reply of `/api/ps`."""
    return tuple(
        LoadedModel(
            name=str(each["name"]),
            digest=str(each.get("digest", "")),
            size_bytes=count(each, "size"),
            vram_bytes=count(each, "size_vram"),
            context_token_count=count(each, "context_length"),
            expires_at=_epoch_seconds(each.get("expires_at")),
        )
        for each in _models(body)
    )


def model_description(body: bytes) -> ModelDescription:
    """Reads the reply of `/api/show`."""
    values = parse_object(body)
    info = values.get("model_info")
    info = info if isinstance(info, Mapping) else {}
    architecture = info.get("general.architecture", "")
    return ModelDescription(
        capabilities=_capabilities(values),
        embedding_dimension=count(info, f"{architecture}.embedding_length"),
        context_token_count=count(info, f"{architecture}.context_length"),
    )


def _models(body: bytes) -> list[Mapping[str, Any]]:
    models = parse_object(body).get("models")
    return [
        each
        for each in (models if isinstance(models, list) else [])
        if isinstance(each, Mapping) and each.get("name")
    ]


def _details(values: Mapping[str, Any]) -> Mapping[str, Any]:
    details = values.get("details")
    return details if isinstance(details, Mapping) else {}


def _capabilities(values: Mapping[str, Any]) -> frozenset[Capability] | None:
    named = values.get("capabilities")
    if not isinstance(named, list):
        return None
    return frozenset(capability for capability in Capability if capability.value in named)


def _epoch_seconds(value: object) -> float | None:
    try:
        instant = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    # Go's zero time stands for none; without an offset nobody knows when that is.
    return instant.timestamp() if instant.tzinfo is not None and instant.year > 1 else None
