"""Savings, gross and net."""

import pytest

from services.cache.core.savings import NOTHING, Prices, Savings, SavingsReport
from services.cache.settings import CacheSettings
from services.common.settings import SettingsError, load

PRICES = Prices(per_million_prompt_tokens=2.0, per_million_completion_tokens=10.0, currency="EUR")


def report(**fields) -> SavingsReport:
    return SavingsReport(
        **{
            "by_hits": Savings(1_000_000, 500_000, 90.0),
            "by_coalescing": NOTHING,
            "lookup_seconds": 0.0,
            "verification": NOTHING,
            "prices": PRICES,
        }
        | fields
    )


def test_savings_add_up() -> None:
    total = Savings(1, 2, 0.5) + Savings(10, 20, 0.25)
    assert total == Savings(11, 22, 0.75)
    assert total.token_count == 33


def test_tokens_cost_what_a_million_of_their_kind_costs() -> None:
    assert PRICES.cost(Savings(1_000_000, 0, 0)) == 2.0
    assert PRICES.cost(Savings(0, 250_000, 0)) == 2.5


def test_net_time_is_less_the_time_of_all_lookups_and_may_be_negative() -> None:
    assert report(lookup_seconds=30.0).net_seconds == 60.0
    assert report(lookup_seconds=100.0).net_seconds == -10.0


def test_net_cost_is_less_the_price_of_verification() -> None:
    checked = report(verification=Savings(500_000, 100_000, 8.0))
    assert checked.gross_cost == pytest.approx(7.0)
    assert checked.net_cost == pytest.approx(5.0)


def test_what_coalescing_saves_is_not_counted_as_hits() -> None:
    assert report(by_coalescing=Savings(9, 9, 9)).gross_cost == report().gross_cost


def test_there_is_no_currency_without_a_price() -> None:
    assert Prices(currency="EUR").known_currency == ""
    assert PRICES.known_currency == "EUR"
    assert Prices(per_million_completion_tokens=0.1, currency="CHF").known_currency == "CHF"


def test_no_price_is_set_unless_someone_sets_it() -> None:
    settings = load(CacheSettings, {}, prefix="")
    assert settings.price_per_million_prompt_tokens == 0
    assert settings.price_per_million_completion_tokens == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CURRENCY", "euro"),
        ("CURRENCY", "EURO"),
        ("PRICE_PER_MILLION_PROMPT_TOKENS", "-1"),
        ("PRICE_PER_MILLION_COMPLETION_TOKENS", "nan"),
    ],
)
def test_prices_and_currencies_that_are_none_are_refused(variable, value) -> None:
    with pytest.raises(SettingsError):
        load(CacheSettings, {variable: value}, prefix="")
