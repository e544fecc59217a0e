"""The fleets and models of the benchmark, and how much work a fleet can do.

Speeds, room for models, rates and load times are those of the simulation that the goals come from.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "CHAT_A",
    "CHAT_B",
    "EMBED",
    "EQUAL_HOSTS",
    "REFERENCE_HOSTS",
    "Host",
    "LogNormal",
    "ModelProfile",
    "capacity",
    "profile_toml",
    "work_seconds",
]


@dataclass(frozen=True, slots=True)
class Host:
    """One Ollama server.

    Attributes:
        speed: How fast it computes and loads, as a multiple of the reference host.
        model_room_count: Models that fit into its memory at the same time.
    """

    speed: float
    model_room_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """One model, as it runs on a host of speed 1.

    Attributes:
        name: Name with tag.
        capability: `completion` or `embedding`.
        size_bytes: Size on disk.
        load_seconds: What loading it takes.
        prefill_tokens_per_second: Rate at which prompts are read.
        decode_tokens_per_second: Rate of an answer.
        context_tokens: Longest context.
        embedding_length: Length of its vectors; 0 where it has none.
    """

    name: str
    capability: str
    size_bytes: int
    load_seconds: float
    prefill_tokens_per_second: float = 2500.0
    decode_tokens_per_second: float = 60.0
    context_tokens: int = 16_384
    embedding_length: int = 0


CHAT_A = ModelProfile(
    name="chat-a:latest", capability="completion", size_bytes=5 * 10**9, load_seconds=6.0
)
CHAT_B = ModelProfile(
    name="chat-b:latest", capability="completion", size_bytes=10 * 10**9, load_seconds=12.0
)
EMBED = ModelProfile(
    name="embed:latest",
    capability="embedding",
    size_bytes=3 * 10**8,
    load_seconds=1.5,
    context_tokens=2048,
    embedding_length=384,
)

REFERENCE_HOSTS = (
    Host(1.0, 2),
    Host(1.0, 2),
    Host(0.8, 2),
    Host(0.6, 2),
    Host(0.6, 1),
    Host(0.35, 1),
    Host(0.35, 1),
    Host(0.15, 1),
)
EQUAL_HOSTS = (Host(1.0, 2),) * 8


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A log-normal distribution of token counts.

    Attributes:
        median: Its median.
        sigma: Standard deviation of the logarithm.
        maximum: Larger values are cut to this.
    """

    median: float
    sigma: float
    maximum: int

    @property
    def mean(self) -> float:
        """Mean of the cut distribution."""
        mu, cut = math.log(self.median), math.log(self.maximum)
        below = _normal_cdf((cut - mu - self.sigma**2) / self.sigma)
        above = 1 - _normal_cdf((cut - mu) / self.sigma)
        return math.exp(mu + self.sigma**2 / 2) * below + self.maximum * above


def _normal_cdf(value: float) -> float:
    return (1 + math.erf(value / math.sqrt(2))) / 2


def work_seconds(model: ModelProfile, prompt_tokens: float, output_tokens: float) -> float:
    """Returns what a request takes on an idle host of speed 1 that has the model loaded."""
    return (
        prompt_tokens / model.prefill_tokens_per_second
        + output_tokens / model.decode_tokens_per_second
    )


def capacity(hosts: Sequence[Host]) -> float:
    """Returns seconds of work done per second, one request per host at a time, nothing loaded."""
    return sum(host.speed for host in hosts)


def profile_toml(models: Sequence[ModelProfile]) -> str:
    """Writes the models as the stand-in's profile file."""
    lines = ["builtin_models = false"]
    for model in models:
        lines += [
            "",
            "[[models]]",
            f'name = "{model.name}"',
            f'capability = "{model.capability}"',
            f"size_bytes = {model.size_bytes}",
            f"load_seconds = {model.load_seconds}",
            f"prefill_tokens_per_second = {model.prefill_tokens_per_second}",
            f"decode_tokens_per_second = {model.decode_tokens_per_second}",
            f"context_tokens = {model.context_tokens}",
        ]
        if model.embedding_length:
            lines.append(f"embedding_length = {model.embedding_length}")
    return "\n".join(lines) + "\n"
