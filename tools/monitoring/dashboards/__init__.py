"""The dashboards: Python sources, and the JSON that Grafana imports as it is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.monitoring.dashboards.board import Dashboard
from tools.monitoring.dashboards.business import BUSINESS
from tools.monitoring.dashboards.cache import CACHE_PERFORMANCE
from tools.monitoring.dashboards.cost import COST_OPTIMIZATION
from tools.monitoring.dashboards.deep_dive import DEEP_DIVE
from tools.monitoring.dashboards.fleet_health import FLEET_HEALTH
from tools.monitoring.dashboards.fleet_performance import FLEET_PERFORMANCE
from tools.monitoring.dashboards.performance import PERFORMANCE_OVERVIEW
from tools.monitoring.dashboards.system import SYSTEM_HEALTH
from tools.monitoring.dashboards.traces import TRACES

__all__ = ["ALL", "FOLDER", "render"]

FOLDER: Final = Path("dashboards")
"""Where the JSON is, below the root of the project."""

ALL: Final[Sequence[Dashboard]] = (
    PERFORMANCE_OVERVIEW,
    CACHE_PERFORMANCE,
    COST_OPTIMIZATION,
    SYSTEM_HEALTH,
    FLEET_PERFORMANCE,
    FLEET_HEALTH,
    BUSINESS,
    DEEP_DIVE,
    TRACES,
)


def render() -> dict[Path, str]:
    """Writes all dashboards.

    Returns:
        Path below the root of the project to text.
    """
    return {
        FOLDER / f"{each.uid}.json": json.dumps(each.json(), indent=2, ensure_ascii=False) + "\n"
        for each in ALL
    }
