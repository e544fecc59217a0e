"""A client that speaks OpenAI's protocol, as LiteLLM's proxy does."""

import json

from tests.bench.balancer.drivers.http import HttpSession
from tests.bench.balancer.drivers.port import Failed, Progress
from tests.bench.balancer.traces import Request

__all__ = ["OpenAIClient"]

_DATA = b"data: "


class OpenAIClient(HttpSession):
    """Streams `/v1/chat/completions` and calls `/v1/embeddings`."""

    async def chat(self, request: Request, system: str, user: str, progress: Progress) -> None:
        """Has a conversation answered."""
        messages = [{"role": "user", "content": user}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        body = {"model": request.model, "messages": messages, "stream": True}
        async with self.post("/v1/chat/completions", body) as response:
            done = False
            rest = b""
            async for data in response.content.iter_any():
                lines = (rest + data).split(b"\n")
                rest = lines.pop()
                events = [line[len(_DATA) :] for line in lines if line.startswith(_DATA)]
                if not events:
                    continue
                done = done or events[-1].strip() == b"[DONE]"
                if any(event.startswith(b'{"error"') for event in events):
                    raise Failed("error_in_stream")
                if progress.first_at is not None or any(map(_has_text, events)):
                    progress.note()
                    progress.token_count += len(events)
            if not done:
                raise Failed("stream_broken")
            if progress.first_at is None:
                raise Failed("answer_empty")

    async def embed(self, request: Request, texts: list[str], progress: Progress) -> None:
        """Has texts turned into vectors."""
        body = {"model": request.model, "input": texts, "encoding_format": "float"}
        async with self.post("/v1/embeddings", body) as response:
            reply = await response.json(content_type=None)
        if len(reply.get("data", ())) != len(texts):
            raise Failed("vectors_missing")
        progress.note()
        progress.token_count = reply.get("usage", {}).get("prompt_tokens", 0)


def _has_text(event: bytes) -> bool:
    if not event.startswith(b"{"):
        return False
    choices = json.loads(event).get("choices") or [{}]
    return bool((choices[0].get("delta") or {}).get("content"))
