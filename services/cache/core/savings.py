"""What hits save, and what that would have cost."""

from dataclasses import dataclass
from typing import Self

__all__ = ["NOTHING", "Prices", "Savings", "SavingsReport"]

_TOKENS_PER_PRICE = 1_000_000


@dataclass(frozen=True, slots=True)
class Savings:
    """What one hit saves, as counted when the value was computed.

    Attributes:
        prompt_token_count: Tokens of the prompt.
        completion_token_count: Tokens generated.
        seconds: Time of the generation.
    """

    prompt_token_count: int
    completion_token_count: int
    seconds: float

    @property
    def token_count(self) -> int:
        """Tokens of both kinds."""
        return self.prompt_token_count + self.completion_token_count

    def __add__(self, other: Self) -> "Savings":
        return Savings(
            self.prompt_token_count + other.prompt_token_count,
            self.completion_token_count + other.completion_token_count,
            self.seconds + other.seconds,
        )


NOTHING = Savings(0, 0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What tokens cost.

    Attributes:
        per_million_prompt_tokens: Price of a million tokens of prompts, 0 or more.
        per_million_completion_tokens: Price of a million generated tokens, 0 or more.
        currency: What the prices are in, for example "EUR".
    """

    per_million_prompt_tokens: float = 0.0
    per_million_completion_tokens: float = 0.0
    currency: str = ""

    @property
    def known_currency(self) -> str:
        """What costs are in; empty where no price is set."""
        known = self.per_million_prompt_tokens or self.per_million_completion_tokens
        return self.currency if known else ""

    def cost(self, savings: Savings) -> float:
        """Returns the price of so many tokens, in units of `currency`."""
        return (
            savings.prompt_token_count * self.per_million_prompt_tokens
            + savings.completion_token_count * self.per_million_completion_tokens
        ) / _TOKENS_PER_PRICE


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingsReport:
    """What the cache has saved, and what it has cost.

    Attributes:
        by_hits: What hits have saved.
        by_coalescing: What callers have saved who got an answer that another one computed.
        lookup_seconds: Time of all lookups, misses included.
        verification: Tokens and time spent on finding out whether hits were right.
        prices: What tokens cost.
    """

    by_hits: Savings
    by_coalescing: Savings
    lookup_seconds: float
    verification: Savings
    prices: Prices

    @property
    def net_seconds(self) -> float:
        """Time saved less the time of lookups; negative where these have cost more."""
        return self.by_hits.seconds - self.lookup_seconds

    @property
    def gross_cost(self) -> float:
        """What the tokens that hits have saved would have cost."""
        return self.prices.cost(self.by_hits)

    @property
    def net_cost(self) -> float:
        """The same less the price of verification."""
        return self.gross_cost - self.prices.cost(self.verification)
