"""What tests of metrics and traces share."""

import asyncio
from collections import Counter

import aiohttp
from opentelemetry.trace import SpanKind
from prometheus_client.openmetrics.parser import text_string_to_metric_families

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


class Page:
    """What `/metrics` shows.

    Attributes:
        families: Names of the metric families.
        text: The page as it is.
    """

    def __init__(self, text):
        self.text = text
        self.families = set()
        self._samples = []
        for family in text_string_to_metric_families(text):
            self.families.add(family.name)
            self._samples += family.samples

    def value(self, name, **labels):
        """The sum of the samples of a name that have some labels."""
        return sum(
            each.value
            for each in self._samples
            if each.name == name and labels.items() <= each.labels.items()
        )

    def labels(self, name, label):
        """The values of a label, with those of the samples that are not zero."""
        found = Counter()
        for each in self._samples:
            if each.name == name and each.value:
                found[each.labels[label]] += each.value
        return dict(found)

    def exemplars(self, name):
        """The traces that a histogram points at."""
        return [
            each.exemplar.labels["trace_id"]
            for each in self._samples
            if each.name == f"{name}_bucket" and each.exemplar is not None
        ]


async def page_of(rag):
    """Reads `/metrics`."""
    async with (
        aiohttp.ClientSession(headers=OPENMETRICS) as session,
        session.get(f"http://127.0.0.1:{rag.http_port}/metrics") as reply,
    ):
        return Page(await reply.text())


async def eventually(condition, seconds=60):
    """Waits until something is so, and returns what it is."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0.005)
    return found


def finished(rag):
    """All spans that have ended."""
    return rag.spans.exporter.get_finished_spans()


async def trace_of(rag, trace_id, root="/Query"):
    """The spans of a trace once its first one has ended, those that began first coming first."""

    def spans():
        found = [
            each for each in finished(rag) if format(each.context.trace_id, "032x") == trace_id
        ]
        return found if any(each.name.endswith(root) for each in found) else []

    return sorted(await eventually(spans), key=lambda each: each.start_time)


def tree(spans):
    """Names of spans, each with those of its children; spans of calls are named by their method."""
    children, known = {}, {each.context.span_id for each in spans}
    for each in spans:
        parent = each.parent.span_id if each.parent and each.parent.span_id in known else None
        children.setdefault(parent, []).append(each)

    def below(parent):
        return [
            (short(each), below(each.context.span_id))
            if each.context.span_id in children
            else short(each)
            for each in children.get(parent, [])
        ]

    return below(None)


def short(span):
    """The name of a span without its service, with an arrow where it calls somebody."""
    arrow = "> " if span.kind is SpanKind.CLIENT else ""
    return arrow + span.name.rpartition("/")[2]


def one(spans, name):
    """The only span of a name."""
    (found,) = [each for each in spans if short(each).removeprefix("> ") == name]
    return found


def failed(spans):
    """Names of the spans that have failed."""
    return [short(each) for each in spans if each.status.status_code.name == "ERROR"]


def told(spans):
    """All that spans say, as one text."""
    return "\n".join(
        f"{each.name} {dict(each.attributes)} {each.status.description} "
        + " ".join(f"{event.name} {dict(event.attributes or {})}" for event in each.events)
        + " ".join(str(dict(link.attributes or {})) for link in each.links)
        for each in spans
    )
