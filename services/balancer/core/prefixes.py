"""What backends are thought to remember of prompts that they have read.

A server keeps the state of its last prompts, and reads of the next one only what follows the
longest beginning that it has in common with one of them. Prompts are compared in blocks, by hashes
each of which stands for the text from the beginning to the end of its block.
"""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Fingerprint", "PrefixMemory", "fingerprint"]

_BLOCK_CHARACTERS = 256
_MAXIMUM_BLOCK_COUNT = 512
_HASH_BYTES = 8
# Ends each part, so that a conversation begins with what it was a turn before.
_PART_END = "\x1e"
# llama-server takes up a state again only where it covers more of the prompt than this.
_LEAST_HIT_SHARE = 0.1
# llama-server gives states 8 GiB, and a token of a model of 8 billion parameters takes 128 KiB.
_MAXIMUM_TOKEN_COUNT = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """A prompt, as far as comparing beginnings takes.

    Attributes:
        blocks: Hash of the text up to the end of each complete block, at most 512.
        digest: Hash of the whole text, or of its first 512 blocks where it is longer.
        character_count: Characters of the whole text.
    """

    blocks: tuple[bytes, ...]
    digest: bytes
    character_count: int


def fingerprint(text_parts: Sequence[str], *, salt: str = "") -> Fingerprint:
    """Takes the fingerprint of a prompt.

    Args:
        text_parts: The prompt in its order: system prompt, messages. A prompt that has more parts
            after the same ones begins alike.
        salt: Whatever else decides how the text is rendered; prompts of different salt have
            nothing in common.
    """
    text = "".join([part + _PART_END for part in text_parts])
    hasher = hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES)
    hasher.update(b"\x00")
    blocks = []
    block_count = min(len(text) // _BLOCK_CHARACTERS, _MAXIMUM_BLOCK_COUNT)
    end = block_count * _BLOCK_CHARACTERS
    for start in range(0, end, _BLOCK_CHARACTERS):
        block = text[start : start + _BLOCK_CHARACTERS]
        hasher.update(block.encode("utf-8", "surrogatepass"))
        blocks.append(hasher.copy().digest())
    if block_count < _MAXIMUM_BLOCK_COUNT:
        hasher.update(text[end:].encode("utf-8", "surrogatepass"))
    return Fingerprint(blocks=tuple(blocks), digest=hasher.digest(), character_count=len(text))


class _Memory:
    """The prompts that one model on one backend remembers, the last one at the end."""

    def __init__(self) -> None:
        self._prompts: dict[bytes, tuple[Fingerprint, int]] = {}
        self._blocks: Counter[bytes] = Counter()
        self._token_count = 0

    def add(self, prompt: Fingerprint, token_count: int, maximum_prompt_count: int) -> None:
        superseded = [
            digest
            for digest, (each, _) in self._prompts.items()
            if digest == prompt.digest or _begins_with(prompt, each)
        ]
        for digest in superseded:
            self._remove(digest)
        self._prompts[prompt.digest] = (prompt, token_count)
        self._blocks.update(prompt.blocks)
        self._token_count += token_count
        while len(self._prompts) > maximum_prompt_count or (
            self._token_count > _MAXIMUM_TOKEN_COUNT and len(self._prompts) > 1
        ):
            self._remove(next(iter(self._prompts)))

    def _remove(self, digest: bytes) -> None:
        prompt, token_count = self._prompts.pop(digest)
        self._token_count -= token_count
        for block in prompt.blocks:
            if self._blocks[block] == 1:
                del self._blocks[block]
            else:
                self._blocks[block] -= 1

    def hit_tokens(self, prompt: Fingerprint, token_count: int) -> int:
        """Returns how many of the prompt's tokens are remembered; one is always read."""
        if prompt.digest in self._prompts and len(prompt.blocks) < _MAXIMUM_BLOCK_COUNT:
            return max(0, token_count - 1)
        blocks = prompt.blocks
        # Whoever remembers a block remembers all before it.
        count = bisect_left(
            range(len(blocks)), x=True, key=lambda index: blocks[index] not in self._blocks
        )
        if count == 0:
            return 0
        tokens = token_count * count * _BLOCK_CHARACTERS // prompt.character_count
        if tokens < _LEAST_HIT_SHARE * token_count:
            return 0
        return max(0, min(tokens, token_count - 1))


class PrefixMemory:
    """What the models on the backends are thought to remember.

    Args:
        maximum_prompt_count: Prompts that a model on a backend remembers at most, at least 1. It
            also remembers no more than 65,536 tokens, or else only the last prompt.
    """

    def __init__(self, maximum_prompt_count: int = 32) -> None:
        self._maximum_prompt_count = maximum_prompt_count
        self._models: dict[str, dict[str, _Memory]] = {}

    def note(self, backend_id: str, model: str, prompt: Fingerprint, token_count: int) -> None:
        """Notes that a prompt has been read.

        Args:
            backend_id: By whom.
            model: Placement key.
            prompt: Its fingerprint.
            token_count: Its tokens, at least 0.
        """
        memories = self._models.setdefault(model, {})
        memory = memories.get(backend_id)
        if memory is None:
            memory = memories[backend_id] = _Memory()
        memory.add(prompt, token_count, self._maximum_prompt_count)

    def hit_tokens(self, backend_id: str, model: str, prompt: Fingerprint, token_count: int) -> int:
        """Returns how many tokens of a prompt need not be read, less than `token_count`.

        Args:
            backend_id: Where.
            model: Placement key.
            prompt: The prompt's fingerprint.
            token_count: Its tokens, at least 0.
        """
        memory = self._models.get(model, {}).get(backend_id)
        return memory.hit_tokens(prompt, token_count) if memory else 0

    def hits(self, model: str, prompt: Fingerprint, token_count: int) -> dict[str, int]:
        """Returns what `hit_tokens` says of each backend, where it is more than 0."""
        hits: dict[str, int] = {}
        for backend_id, memory in self._models.get(model, {}).items():
            tokens = memory.hit_tokens(prompt, token_count)
            if tokens:
                hits[backend_id] = tokens
        return hits

    def forget(self, backend_id: str, model: str | None = None) -> None:
        """Forgets what a model on a backend remembers: it has been unloaded.

        Args:
            backend_id: Where.
            model: Placement key; None for all.
        """
        for key in [model] if model is not None else list(self._models):
            memories = self._models.get(key, {})
            memories.pop(backend_id, None)
            if not memories:
                self._models.pop(key, None)


def _begins_with(prompt: Fingerprint, other: Fingerprint) -> bool:
    """Tells whether a prompt has all blocks of another, which has any."""
    count = len(other.blocks)
    return 0 < count <= len(prompt.blocks) and prompt.blocks[count - 1] == other.blocks[-1]
