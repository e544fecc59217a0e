"""How many tokens a model makes of a prompt, learned from what it says it has read.

Estimates are made without the model's tokeniser, so they are off by a factor that is about the same
for all prompts of one script to one model. What a model reports of each prompt corrects it, as a
moving average; a report far below the corrected estimate means that the backend has cut the prompt.
"""

import re
from collections import OrderedDict

from services.rag.core.tokens import estimate_tokens

__all__ = ["TRUNCATED_RATIO", "PromptSizes"]

TRUNCATED_RATIO = 0.85
"""A prompt of which less was read than this share of the estimate has been cut."""

_WEIGHT = 0.2
# Backends cut prompts to contexts of 2048 tokens and more; a short prompt is never cut.
_SHORTEST_CUT = 1500
# Before a model is known, tokenisers differ by this much from the one the estimate was fitted to.
_LEAST_FACTOR = 0.5
_GREATEST_FACTOR = 2.0
_LEAST_REPORTS = 3
_MOST_MODELS = 256
_WIDE = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u9fff\uac00-\ud7af]")
_WIDE_RATIO = 0.3


class PromptSizes:
    """The factors of all models; learns from each report.

    The number of models is bounded; the one unused longest is forgotten.
    """

    def __init__(self) -> None:
        self._factors: OrderedDict[tuple[str, bool], tuple[float, int]] = OrderedDict()

    def factor(self, model_digest: str, sample: str) -> float:
        """Returns what estimates for a model are multiplied by.

        Args:
            model_digest: The model.
            sample: Some of the text, for its script.
        """
        return self._factors.get((model_digest, _is_wide(sample)), (1.0, 0))[0]

    def estimate(self, model_digest: str, text: str) -> float:
        """Returns the estimated tokens of a text."""
        return estimate_tokens(text) * self.factor(model_digest, text)

    def is_cut(self, model_digest: str, prompt: str, token_count: int) -> bool:
        """Says whether the backend has cut a prompt, and learns nothing.

        That is for prompts of which more is read than their words, such as what tools there are,
        or which are so short that the marks around them count.

        Args:
            model_digest: The model.
            prompt: What it was given to read.
            token_count: What it has read, as the backend says; 0 where it does not.
        """
        key = model_digest, _is_wide(prompt)
        return self._is_less(key, estimate_tokens(prompt), token_count)

    def report(self, model_digest: str, prompt: str, token_count: int) -> bool:
        """Learns how many tokens a prompt had.

        Args:
            model_digest: The model.
            prompt: All that it was given to read.
            token_count: What it has read, as the backend says; 0 where it does not.

        Returns:
            Whether the backend has cut the prompt. Nothing is learned from such a one.
        """
        if token_count <= 0:
            return False
        estimate, key = estimate_tokens(prompt), (model_digest, _is_wide(prompt))
        if not estimate:
            return False
        if self._is_less(key, estimate, token_count):
            return True
        factor, count = self._factors.get(key, (1.0, 0))
        bounded = min(_GREATEST_FACTOR, max(_LEAST_FACTOR, token_count / estimate))
        learned = bounded if count == 0 else factor + _WEIGHT * (bounded - factor)
        self._factors[key] = learned, count + 1
        self._factors.move_to_end(key)
        if len(self._factors) > _MOST_MODELS:
            self._factors.popitem(last=False)
        return False

    def _is_less(self, key: tuple[str, bool], estimate: int, token_count: int) -> bool:
        """Says whether less was read than was to be expected of a prompt that is there whole."""
        factor, count = self._factors.get(key, (1.0, 0))
        expected = estimate * factor
        least = TRUNCATED_RATIO if count >= _LEAST_REPORTS else _LEAST_FACTOR
        return expected >= _SHORTEST_CUT and 0 < token_count < least * expected


def _is_wide(text: str) -> bool:
    sample = text[:4000]
    if sample.isascii():
        return False
    return len(_WIDE.findall(sample)) > _WIDE_RATIO * max(1, len(sample))
