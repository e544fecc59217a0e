from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.prices import NO_PRICES, currency_code, parse_prices

PRICES = parse_prices("llama3:70b=0.6/0.9, llama3*=0.15/0.0375, tool:web_search=0.005, *=0/0")


@pytest.mark.parametrize(
    ("model", "tokens", "cost_nanos"),
    [
        ("llama3:70b", (1_000_000, 0), 600_000_000),
        ("LLaMA3:8b", (1_000_000, 1_000_000), 187_500_000),
        ("llama3.2:latest", (0, 1), 38),
        ("mistral:latest", (10**9, 10**9), 0),
    ],
)
def test_the_first_pattern_that_matches_counts(model, tokens, cost_nanos):
    cost = PRICES.cost_nanos(model, prompt_token_count=tokens[0], completion_token_count=tokens[1])
    assert cost == cost_nanos


def test_a_tool_costs_by_the_call():
    assert PRICES.tool_cost_nanos("web_search") == 5_000_000
    assert PRICES.tool_cost_nanos("calculator") == 0


def test_without_prices_everything_is_free():
    assert parse_prices(" ") == NO_PRICES
    assert NO_PRICES.cost_nanos("any", prompt_token_count=10**9, completion_token_count=1) == 0


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match="names no model") as told:
        parse_prices("=1/1, a=1, b=-1/2, c=1/2/3, tool:d=1/2, e=1.1234567/0, f=1/1, F=2/2, g")
    assert len(str(told.value).split("; ")) == 8


@pytest.mark.parametrize("text", ["eur", "EURO", "€", "E R"])
def test_a_currency_is_three_capital_letters(text):
    with pytest.raises(ValueError, match="three capital letters"):
        currency_code(text)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_cost_is_right_to_half_a_billionth(prompt, completion):
    cost = PRICES.cost_nanos(
        "llama3:8b", prompt_token_count=prompt, completion_token_count=completion
    )
    assert abs(cost * 10 - (prompt * 1500 + completion * 375)) <= 5


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    with suppress(ValueError):
        parse_prices(text)
