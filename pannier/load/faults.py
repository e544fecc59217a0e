"""What can be made to go wrong, by the names that scenarios use.

Most of it is ordered from stand-in Ollama servers, as rules of their `/standin/faults`; `pause` and
`stutter` stop a process of the local stack for a while.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["KINDS", "PAUSE", "RANGES", "STUTTER", "Fault", "FaultKind", "standin_rules"]

PAUSE = "pause"
"""Kind of the fault that stops a process."""

STUTTER = "stutter"
"""Kind of the fault that stops a process for moments, again and again."""

_MEMORY_TEXT = "model requires more system memory (21.5 GiB) than is available (3.1 GiB)"

RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        # An HTTP status with a text.
        "status": (400, 599),
        "seconds": (0.001, 86_400),
        "every": (0.001, 86_400),
        "factor": (0.001, 1e6),
        "dimensions": (1, 65_536),
    }
)
"""What numbers of options may be, where they have bounds of their own."""

Rules = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that is to go wrong.

    Attributes:
        kind: One of `KINDS`.
        options: What the kind needs, with its defaults filled in.
        limits: Which requests are concerned, for the kinds that stand-ins carry out: `path`,
            `model`, `probability`, `seed`, `count`.
        backends: How many of the backends are concerned, the first by name; None for all.
    """

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    backends: int | None = None

    @property
    def process(self) -> str:
        """The process that is stopped; empty where the fault is another."""
        return str(self.options["process"]) if self.kind in (PAUSE, STUTTER) else ""

    def describe(self) -> str:
        """Says in a few words what goes wrong."""
        shown = {**self.options, **self.limits}
        values = ", ".join(f"{name}={value}" for name, value in shown.items() if value != "")
        where = "" if self.process else f" at {self.backends or 'all'} backends"
        return f"{self.kind}{where}" + (f" ({values})" if values else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """A kind of fault.

    Attributes:
        about: What happens.
        defaults: Its options; None for one that must be given. The type is that of the default,
            or text.
        rules: Makes the stand-in's rules of the options; None for what no stand-in does.
    """

    about: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    rules: Callable[[Mapping[str, Any]], Rules] | None = None


def _rule(**fields: Any) -> Callable[[Mapping[str, Any]], Rules]:
    return lambda _: [dict(fields)]


def _renamed(target: str, source: str) -> Callable[[Mapping[str, Any]], Rules]:
    return lambda options: [{target: options[source]}]


_TOKENS = {"after_tokens": 3}

KINDS: Mapping[str, FaultKind] = MappingProxyType(
    {
        "status": FaultKind(
            about="answers with an HTTP status at once",
            defaults={"status": 500, "message": "a fault that was ordered"},
            rules=lambda options: [dict(options)],
        ),
        "hang": FaultKind(about="holds the slot and never answers", rules=_rule(hang=True)),
        "slow": FaultKind(
            about="waits before the first token",
            defaults={"seconds": 5.0},
            rules=_renamed("delay_seconds", "seconds"),
        ),
        "slowdown": FaultKind(
            about="computes so many times slower",
            defaults={"factor": 10.0},
            rules=_renamed("slowdown", "factor"),
        ),
        "silent": FaultKind(
            about="accepts connections and answers nothing", rules=_rule(no_answer=True)
        ),
        "refuse": FaultKind(about="refuses connections", rules=_rule(refuse=True)),
        "drop": FaultKind(
            about="cuts the connection within an answer",
            defaults=_TOKENS,
            rules=_renamed("drop_after_tokens", "after_tokens"),
        ),
        "cut": FaultKind(
            about="cuts it in the middle of a chunk",
            defaults=_TOKENS,
            rules=_renamed("cut_chunk_after_tokens", "after_tokens"),
        ),
        "error-line": FaultKind(
            about="fails in-band within an answer",
            defaults=_TOKENS,
            rules=_renamed("error_line_after_tokens", "after_tokens"),
        ),
        "crash": FaultKind(
            about="loses the model's process within an answer",
            defaults=_TOKENS,
            rules=_renamed("kill_child_after_tokens", "after_tokens"),
        ),
        "malformed-line": FaultKind(
            about="sends a line that is no JSON",
            defaults=_TOKENS,
            rules=_renamed("garbage_after_tokens", "after_tokens"),
        ),
        "no-done": FaultKind(about="ends without the final line", rules=_rule(no_done=True)),
        "out-of-memory": FaultKind(
            about="unloads its models, and fails to load any for want of memory",
            rules=lambda _: [{"load_fails": True, "message": _MEMORY_TEXT}, {"kill_child": True}],
        ),
        "absent-model": FaultKind(about="does not have the model", rules=_rule(absent=True)),
        "wrong-model": FaultKind(
            about="names another model in its answers",
            defaults={"name": "impostor:latest"},
            rules=_renamed("echo_model", "name"),
        ),
        "wrong-digest": FaultKind(
            about="lists the model with another digest, where `path` is `/api/ps` only in memory",
            defaults={"digest": "f" * 64},
            rules=_renamed("digest", "digest"),
        ),
        "wrong-dimensions": FaultKind(
            about="sends vectors of another length",
            defaults={"dimensions": 128},
            rules=_renamed("embedding_dimensions", "dimensions"),
        ),
        PAUSE: FaultKind(
            about="a process of the local stack stops until the phase is over",
            defaults={"process": None},
        ),
        STUTTER: FaultKind(
            about="a process of the local stack stops for `seconds`, once in `every` seconds",
            defaults={"process": None, "seconds": 0.5, "every": 5.0},
        ),
    }
)
"""The kinds of faults by name."""


def standin_rules(fault: Fault, *, for_seconds: float) -> Rules:
    """Returns the rules that a stand-in is to be given.

    Args:
        fault: What is to go wrong; no pause.
        for_seconds: After how long the rules end by themselves, whatever becomes of us.

    Raises:
        ValueError: No stand-in does that.
    """
    make = KINDS[fault.kind].rules
    if make is None:
        raise ValueError(f"no stand-in does {fault.kind}")
    rules = []
    for rule in make(fault.options):
        if "kill_child" in rule:
            # Done at once, to all models or one.
            model = fault.limits.get("model")
            rules.append(rule | ({"model": model} if model else {}))
        else:
            rules.append({**rule, **fault.limits, "for_seconds": for_seconds})
    return rules
