"""What a stand-in can be told."""

from dataclasses import dataclass

from services.standin.core.catalogue import Speed
from services.standin.core.profile import ModelSpec
from services.standin.scheduler import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one server.

    Args:
        name: What it calls itself on the console.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        tokens_per_second: Rate of an answer, for models that have none of their own.
        prefill_tokens_per_second: Rate at which a prompt is read, for the same models.
        load_seconds: How long loading such a model takes.
        speed: How many times as fast it computes; loading gains the root of it.
        time_scale: How many times quicker everything is, except keep-alive and faults.
        contention: With k active requests each works at 1 / k^contention of its rate.
        beat_seconds: How often a stream is written to, if tokens come more often than that.
        num_parallel: Requests that a chat model works on at a time.
        max_queue: Requests that may wait for a model to be loaded.
        max_loaded_models: Models loaded at the same time.
        keep_alive_seconds: How long an idle model stays loaded.
        memory_bytes: What the loaded models may take together; 0 is any amount.
        context_tokens: Context length of requests that name none.
        load_timeout_seconds: How long a load that makes no progress goes on.
        prompt_cache_tokens: Tokens of saved prompts that a loaded model keeps beside its slots.
        pull_bytes_per_second: Rate at which a model is pulled.
        builtin_models: Whether it holds the two models that are not synthetic.
        models: Its synthetic models.
    """

    name: str = "standin-0"
    host: str = "127.0.0.1"
    port: int = 11500
    tokens_per_second: float = 200.0
    prefill_tokens_per_second: float = 20_000.0
    load_seconds: float = 0.2
    speed: float = 1.0
    time_scale: float = 1.0
    contention: float = 1.0
    beat_seconds: float = 0.005
    num_parallel: int = 1
    max_queue: int = 512
    max_loaded_models: int = 3
    keep_alive_seconds: float = 300.0
    memory_bytes: int = 0
    context_tokens: int = 4096
    load_timeout_seconds: float = 300.0
    prompt_cache_tokens: int = 65_536
    pull_bytes_per_second: float = 50_000_000.0
    builtin_models: bool = True
    models: tuple[ModelSpec, ...] = ()

    @property
    def default_speed(self) -> Speed:
        """The speed of models that have none of their own, before it is scaled."""
        return Speed(
            load_seconds=self.load_seconds,
            prefill_tokens_per_second=self.prefill_tokens_per_second,
            decode_tokens_per_second=self.tokens_per_second,
        )

    @property
    def limits(self) -> Limits:
        """What the scheduler has to keep to."""
        return Limits(
            num_parallel=self.num_parallel,
            max_queue=self.max_queue,
            max_loaded_models=self.max_loaded_models,
            keep_alive_seconds=self.keep_alive_seconds,
            memory_bytes=self.memory_bytes,
            context_tokens=self.context_tokens,
            saved_prompt_tokens=self.prompt_cache_tokens,
        )
