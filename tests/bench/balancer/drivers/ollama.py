"""A client that speaks Ollama's own protocol, as nginx and HAProxy pass it on."""

import json
from typing import Any

from tests.bench.balancer.drivers.http import HttpSession
from tests.bench.balancer.drivers.port import Failed, Progress
from tests.bench.balancer.traces import Request

__all__ = ["OllamaClient"]


class OllamaClient(HttpSession):
    """Streams `/api/chat` and calls `/api/embed`."""

    async def chat(self, request: Request, system: str, user: str, progress: Progress) -> None:
        """Has a conversation answered."""
        messages = [{"role": "user", "content": user}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        body = {"model": request.model, "messages": messages, "stream": True}
        async with self.post("/api/chat", body) as response:
            last = b""
            rest = b""
            async for data in response.content.iter_any():
                lines = (rest + data).split(b"\n")
                rest = lines.pop()
                if not lines:
                    continue
                last = lines[-1]
                if progress.first_at is not None or any(map(_has_text, lines)):
                    progress.note()
            _finish(last, progress)

    async def embed(self, request: Request, texts: list[str], progress: Progress) -> None:
        """Has texts turned into vectors."""
        body = {"model": request.model, "input": texts}
        async with self.post("/api/embed", body) as response:
            reply = await response.json(content_type=None)
        if len(reply.get("embeddings", ())) != len(texts):
            raise Failed("vectors_missing")
        progress.note()
        progress.token_count = reply.get("prompt_eval_count", 0)


def _has_text(line: bytes) -> bool:
    return bool(_parse(line).get("message", {}).get("content"))


def _finish(last: bytes, progress: Progress) -> None:
    """Checks the last line: only `done` makes an answer complete."""
    final = _parse(last)
    if "error" in final:
        raise Failed("error_in_stream")
    if not final.get("done"):
        raise Failed("stream_broken")
    progress.token_count = final.get("eval_count", 0)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
