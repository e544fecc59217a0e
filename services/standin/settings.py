"""What a stand-in can be told."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one server.

    Args:
        name: What it calls itself on the console.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        tokens_per_second: Rate of an answer, per request.
        prefill_tokens_per_second: Rate at which a prompt is read.
        load_seconds: How long loading a model takes.
        num_parallel: Requests that the chat model works on at a time.
        max_queue: Requests that may wait for a model to be loaded.
        max_loaded_models: Models loaded at the same time.
        keep_alive_seconds: How long an idle model stays loaded.
    """

    name: str = "standin-0"
    host: str = "127.0.0.1"
    port: int = 11500
    tokens_per_second: float = 200.0
    prefill_tokens_per_second: float = 20_000.0
    load_seconds: float = 0.2
    num_parallel: int = 1
    max_queue: int = 512
    max_loaded_models: int = 3
    keep_alive_seconds: float = 300.0
