"""Alerts about what questions cost, in the currency of the operator's prices."""

from tools.monitoring import thresholds
from tools.monitoring.rules.model import Alert, Channel, Group, Panel, Severity

__all__ = ["GROUP"]

_DAY_SECONDS = 86_400


def _cost(window: str, offset: str = "") -> str:
    return f"sum by (currency) (rate(rag_cost_total[{window}]{offset}))"


GROUP = Group(
    "costs",
    (
        Alert(
            name="HighDailyCost",
            expr=f"{_cost('1h')} * {_DAY_SECONDS} > {thresholds.DAILY_COST:g}",
            limit=f"more than {thresholds.DAILY_COST:g} a day at the last hour's rate",
            minutes=60,
            severity=Severity.WARNING,
            channels=(Channel.EMAIL,),
            service="rag",
            summary="Questions cost much",
            description='At the last hour\'s rate a day costs {{ $value | printf "%.2f" }} '
            "{{ $labels.currency }}.",
            panel=Panel("cost-optimization", 1),
        ),
        Alert(
            name="SuddenCostSpike",
            # The hour before the last is what it is held against: one that held the spike itself
            # would grow with it. Below the floor, the first question after a quiet night is none.
            # The last line asks for the whole of that hour: of the part that there is at first, the
            # rate would be that of a whole hour with less in it.
            expr=f"{_cost('10m')}"
            f"\n  > {thresholds.COST_SPIKE_FACTOR:g} * ({_cost('1h', ' offset 1h')} > 0)"
            f"\nand {_cost('10m')} * {_DAY_SECONDS} > {thresholds.COST_SPIKE_FLOOR_PER_DAY:g}"
            "\nand sum by (currency) (rag_cost_total offset 2h)",
            limit=f"more than {thresholds.COST_SPIKE_FACTOR:g} times the rate of an hour before, "
            f"and more than {thresholds.COST_SPIKE_FLOOR_PER_DAY:g} a day",
            minutes=10,
            severity=Severity.CRITICAL,
            channels=(Channel.PAGERDUTY, Channel.EMAIL),
            service="rag",
            summary="Costs have jumped",
            description='Questions cost {{ $value | printf "%.5f" }} {{ $labels.currency }} a '
            f"second, more than {thresholds.COST_SPIKE_FACTOR:g} times what they did an hour "
            "before.",
            panel=Panel("cost-optimization", 10),
        ),
    ),
)
