"""What a loaded model remembers of earlier prompts: its slots, and prompts saved in host memory.

The rules are those of the native server that runs a model: a request takes the idle slot that
shares the longest prefix with its prompt if that is more than a tenth of the prompt, else the slot
that was used the longest ago; a slot that would lose more than half of its content is saved first,
and a saved prompt that fits better is put in its place. All of it goes when the model is unloaded.
"""

from dataclasses import dataclass

_MIN_SIMILARITY_RATIO = 0.1
_MIN_KEPT_RATIO = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A tokenised text, as far as comparing prefixes needs it.

    Args:
        content: Text of which each token takes `characters_per_token` (the last one maybe fewer);
            for real token ids, one character per id.
        characters_per_token: Characters of `content` per token.
    """

    content: str
    characters_per_token: int = 1

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return -(-len(self.content) // self.characters_per_token)


@dataclass(eq=False, slots=True, kw_only=True)
class _Slot:
    content: str = ""
    busy: bool = False
    used_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A slot in use.

    Args:
        slot: Its index.
        cached_tokens: Tokens of the prompt that need not be read again.
    """

    slot: int
    cached_tokens: int


class PromptCache:
    """The slots and the saved prompts of one loaded model.

    Args:
        slots: Number of slots.
        saved_tokens: Tokens of saved prompts that are kept; the oldest go first.
    """

    def __init__(self, *, slots: int, saved_tokens: int) -> None:
        self._slots = [_Slot() for _ in range(slots)]
        self._saved: dict[str, int] = {}
        self._saved_limit = saved_tokens
        self._uses = 0

    def begin(self, prompt: Prompt) -> Lease:
        """Take an idle slot for a prompt; the caller sees to it that there is one."""
        content = prompt.content
        idle = [slot for slot in self._slots if not slot.busy]
        shared = [count_common(slot.content, content) for slot in idle]
        best = max(range(len(idle)), key=shared.__getitem__)
        if shared[best] <= _MIN_SIMILARITY_RATIO * len(content):
            best = min(range(len(idle)), key=lambda index: idle[index].used_at)
        slot, common = idle[best], shared[best]
        if common < _MIN_KEPT_RATIO * len(slot.content) or not slot.content:
            common = self._swap(slot, prompt, common)
        slot.busy = True
        cached = common // prompt.characters_per_token
        return Lease(
            slot=self._slots.index(slot), cached_tokens=max(0, min(cached, prompt.tokens - 1))
        )

    def end(self, lease: Lease, content: str) -> None:
        """Give a slot back.

        Args:
            lease: The slot.
            content: What it holds now: the prompt as far as it was read, and the answer.
        """
        slot = self._slots[lease.slot]
        self._uses += 1
        slot.content, slot.busy, slot.used_at = content, False, self._uses

    def _swap(self, slot: _Slot, prompt: Prompt, common: int) -> int:
        """Save a slot and put the best saved prompt in its place; returns what is common then."""
        found = ""
        for saved in self._saved:
            # One comparison tells whether it beats the best so far; most do not.
            if len(saved) > common and saved.startswith(prompt.content[: common + 1]):
                longer = count_common(saved, prompt.content)
                if longer > common:
                    found, common = saved, longer
        if slot.content and self._saved_limit:
            self._save(slot.content, prompt.characters_per_token)
        if found:
            self._saved.pop(found, None)
        slot.content = found
        return common

    def _save(self, content: str, characters_per_token: int) -> None:
        if any(saved.startswith(content) for saved in self._saved):
            return
        for covered in [saved for saved in self._saved if content.startswith(saved)]:
            del self._saved[covered]
        self._saved[content] = -(-len(content) // characters_per_token)
        total = sum(self._saved.values())
        while total > self._saved_limit:
            total -= self._saved.pop(next(iter(self._saved)))


def count_common(one: str, other: str) -> int:
    """Length of the longest common prefix."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
