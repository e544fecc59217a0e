"""A cross-encoder in ONNX form, run by ONNX Runtime beside the event loop."""

import asyncio
import importlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any

import numpy as np

from services.rag.adapters.rerank_files import RerankFiles, find_rerank_files
from services.rag.ports import RerankerUnavailable

__all__ = ["CrossEncoder", "OnnxReranker"]

_logger = logging.getLogger(__name__)

_LONGEST_PAIR_TOKENS = 512
# On a CPU a larger batch is hardly faster for each pair, and what it does not finish in time is
# lost; a GPU wants to be filled.
_BATCH_TEXTS = {"cpu": 4, "cuda": 10}
_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
_WORKER_COUNT = 2
_CLASSES = 2


class CrossEncoder:
    """The model itself; to be used from one thread or several, never from the event loop.

    Args:
        files: The model and its tokenizer.
        provider: `cpu` or `cuda`; where there is no CUDA, the CPU is taken and the log says so.

    Raises:
        RerankerUnavailable: The libraries are not installed, or the files are no cross-encoder.
    """

    def __init__(self, files: RerankFiles, *, provider: str) -> None:
        runtime, tokenizers = _import("onnxruntime"), _import("tokenizers")
        if provider == "cuda" and "CUDAExecutionProvider" not in runtime.get_available_providers():
            _logger.warning(
                "this onnxruntime has no CUDA, passages are reranked on the CPU; "
                "install onnxruntime-gpu or set PANNIER_RAG_RERANK_PROVIDER to cpu"
            )
            provider = "cpu"
        self.batch_size = _BATCH_TEXTS[provider]
        options = runtime.SessionOptions()
        options.intra_op_num_threads = max(1, (os.cpu_count() or 1) // _WORKER_COUNT)
        options.inter_op_num_threads = 1
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(files.tokenizer))
            self._tokenizer.enable_truncation(_LONGEST_PAIR_TOKENS)
            self._tokenizer.enable_padding(**_padding_of(self._tokenizer))
            self._session = runtime.InferenceSession(
                str(files.model), sess_options=options, providers=_PROVIDERS[provider]
            )
            self._inputs = {each.name for each in self._session.get_inputs()}
            self.score("is it loaded", ["it is", "it is loaded"])
        except Exception as error:
            # Both libraries raise whatever their native code makes of a broken file.
            raise RerankerUnavailable(
                f"{files.model} cannot be used as a cross-encoder: {_first_line(error)}"
            ) from error

    def score(self, question: str, texts: Sequence[str]) -> list[float]:
        """Returns a logit for each text."""
        encodings = self._tokenizer.encode_batch([(question, text) for text in texts])
        arrays = {
            "input_ids": [each.ids for each in encodings],
            "attention_mask": [each.attention_mask for each in encodings],
            "token_type_ids": [each.type_ids for each in encodings],
        }
        feed = {
            name: np.asarray(rows, np.int64)
            for name, rows in arrays.items()
            if name in self._inputs
        }
        outputs = np.asarray(self._session.run(None, feed)[0], np.float64)
        logits = outputs.reshape(len(texts), -1)
        if logits.shape[1] == _CLASSES:
            return [float(each) for each in logits[:, 1] - logits[:, 0]]
        if logits.shape[1] != 1:
            raise ValueError(f"it gives {logits.shape[1]} figures for each pair, not one")
        return [float(each) for each in logits[:, 0]]


class OnnxReranker:
    """Judges passages by a cross-encoder, which is loaded when it is opened.

    Args:
        location: A directory, or a name as `owner/model` in the local Hugging Face cache.
        provider: `cpu` or `cuda`.
        cache_directory: The Hugging Face cache.
    """

    def __init__(self, location: str, *, provider: str, cache_directory: str) -> None:
        self._location = location
        self._provider = provider
        self._cache_directory = cache_directory
        self._executor = ThreadPoolExecutor(_WORKER_COUNT, thread_name_prefix="rerank")
        self._encoder: CrossEncoder | None = None
        self._problem = "it is not loaded yet"

    @property
    def name(self) -> str:
        """What judges, as it is shown to operators."""
        return PurePath(self._location).name

    async def open(self) -> None:
        """Loads the model; where that fails the log says why, and so does each attempt to score."""
        loop = asyncio.get_running_loop()
        try:
            self._encoder = await loop.run_in_executor(self._executor, self._load)
        except RerankerUnavailable as error:
            self._problem = str(error)
            _logger.warning("passages are not reranked: %s", error)

    async def close(self) -> None:
        """Ends its threads, without waiting for what they are at."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def score(
        self, question: str, texts: Sequence[str], *, time_limit_seconds: float
    ) -> Sequence[float | None]:
        """Returns a logit for each text in their order, None where the time did not suffice.

        Args:
            question: The question.
            texts: The texts, the most promising first.
            time_limit_seconds: Longest time to take; what is scored by then is returned.

        Raises:
            RerankerUnavailable: The model is not loaded, or fails.
        """
        encoder = self._encoder
        if encoder is None:
            raise RerankerUnavailable(self._problem)
        loop = asyncio.get_running_loop()
        logits: list[float | None] = []
        try:
            async with asyncio.timeout(time_limit_seconds):
                for start in range(0, len(texts), encoder.batch_size):
                    batch = texts[start : start + encoder.batch_size]
                    logits += await loop.run_in_executor(
                        self._executor, encoder.score, question, batch
                    )
        except TimeoutError:
            pass
        except Exception as error:
            raise RerankerUnavailable(f"the model failed: {_first_line(error)}") from error
        return logits + [None] * (len(texts) - len(logits))

    def _load(self) -> CrossEncoder:
        files = find_rerank_files(self._location, self._cache_directory)
        return CrossEncoder(files, provider=self._provider)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RerankerUnavailable(
            f"the package {name} is not installed; install `pannier[rerank]`"
        ) from error


def _padding_of(tokenizer: Any) -> dict[str, Any]:
    """Returns how texts of a batch are made equally long; the mask keeps it out of the scores."""
    known = tokenizer.padding
    if known is not None:
        return {"pad_id": known["pad_id"], "pad_token": known["pad_token"]}
    for token in ("[PAD]", "<pad>"):
        number = tokenizer.token_to_id(token)
        if number is not None:
            return {"pad_id": number, "pad_token": token}
    return {}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
