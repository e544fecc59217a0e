"""The two models that every stand-in holds, as `/api/tags` and `/api/show` describe them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.standin.core import extract, sources, words
from services.standin.core.minilm import CONTEXT_TOKENS, DIMENSIONS
from services.standin.core.names import ModelName, parse_name

COMPLETION = "completion"
EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of this server.

    Args:
        name: Its complete name.
        capability: `COMPLETION` or `EMBEDDING`.
        architecture: What its family and the keys of its metadata are called.
        description: One sentence for `/api/show`.
        parameter_count: Number of weights.
        size_bytes: Bytes on disk.
        digest: 64 hexadecimal digits; equal digests mean equal behaviour.
        modified_epoch_seconds: When its files were written.
        context_tokens: Longest context it can run with.
        embedding_length: Length of its vectors; 0 where it has none.
        quantization: Number format of its weights.
    """

    name: ModelName
    capability: str
    architecture: str
    description: str
    parameter_count: int
    size_bytes: int
    digest: str
    modified_epoch_seconds: float
    context_tokens: int
    embedding_length: int
    quantization: str

    @property
    def parameter_size(self) -> str:
        """The number of weights as the server writes it, such as `22.71M`."""
        if self.parameter_count < 1_000_000:
            return str(self.parameter_count)
        return f"{self.parameter_count / 1e6:.2f}M"

    def details(self) -> dict[str, Any]:
        """The `details` object of `/api/ps`."""
        return {
            "parent_model": "",
            "format": "safetensors" if self.embedding_length else "none",
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


def list_models(weights: Path) -> tuple[Model, ...]:
    """Describe the models of a server.

    Args:
        weights: The safetensors file of all-MiniLM-L6-v2.
    """
    stat = weights.stat()
    rules = b"".join(
        Path(str(module.__file__)).read_bytes() for module in (extract, sources, words)
    )
    return (
        Model(
            name=_name("all-minilm:latest"),
            capability=EMBEDDING,
            architecture="bert",
            description="all-MiniLM-L6-v2: sentence embeddings.",
            parameter_count=22_713_216,
            size_bytes=stat.st_size,
            digest=_digest(model="all-MiniLM-L6-v2", weights_bytes=stat.st_size),
            modified_epoch_seconds=float(int(stat.st_mtime)),
            context_tokens=CONTEXT_TOKENS,
            embedding_length=DIMENSIONS,
            quantization="F32",
        ),
        Model(
            name=_name("extractive-standin:latest"),
            capability=COMPLETION,
            architecture="extractive",
            description=(
                "No language model: answers with the sentences of the prompt that best match "
                "its question."
            ),
            parameter_count=0,
            size_bytes=len(rules),
            digest=_digest(model="extractive", rules=hashlib.sha256(rules).hexdigest()),
            modified_epoch_seconds=float(int(stat.st_mtime)),
            context_tokens=32_768,
            embedding_length=0,
            quantization="none",
        ),
    )


def _name(text: str) -> ModelName:
    name = parse_name(text)
    if name is None:
        raise ValueError(f"not a model name: {text}")
    return name


def _digest(**manifest: Any) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
