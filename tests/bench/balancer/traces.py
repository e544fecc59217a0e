"""Traces: which request comes when, the same for each contender.

A trace is a pure function of workload and seed. Texts are not part of it; they are made from the
same seed by `prompts` when they are sent.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.bench.balancer.reference import LogNormal, ModelProfile, work_seconds

__all__ = [
    "Bursts",
    "Request",
    "RequestClass",
    "Source",
    "class_work_seconds",
    "make_trace",
    "offered_rate",
    "read_trace",
    "write_trace",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a trace.

    Attributes:
        index: Its place in the trace.
        at_seconds: When it is to be sent, from the trace's start; 0 in closed loops.
        kind: `chat` or `embed`.
        model: Full name of the model.
        prompt_tokens: Length of the prompt, or of each text to embed, the prefix included.
        output_tokens: Length of the answer, which no contender is told; 0 for embeddings.
        text_count: Texts to embed; 1 for chats.
        tenant: Whose request it is.
        prefix: Number of the prefix that it shares with others; -1 where it shares none.
        prefix_tokens: Length of that prefix.
    """

    index: int
    at_seconds: float
    kind: str
    model: str
    prompt_tokens: int
    output_tokens: int
    text_count: int = 1
    tenant: str = "default"
    prefix: int = -1
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestClass:
    """Requests of one kind within a source.

    Attributes:
        share: Share of the source's requests; those of a source add up to 1.
        model: Their model.
        prompt: Lengths of their own prompts, the shared prefix not included.
        output: Lengths of the answers; None for embeddings.
        prefix_count: Prefixes that they share; 0 for none. All are equally likely.
        prefix_tokens: Shortest and longest prefix; lengths are spread evenly between.
    """

    share: float
    model: ModelProfile
    prompt: LogNormal
    output: LogNormal | None = None
    prefix_count: int = 0
    prefix_tokens: tuple[int, int] = (0, 0)

    def prefix_length(self, prefix: int) -> int:
        """Returns the tokens of a prefix."""
        shortest, longest = self.prefix_tokens
        return shortest + (longest - shortest) * prefix // max(1, self.prefix_count - 1)


@dataclass(frozen=True, slots=True)
class Bursts:
    """Arrivals that come in bursts: phases of both kinds last exponentially distributed times.

    Attributes:
        on_seconds: Mean length of a burst.
        off_seconds: Mean time between two bursts.
    """

    on_seconds: float
    off_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source of requests.

    Attributes:
        classes: What it sends.
        rate_per_second: Mean number of requests per second while it is active.
        begin_seconds: When it begins.
        end_seconds: When it ends.
        bursts: Bursts with the same mean rate; None for a Poisson process.
        tenant: Who sends.
    """

    classes: tuple[RequestClass, ...]
    rate_per_second: float
    begin_seconds: float
    end_seconds: float
    bursts: Bursts | None = None
    tenant: str = "default"


def class_work_seconds(each: RequestClass) -> float:
    """Returns the mean work of a request of a class on a host of speed 1, no prefix remembered."""
    prefix = sum(map(each.prefix_length, range(each.prefix_count))) / max(1, each.prefix_count)
    output = each.output.mean if each.output else 0.0
    return work_seconds(each.model, each.prompt.mean + prefix, output)


def offered_rate(classes: Sequence[RequestClass], load_ratio: float, capacity: float) -> float:
    """Returns the requests per second that keep a fleet busy for a share of its time."""
    return load_ratio * capacity / sum(each.share * class_work_seconds(each) for each in classes)


def make_trace(sources: Iterable[Source], seed: int) -> tuple[Request, ...]:
    """Draws a trace.

    Args:
        sources: Who sends; each has a random stream of its own, so that a trace with one source
            more holds the same requests of the others.
        seed: Equal seeds give equal traces.
    """
    requests = [
        request
        for number, source in enumerate(sources)
        for request in _draw(source, random.Random(f"{seed}/{number}/{source.tenant}"))
    ]
    requests.sort(key=lambda request: request.at_seconds)
    return tuple(replace(request, index=index) for index, request in enumerate(requests))


def _draw(source: Source, rng: random.Random) -> Iterable[Request]:
    """Draws the requests of a source, not numbered yet."""
    shares = [each.share for each in source.classes]
    for at in _arrivals(source, rng):
        each = rng.choices(source.classes, shares)[0]
        prefix = rng.randrange(each.prefix_count) if each.prefix_count else -1
        prefix_tokens = each.prefix_length(prefix) if each.prefix_count else 0
        yield Request(
            index=0,
            at_seconds=round(at, 4),
            kind="chat" if each.output else "embed",
            model=each.model.name,
            prompt_tokens=prefix_tokens + _length(each.prompt, rng),
            output_tokens=_length(each.output, rng) if each.output else 0,
            tenant=source.tenant,
            prefix=prefix,
            prefix_tokens=prefix_tokens,
        )


def _length(lengths: LogNormal, rng: random.Random) -> int:
    drawn = lengths.median * rng.lognormvariate(0.0, lengths.sigma)
    return max(1, min(lengths.maximum, round(drawn)))


def _arrivals(source: Source, rng: random.Random) -> Iterable[float]:
    bursts = source.bursts
    if bursts is None:
        yield from _poisson(source.rate_per_second, source.begin_seconds, source.end_seconds, rng)
        return
    cycle = bursts.on_seconds + bursts.off_seconds
    rate = source.rate_per_second * cycle / bursts.on_seconds
    at = source.begin_seconds
    while at < source.end_seconds:
        end = at + rng.expovariate(1 / bursts.on_seconds)
        yield from _poisson(rate, at, min(end, source.end_seconds), rng)
        at = end + rng.expovariate(1 / bursts.off_seconds)


def _poisson(rate: float, begin: float, end: float, rng: random.Random) -> Iterable[float]:
    at = begin + rng.expovariate(rate)
    while at < end:
        yield at
        at += rng.expovariate(rate)


def write_trace(path: Path, trace: Iterable[Request]) -> None:
    """Writes a trace, a request per line."""
    path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in trace))


def read_trace(path: Path) -> tuple[Request, ...]:
    """Reads what `write_trace` wrote."""
    with path.open() as lines:
        return tuple(Request(**json.loads(line)) for line in lines)
