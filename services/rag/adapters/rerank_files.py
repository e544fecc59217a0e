"""Finds the files of a cross-encoder: in a directory, or in the local Hugging Face cache.

Nothing is ever downloaded here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.rag.ports import RerankerUnavailable

__all__ = ["RerankFiles", "find_rerank_files"]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MODELS = (
    "model.onnx",
    "onnx/model.onnx",
    "model_quantized.onnx",
    "onnx/model_quantized.onnx",
)
_TOKENIZERS = ("tokenizer.json", "onnx/tokenizer.json")
_ADVICE = (
    "Set PANNIER_RAG_RERANK_MODEL to a directory that holds model.onnx and tokenizer.json, or to "
    "the name of a model that is in the Hugging Face cache of this machine."
)


@dataclass(frozen=True, slots=True)
class RerankFiles:
    """The files of a cross-encoder."""

    model: Path
    tokenizer: Path


def find_rerank_files(location: str, cache_directory: str) -> RerankFiles:
    """Finds the files of a cross-encoder.

    Args:
        location: A directory, or a name as `owner/model`.
        cache_directory: The Hugging Face cache; `~` is the home directory.

    Raises:
        RerankerUnavailable: They are not there.
    """
    directories = [Path(location).expanduser()]
    if _HUB_NAME.fullmatch(location):
        directories += _snapshots(location, Path(cache_directory).expanduser())
    for directory in directories:
        model, tokenizer = _first(directory, _MODELS), _first(directory, _TOKENIZERS)
        if model is not None and tokenizer is not None:
            return RerankFiles(model, tokenizer)
    raise RerankerUnavailable(f"there is no cross-encoder at {location!r}. {_ADVICE}")


def _first(directory: Path, names: tuple[str, ...]) -> Path | None:
    return next((path for name in names if (path := directory / name).is_file()), None)


def _snapshots(name: str, cache: Path) -> Iterator[Path]:
    """Yields the snapshots of a model in the cache, that of the main branch first."""
    folder = cache / f"models--{name.replace('/', '--')}"
    main = folder / "refs" / "main"
    snapshots = folder / "snapshots"
    if main.is_file():
        yield snapshots / main.read_text(encoding="utf-8").strip()
    if snapshots.is_dir():
        yield from sorted(snapshots.iterdir())
