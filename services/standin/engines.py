"""How the models come by their output: from the prompt, by MiniLM, or out of thin air."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.standin.core import synthetic
from services.standin.core.catalogue import Engine, Model
from services.standin.core.complete import Completion, complete_extractive, complete_synthetic
from services.standin.core.minilm import Floats, MiniLM
from services.standin.core.options import Options
from services.standin.core.requests import CompletionRequest
from services.standin.core.safetensors import map_tensors
from services.standin.core.tokens import SEP, TokenCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A tokenised text to embed.

    Args:
        ids: Its token ids, special tokens included; none of a synthetic model.
        text: What is left of the text when it is cut to the context.
        tokens: Number of tokens.
    """

    ids: list[int]
    text: str
    tokens: int

    def cut(self, tokens: int) -> "Text":
        """The text as the model sees it with a context of so many tokens."""
        if self.tokens <= tokens:
            return self
        ids = [*self.ids[: tokens - 1], SEP] if self.ids else []
        text = self.text[: tokens * synthetic.CHARACTERS_PER_TOKEN]
        return Text(ids=ids, text=text, tokens=tokens)


class Engines:
    """The engines of one server.

    Args:
        folder: The folder with the files of the built-in models, or None where there are none.
        worker: One thread, so that work whose client has gone cannot pile up beside other work.
    """

    def __init__(self, folder: Path | None, worker: ThreadPoolExecutor) -> None:
        self._worker = worker
        self._codec = TokenCodec(folder / "tokenizer.json") if folder else None
        self._encoder = MiniLM(map_tensors(folder / "model.safetensors")) if folder else None

    async def complete(
        self, model: Model, request: CompletionRequest, options: Options, context_tokens: int
    ) -> Completion:
        """Answer a request.

        Raises:
            TooLongError: The prompt is too long and the request forbids to cut it.
        """
        if model.engine is Engine.EXTRACTIVE and self._codec:
            return await asyncio.to_thread(
                complete_extractive, request, options, self._codec, context_tokens
            )
        thinks = "thinking" in model.capabilities
        return complete_synthetic(request, options, context_tokens, thinks=thinks)

    async def tokenize(self, model: Model, texts: list[str]) -> list[Text]:
        """Tokenise texts to embed."""
        if model.engine is not Engine.MINILM or not self._codec:
            count = synthetic.count_tokens
            return [Text(ids=[], text=text, tokens=max(1, count(text))) for text in texts]
        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(self._worker, self._codec.encode, texts)
        pairs = zip(encoded, texts, strict=True)
        return [Text(ids=ids, text=text, tokens=len(ids)) for ids, text in pairs]

    async def embed(self, model: Model, texts: list[Text]) -> Floats:
        """Embed texts as vectors of unit length, one row each."""
        if model.engine is not Engine.MINILM or not self._encoder:
            rows = [synthetic.embed(text.text, model.embedding_length) for text in texts]
            return np.stack(rows)
        loop = asyncio.get_running_loop()
        ids = [text.ids for text in texts]
        return await loop.run_in_executor(self._worker, self._encoder.embed, ids)
