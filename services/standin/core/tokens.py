"""Texts as word pieces: counting, cutting, and the pieces in which an answer is streamed."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

CLS = 101
SEP = 102


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A tokenised text.

    Args:
        ids: Token ids, without special tokens.
        texts: The text each token stands for, blanks before it included; joined, they are the
            whole text.
    """

    ids: list[int]
    texts: list[str]


class TokenCodec:
    """The tokenizer of the embedding model, which counts for the chat model too.

    Args:
        path: Its `tokenizer.json`.
    """

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, [CLS] and [SEP] included, uncut."""
        return [[CLS, *encoding.ids, SEP] for encoding in self._encode(texts)]

    def count(self, text: str) -> int:
        """Number of tokens, without special tokens."""
        return len(self._encode([text])[0].ids)

    def split(self, text: str) -> Pieces:
        """Split a text into tokens and the pieces of text that they stand for."""
        encoding = self._encode([text])[0]
        texts = []
        begin = 0
        for _, end in encoding.offsets:
            texts.append(text[begin:end])
            begin = max(begin, end)
        if texts:
            texts[-1] += text[begin:]
        return Pieces(ids=encoding.ids, texts=texts)

    def _encode(self, texts: list[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch(texts, add_special_tokens=False)


def cut_middle(pieces: Pieces, *, context_tokens: int, keep_tokens: int) -> str:
    """Cut a prompt that is longer than the context, as the server slides it.

    The first `keep_tokens` stay, and of the rest the newest half of what would fit.
    """
    if len(pieces.ids) < context_tokens:
        return "".join(pieces.texts)
    keep = min(keep_tokens, context_tokens // 2)
    tail = max(1, (context_tokens - keep) // 2)
    return "".join(pieces.texts[:keep] + pieces.texts[-tail:])


def cut_at_stop(text: str, stops: tuple[str, ...]) -> str:
    """The text before the earliest stop text."""
    ends = [position for position in map(text.find, stops) if position >= 0]
    return text[: min(ends)] if ends else text
