"""The page of metrics, in both formats that Prometheus asks for.

The client library's writer needs 54 to 88 ms for 6,500 series (measured) and lets nobody else run
meanwhile; this one needs half of the one and a third of the other, since the beginnings of lines
are the same at every scrape, and pauses every few hundred lines.
"""

import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

__all__ = ["OPENMETRICS_TYPE", "TEXT_TYPE", "Page"]

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# Whoever waits for the interpreter gets it after so many lines: less than a millisecond.
_LINES_BETWEEN_PAUSES = 256
_PAUSE_SECONDS = 0.0001


class Page:
    """Writes all metrics of a registry.

    Args:
        registry: The metrics. They have plain names, and neither native histograms nor times.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._beginnings: dict[tuple[str, ...], str] = {}

    def render(self, *, openmetrics: bool) -> bytes:
        """Writes the page; for a thread of its own.

        Args:
            openmetrics: Whether in the OpenMetrics format, with exemplars, or as plain text.
        """
        page = "".join(self._lines(openmetrics=openmetrics))
        # Half a character in the name of a model must not hide all other metrics.
        return (page + "# EOF\n" if openmetrics else page).encode("utf-8", "replace")

    def _lines(self, *, openmetrics: bool) -> Iterator[str]:
        known, used = self._beginnings, dict[tuple[str, ...], str]()
        count = 0
        for family in self._registry.collect():
            total = family.type == "counter" and not openmetrics
            name = family.name + "_total" if total else family.name
            text = _escaped(family.documentation) if openmetrics else _broken(family.documentation)
            yield f"# HELP {name} {text}\n# TYPE {name} {family.type}\n"
            for sample in family.samples:
                key = (sample.name, *sample.labels.values())
                beginning = known.get(key)
                if beginning is None:
                    beginning = _beginning(sample.name, sample.labels)
                used[key] = beginning
                exemplar = sample.exemplar
                ending = _exemplar(exemplar) if exemplar is not None and openmetrics else "\n"
                yield f"{beginning}{_number(sample.value)}{ending}"
                count += 1
                if count % _LINES_BETWEEN_PAUSES == 0:
                    time.sleep(_PAUSE_SECONDS)
        # Those of series that are no more go.
        self._beginnings = used


def _beginning(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return f"{name} "
    shown = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels.items()))
    return f"{name}{{{shown}}} "


def _exemplar(exemplar: Exemplar) -> str:
    labels = ",".join(
        f'{name}="{_escaped(text)}"' for name, text in sorted(exemplar.labels.items())
    )
    moment = "" if exemplar.timestamp is None else f" {exemplar.timestamp}"
    return f" # {{{labels}}} {_number(exemplar.value)}{moment}\n"


def _number(value: float) -> str:
    # Most are.
    if not value:
        return "0.0"
    written: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return written


def _broken(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escaped(text: str) -> str:
    return _broken(text).replace('"', '\\"')
