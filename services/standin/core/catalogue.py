"""What a model is, as `/api/tags` and `/api/show` describe it; and the two built-in models."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from services.standin.core import extract, sources, words
from services.standin.core.minilm import CONTEXT_TOKENS, DIMENSIONS
from services.standin.core.names import ModelName, parse_name

COMPLETION = "completion"
EMBEDDING = "embedding"


class Engine(Enum):
    """How a model comes by its output."""

    EXTRACTIVE = "extractive"
    MINILM = "minilm"
    SYNTHETIC = "synthetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How quick a model is when nothing else runs on its server.

    Args:
        load_seconds: Time to load it.
        prefill_tokens_per_second: Rate at which a prompt is read.
        decode_tokens_per_second: Rate of an answer.
    """

    load_seconds: float = 0.2
    prefill_tokens_per_second: float = 20_000.0
    decode_tokens_per_second: float = 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of a server.

    Args:
        name: Its complete name.
        file: Identity of its weights; models with the same weights share what is loaded.
        engine: How it comes by its output.
        capabilities: What it can do, as `/api/show` says; with `EMBEDDING` it does nothing else.
        architecture: What its family and the keys of its metadata are called.
        description: One sentence for `/api/show`.
        parameter_count: Number of weights.
        size_bytes: Bytes on disk, and in memory when it is loaded.
        digest: 64 hexadecimal digits; equal digests mean equal behaviour.
        modified_epoch_seconds: When its files were written.
        context_tokens: Longest context it can run with.
        embedding_length: Length of its vectors; 0 where it has none.
        quantization: Number format of its weights.
        file_format: Format of its files.
        speed: How quick it is.
        parallel: Requests that it works on at a time; None leaves it to the server.
        system: System text for requests without one.
        parameters: Options for requests that do not name them.
        parent: Short name of the model that it was created from, or "".
    """

    name: ModelName
    file: str
    engine: Engine
    capabilities: tuple[str, ...]
    architecture: str
    description: str
    parameter_count: int
    size_bytes: int
    digest: str
    modified_epoch_seconds: float
    context_tokens: int
    embedding_length: int = 0
    quantization: str = "none"
    file_format: str = "none"
    speed: Speed = Speed()
    parallel: int | None = None
    system: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parent: str = ""

    @property
    def capability(self) -> str:
        """`COMPLETION` or `EMBEDDING`."""
        return EMBEDDING if EMBEDDING in self.capabilities else COMPLETION

    @property
    def parameter_size(self) -> str:
        """The number of weights as the server writes it, such as `22.71M`."""
        for unit, letter in ((1e9, "B"), (1e6, "M")):
            if self.parameter_count >= unit:
                return f"{self.parameter_count / unit:.2f}{letter}"
        return str(self.parameter_count)

    def details(self) -> dict[str, Any]:
        """The `details` object of `/api/ps`."""
        return {
            "parent_model": self.parent,
            "format": self.file_format,
            "family": self.architecture,
            "families": [self.architecture],
            "parameter_size": self.parameter_size,
            "quantization_level": self.quantization,
        }

    def full_details(self) -> dict[str, Any]:
        """The `details` object of `/api/tags` and `/api/show`."""
        lengths = {"context_length": self.context_tokens}
        if self.embedding_length:
            lengths["embedding_length"] = self.embedding_length
        return self.details() | lengths

    def metadata(self) -> dict[str, Any]:
        """The `model_info` object of `/api/show`."""
        info: dict[str, Any] = {
            "general.architecture": self.architecture,
            "general.parameter_count": self.parameter_count,
            f"{self.architecture}.context_length": self.context_tokens,
        }
        if self.embedding_length:
            info[f"{self.architecture}.embedding_length"] = self.embedding_length
        return info


def builtin_models(weights: Path, speed: Speed) -> tuple[Model, ...]:
    """Describe the two models that are not synthetic.

    Args:
        weights: The safetensors file of all-MiniLM-L6-v2.
        speed: How quick they are; embeddings take the time that they take to compute.
    """
    stat = weights.stat()
    rules = b"".join(
        Path(str(module.__file__)).read_bytes() for module in (extract, sources, words)
    )
    return (
        Model(
            name=read_name("all-minilm:latest"),
            file="all-MiniLM-L6-v2",
            engine=Engine.MINILM,
            capabilities=(EMBEDDING,),
            architecture="bert",
            description="all-MiniLM-L6-v2: sentence embeddings.",
            parameter_count=22_713_216,
            size_bytes=stat.st_size,
            digest=digest(model="all-MiniLM-L6-v2", weights_bytes=stat.st_size),
            modified_epoch_seconds=float(int(stat.st_mtime)),
            context_tokens=CONTEXT_TOKENS,
            embedding_length=DIMENSIONS,
            quantization="F32",
            file_format="safetensors",
            speed=speed,
        ),
        Model(
            name=read_name("extractive-standin:latest"),
            file="extractive",
            engine=Engine.EXTRACTIVE,
            capabilities=(COMPLETION,),
            architecture="extractive",
            description=(
                "No language model: answers with the sentences of the prompt that best match "
                "its question."
            ),
            parameter_count=0,
            size_bytes=len(rules),
            digest=digest(model="extractive", rules=hashlib.sha256(rules).hexdigest()),
            modified_epoch_seconds=float(int(stat.st_mtime)),
            context_tokens=32_768,
            speed=speed,
        ),
    )


def read_name(text: str) -> ModelName:
    """Complete a model name.

    Raises:
        ValueError: It is none.
    """
    name = parse_name(text)
    if name is None:
        raise ValueError(f"not a model name: {text}")
    return name


def digest(**manifest: Any) -> str:
    """The digest of what defines a model."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
