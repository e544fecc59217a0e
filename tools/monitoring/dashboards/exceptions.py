"""Where the dashboards leave their own rules, each with its reason."""

from collections.abc import Mapping
from typing import Final

__all__ = ["FIXED_WINDOWS", "INTERNAL_METRICS"]

FIXED_WINDOWS: Final[Mapping[tuple[str, int], str]] = {
    ("cost-optimization", 1): "a day's cost at the last hour's rate, as the alert computes it",
    ("cost-optimization", 10): "the same over time",
    ("cost-optimization", 13): "cost comes in bursts; an hour of them makes a mean",
    ("business", 2): "an hour is what the title says",
    ("performance-overview", 13): "burn rates are defined over an hour, six, a day and three",
    ("performance-overview", 14): "burn rates are defined over an hour, six, a day and three",
}
"""Panels that look back over a window of their own, and why."""

INTERNAL_METRICS: Final[Mapping[str, str]] = {
    "cache_dropped_writes_total": "the same as outcome dropped of cache_writes_total",
    "process_virtual_memory_bytes": "address space says nothing; resident memory is shown",
    "python_gc_objects_collected_total": "collections are shown; objects add nothing to act on",
    "python_gc_objects_uncollectable_total": "always 0 since Python 3.4",
    "python_info": "service_build_info has Python's version beside that of the service",
}
"""Metrics that no panel shows, and why."""
