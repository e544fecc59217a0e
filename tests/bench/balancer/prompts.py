"""Texts of the lengths that a trace names. A token is four characters, as the stand-in counts."""

import random
import string

from tests.bench.balancer.traces import Request

__all__ = ["Prompts"]

_CHARACTERS_PER_TOKEN = 4
_SUPPLY_CHARACTERS = 1 << 18


class Prompts:
    """Makes texts; equal seeds make equal texts.

    Args:
        seed: The trace's seed.
    """

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"prompts/{seed}")
        letters = string.ascii_lowercase + "     "
        self._supply = "".join(rng.choices(letters, k=_SUPPLY_CHARACTERS))

    def prefix(self, request: Request) -> str:
        """Returns the shared prefix, which other requests of the same number begin with."""
        if request.prefix < 0:
            return ""
        return self._text(f"prefix {request.prefix}: ", request.prefix, request.prefix_tokens)

    def own(self, request: Request) -> str:
        """Returns what is the request's alone, with the length of the answer ordered."""
        order = f" <<tokens={request.output_tokens}>>"
        tokens = request.prompt_tokens - request.prefix_tokens
        return self._text(f"{request.index:x} ", request.index, tokens, end=order)

    def texts(self, request: Request) -> list[str]:
        """Returns the texts to embed, all different."""
        return [
            self._text(
                f"{request.index:x}.{number:x} ", request.index + number, request.prompt_tokens
            )
            for number in range(request.text_count)
        ]

    def _text(self, begin: str, number: int, tokens: int, end: str = "") -> str:
        """Cuts a text out of the supply, at a place that depends on the number."""
        count = max(0, tokens * _CHARACTERS_PER_TOKEN - len(begin) - len(end))
        at = number * 7919 % (_SUPPLY_CHARACTERS // 2)
        return begin + self._supply[at : at + count] + end
