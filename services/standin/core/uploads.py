"""A model from uploaded files: what it is can be told from them, but it stays synthetic."""

import json
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
)
from services.standin.core.gguf import GgufError, read_metadata
from services.standin.core.names import ModelName

_DEFAULT_CONTEXT_TOKENS = 2048


class UploadError(ValueError):
    """Files that no model can be made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """An uploaded file.

    Args:
        digest: `sha256:` and 64 hexadecimal digits.
        size_bytes: Its length.
        head: Its beginning, long enough for any metadata.
    """

    digest: str
    size_bytes: int
    head: bytes


def build_model(
    name: ModelName, files: Mapping[str, Blob], speed: Speed, modified_epoch_seconds: float
) -> Model:
    """Describe the model that some files make.

    Args:
        name: What to call it.
        files: The files by relative path.
        speed: How quick it is to be.
        modified_epoch_seconds: Now.

    Raises:
        UploadError: They are no model.
    """
    gguf = next((blob for path, blob in files.items() if path.endswith(".gguf")), None)
    architecture, context, width, embeds = _from_gguf(gguf) if gguf else _from_safetensors(files)
    identity = digest(files=sorted((path, blob.digest) for path, blob in files.items()))
    size = sum(blob.size_bytes for blob in files.values())
    return Model(
        name=name,
        file=identity,
        engine=Engine.SYNTHETIC,
        capabilities=(EMBEDDING if embeds else COMPLETION,),
        architecture=architecture,
        description="Made of uploaded files, which this server does not run.",
        parameter_count=size // 2,
        size_bytes=size,
        digest=identity,
        modified_epoch_seconds=modified_epoch_seconds,
        context_tokens=context,
        embedding_length=width if embeds else 0,
        quantization="F16",
        file_format="gguf",
        speed=speed,
        parallel=1 if embeds else None,
    )


def _from_gguf(blob: Blob) -> tuple[str, int, int, bool]:
    try:
        keys = read_metadata(blob.head)
    except GgufError as error:
        raise UploadError(str(error)) from error
    name = str(keys.get("general.architecture", "unknown"))
    context = int(keys.get(f"{name}.context_length", _DEFAULT_CONTEXT_TOKENS))
    width = int(keys.get(f"{name}.embedding_length", 0))
    return name, context, width, f"{name}.pooling_type" in keys


def _from_safetensors(files: Mapping[str, Blob]) -> tuple[str, int, int, bool]:
    if not any(path.endswith(".safetensors") for path in files):
        raise UploadError("no supported files found")
    config = _read_json(files, "config.json")
    name = str((config.get("architectures") or ["unknown"])[0])
    is_bert = name == "BertModel"
    if is_bert and "modules.json" not in files:
        raise UploadError("open modules.json: no such file or directory")
    context = int(config.get("max_position_embeddings", _DEFAULT_CONTEXT_TOKENS))
    family = "bert" if is_bert else name.removesuffix("ForCausalLM").lower()
    return family, context, int(config.get("hidden_size", 0)), is_bert


def _read_json(files: Mapping[str, Blob], path: str) -> dict[str, Any]:
    blob = files.get(path)
    if blob is None:
        raise UploadError(f"open {path}: no such file or directory")
    try:
        value = json.loads(blob.head)
    except ValueError as error:
        raise UploadError(f"{path}: {error}") from error
    return value if isinstance(value, dict) else {}
