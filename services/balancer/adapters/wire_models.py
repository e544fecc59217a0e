"""Loading, trying, unloading and downloading models at an Ollama server."""

from collections.abc import Iterator

import orjson

from services.balancer.adapters.wire import (
    LineSplitter,
    broken_reply,
    check_model,
    count,
    parse_line,
    parse_object,
    seconds,
)
from services.balancer.adapters.wire_requests import without_absent
from services.balancer.core.requests import PullProgress

__all__ = [
    "PullReader",
    "check_completed",
    "load_body",
    "load_seconds",
    "probe_body",
    "pull_body",
    "unload_body",
]

_PROBE_PROMPT = "a"


def load_body(
    model_name: str,
    *,
    embedding: bool,
    keep_alive: str | int | None,
    context_token_count: int | None,
) -> bytes:
    """Writes a body that loads a model and asks nothing of it.

    Args:
        model_name: The model by the server's own name for it.
        embedding: Whether it goes to `/api/embed` rather than to `/api/generate`, which each
            refuse the models of the other.
        keep_alive: How long the model stays loaded; None for the server's own default.
        context_token_count: Context window to load it with; None for the server's own default.
    """
    work = {"input": []} if embedding else {"prompt": "", "stream": False}
    options = without_absent({"num_ctx": context_token_count})
    return orjson.dumps(
        {"model": model_name}
        | work
        | without_absent({"keep_alive": keep_alive, "options": options or None})
    )


def load_seconds(body: bytes, model_name: str) -> float:
    """Reads from the reply to a load what it took; 0 where it does not tell, as of 0.33.

    Args:
        body: The reply.
        model_name: The model that was to be loaded.

    Raises:
        AttemptFailed: It makes no sense, or is of another model.
    """
    values = parse_object(body)
    check_model(values, model_name)
    return seconds(values, "load_duration")


def unload_body(model_name: str) -> bytes:
    """Writes a body for `/api/generate` that unloads a model of any kind when it is idle.

    The server looks at this before it looks at what the model is capable of.
    """
    return orjson.dumps({"model": model_name, "prompt": "", "stream": False, "keep_alive": 0})


def probe_body(model_name: str, *, context_token_count: int | None) -> bytes:
    """Writes a body for `/api/generate` that asks for one token.

    Not as a stream: a stream that is given up may keep its slot for ever (ollama issue 17131).

    Args:
        model_name: The model by the server's own name for it.
        context_token_count: Context window that it was loaded with, lest it be loaded anew; None
            where it was loaded with the server's own default.
    """
    return orjson.dumps(
        {
            "model": model_name,
            "prompt": _PROBE_PROMPT,
            "raw": True,
            "stream": False,
            "options": without_absent({"num_predict": 1, "num_ctx": context_token_count}),
        }
    )


def check_completed(body: bytes, model_name: str) -> None:
    """Reads a reply that came in one piece, of which only matters that it is complete.

    Args:
        body: The reply.
        model_name: The model that was asked for.

    Raises:
        AttemptFailed: It is not, or is of another model.
    """
    values = parse_object(body)
    check_model(values, model_name)
    if values.get("done") is not True:
        raise broken_reply("the reply does not say that it is complete")


def pull_body(model_name: str) -> bytes:
    """Writes the body of `/api/pull`."""
    return orjson.dumps({"model": model_name, "stream": True})


class PullReader:
    """Reads the stream of a download."""

    def __init__(self) -> None:
        self._splitter = LineSplitter()

    def feed(self, data: bytes) -> Iterator[PullProgress]:
        """Takes what came next.

        Raises:
            AttemptFailed: The reply says that the download failed, or makes no sense.
        """
        return map(_progress, self._splitter.feed(data))

    def end(self) -> Iterator[PullProgress]:
        """Takes the end of the reply."""
        return map(_progress, self._splitter.rest())


def _progress(line: bytes) -> PullProgress:
    values = parse_line(line)
    return PullProgress(
        status=str(values.get("status", "")),
        digest=str(values.get("digest", "")),
        completed_bytes=count(values, "completed"),
        total_bytes=count(values, "total"),
    )
