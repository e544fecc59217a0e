"""Amounts of money, which the services give in billionths of a currency."""

__all__ = ["format_cost", "to_nanos"]

_NANOS = 1_000_000_000


def format_cost(nanos: int, currency: str) -> str:
    """Writes an amount, with more decimals where it is small; `-` where there is no currency."""
    if not currency:
        return "-"
    decimals = 2 if abs(nanos) >= _NANOS or nanos == 0 else 6
    return f"{nanos / _NANOS:.{decimals}f} {currency}"


def to_nanos(amount: float) -> int:
    """Returns an amount in billionths."""
    return round(amount * _NANOS)
