"""What models and tools cost.

Amounts are whole billionths of a currency, so that sums are exact in whatever order they are made.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["NO_PRICES", "PriceTable", "currency_code", "parse_prices"]

_TOOL_PREFIX = "tool:"
_AMOUNT = re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII)
_DECIMALS = 6
_MICROS = 1_000_000
# A millionth of the currency per million tokens is a thousandth of a billionth per token.
_MICROS_PER_NANO_TOKEN = 1000
_NANOS_PER_MICRO = 1000
_LONGEST_PATTERN = 200


@dataclass(frozen=True, slots=True)
class _Price:
    """A price in millionths of the currency: per million tokens, or per call of a tool."""

    pattern: str
    input_micros: int
    output_micros: int = 0


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by pattern; the first that matches counts, and what none matches costs nothing.

    Attributes:
        models: Prices of models.
        tools: Prices of tools.
    """

    models: tuple[_Price, ...] = ()
    tools: tuple[_Price, ...] = ()

    def cost_nanos(
        self, model: str, *, prompt_token_count: int, completion_token_count: int
    ) -> int:
        """Returns what a model asks for its tokens, rounded to a billionth of the currency."""
        price = _find(self.models, model)
        if price is None:
            return 0
        amount = (
            prompt_token_count * price.input_micros + completion_token_count * price.output_micros
        )
        return (amount + _MICROS_PER_NANO_TOKEN // 2) // _MICROS_PER_NANO_TOKEN

    def tool_cost_nanos(self, tool: str) -> int:
        """Returns what one call of a tool costs."""
        price = _find(self.tools, tool)
        return 0 if price is None else price.input_micros * _NANOS_PER_MICRO


NO_PRICES = PriceTable()
"""Everything is free."""


def parse_prices(text: str) -> PriceTable:
    """Reads prices such as `llama3*=0.15/0.60, *=0.1/0.1, tool:web_search=0.005`.

    Of a model the prices of a million tokens, read and generated; of a tool that of a call. `*`
    stands for any characters.

    Raises:
        ValueError: Entries break the rules; all of them are named.
    """
    models: list[_Price] = []
    tools: list[_Price] = []
    problems: list[str] = []
    for entry in filter(None, (each.strip() for each in text.split(","))):
        pattern, _, amounts = (part.strip() for part in entry.rpartition("="))
        is_tool = pattern.startswith(_TOOL_PREFIX)
        pattern = pattern.removeprefix(_TOOL_PREFIX).lower()
        found = [each.strip() for each in amounts.split("/")]
        if not pattern or len(pattern) > _LONGEST_PATTERN or any(each in pattern for each in "[]"):
            problems.append(f"{entry!r} names no model or tool")
        elif len(found) != (1 if is_tool else 2):
            form = "one price" if is_tool else "two prices, input/output"
            problems.append(f"{entry!r} must have {form}")
        elif not all(_AMOUNT.fullmatch(each) for each in found):
            problems.append(
                f"{entry!r} must have prices below 1000000 with at most {_DECIMALS} decimals"
            )
        else:
            known = tools if is_tool else models
            if any(each.pattern == pattern for each in known):
                problems.append(f"{entry!r} has its price already")
            known.append(_Price(pattern, *(_micros(each) for each in found)))
    if problems:
        raise ValueError("; ".join(problems))
    return PriceTable(tuple(models), tuple(tools))


def currency_code(text: str) -> str:
    """Reads a currency such as `EUR`; empty for none.

    Raises:
        ValueError: The text is no such code.
    """
    if not re.fullmatch(r"[A-Z]{3}|", text.strip(), re.ASCII):
        raise ValueError("must be three capital letters, for example EUR")
    return text.strip()


def _micros(amount: str) -> int:
    whole, _, decimals = amount.partition(".")
    return int(whole) * _MICROS + int(decimals.ljust(_DECIMALS, "0"))


def _find(prices: tuple[_Price, ...], name: str) -> _Price | None:
    lowered = name.lower()
    return next((each for each in prices if fnmatchcase(lowered, each.pattern)), None)
