"""The rules of requests; those of what a model is told are in `convert_contents`."""

import re
from collections.abc import Iterable

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.balancer.convert_contents import (
    MAXIMUM_PROMPT_CHARACTERS,
    Found,
    image_violations,
    length_violations,
    object_violations,
)
from services.balancer.core.demand import Priority
from services.balancer.core.names import is_model_name
from services.balancer.core.requests import Thinking
from services.common.errors import FieldViolation

__all__ = [
    "PRIORITIES",
    "RESUME_MODES",
    "THINKING_LEVELS",
    "answer_violations",
    "dimension_violations",
    "model_violations",
    "prompt_violations",
    "resume_violations",
    "routing_violations",
    "text_violations",
]

MAXIMUM_SYSTEM_CHARACTERS = 100_000
MAXIMUM_TEXTS = 512
MAXIMUM_TEXT_CHARACTERS = 100_000
MAXIMUM_TOP_LOGPROBS = 20

THINKING_LEVELS = {
    generation_pb2.THINKING_LEVEL_UNSPECIFIED: Thinking.DEFAULT,
    generation_pb2.THINKING_LEVEL_OFF: Thinking.OFF,
    generation_pb2.THINKING_LEVEL_ON: Thinking.ON,
    generation_pb2.THINKING_LEVEL_LOW: Thinking.LOW,
    generation_pb2.THINKING_LEVEL_MEDIUM: Thinking.MEDIUM,
    generation_pb2.THINKING_LEVEL_HIGH: Thinking.HIGH,
    generation_pb2.THINKING_LEVEL_MAX: Thinking.MAX,
}
PRIORITIES = {
    pb.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    pb.PRIORITY_SYSTEM: Priority.SYSTEM,
    pb.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    pb.PRIORITY_BATCH: Priority.BATCH,
}
RESUME_MODES = {
    pb.RESUME_MODE_UNSPECIFIED: False,
    pb.RESUME_MODE_NEVER: False,
    pb.RESUME_MODE_ONCE: True,
}

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
# Of google.protobuf.Duration.
_LONGEST_SECONDS = 315_576_000_000


def model_violations(model: str) -> Found:
    """Checks the name of a model."""
    if not model:
        yield FieldViolation("model", "Must name a model; ListModels shows those there are.")
    elif not is_model_name(model):
        yield FieldViolation("model", 'Must be a model name such as "llama3.2" or "llama3.2:3b".')


def prompt_violations(message: pb.GenerateRequest) -> Found:
    """Checks what a model is given to continue."""
    yield from length_violations("prompt", message.prompt, MAXIMUM_PROMPT_CHARACTERS)
    yield from length_violations("system", message.system, MAXIMUM_SYSTEM_CHARACTERS, minimum=0)
    yield from length_violations("suffix", message.suffix, MAXIMUM_PROMPT_CHARACTERS, minimum=0)
    if message.raw and message.system:
        yield FieldViolation(
            "system", "Must not be set with raw, which goes without the template that places it."
        )
    yield from image_violations([("images", message.images)])


def answer_violations(message: pb.GenerateRequest | pb.ChatRequest) -> Found:
    """Checks what is asked of the answer: its form, thoughts before it, probabilities after it."""
    if message.HasField("format"):
        kind = message.format.WhichOneof("kind")
        if kind == "json_schema":
            yield from object_violations("format.json_schema", message.format.json_schema)
        elif not message.format.json:
            yield FieldViolation("format", "Must have json, which must be true, or json_schema.")
    if message.thinking not in THINKING_LEVELS:
        yield FieldViolation("thinking", f"Must be a ThinkingLevel, is {message.thinking}.")
    if not 0 <= message.top_logprob_count <= MAXIMUM_TOP_LOGPROBS:
        yield FieldViolation(
            "top_logprob_count",
            f"Must be from 0 to {MAXIMUM_TOP_LOGPROBS}, is {message.top_logprob_count}.",
        )


def text_violations(texts: Iterable[str]) -> Found:
    """Checks texts to be embedded."""
    count = 0
    for index, text in enumerate(texts):
        count += 1
        yield from length_violations(f"texts[{index}]", text, MAXIMUM_TEXT_CHARACTERS)
    if not 1 <= count <= MAXIMUM_TEXTS:
        yield FieldViolation("texts", f"Must be 1 to {MAXIMUM_TEXTS} texts, there are {count}.")


def dimension_violations(message: pb.EmbedRequest) -> Found:
    """Checks the length that vectors are to have."""
    if message.HasField("dimension") and message.dimension < 1:
        yield FieldViolation("dimension", f"Must be at least 1, is {message.dimension}.")


def routing_violations(routing: pb.RoutingOptions) -> Found:
    """Checks how a request is to be treated."""
    if routing.priority not in PRIORITIES:
        yield FieldViolation("routing.priority", f"Must be a Priority, is {routing.priority}.")
    if routing.model_digest and not _DIGEST.fullmatch(routing.model_digest):
        yield FieldViolation(
            "routing.model_digest",
            f"Must be 64 hexadecimal digits, has {len(routing.model_digest)} characters.",
        )
    if routing.resume not in RESUME_MODES:
        yield FieldViolation("routing.resume", f"Must be a ResumeMode, is {routing.resume}.")
    if routing.HasField("maximum_wait"):
        wait = routing.maximum_wait
        if not (0 <= wait.seconds <= _LONGEST_SECONDS and 0 <= wait.nanos < 1_000_000_000):
            yield FieldViolation("routing.maximum_wait", "Must be a valid Duration above 0.")
        elif not wait.seconds and not wait.nanos:
            yield FieldViolation("routing.maximum_wait", "Must be above 0, is 0.")


def resume_violations(routing: pb.RoutingOptions, *, structured: bool) -> Found:
    """Checks that an answer which is to be resumed can be.

    Args:
        routing: How the request is to be treated.
        structured: Whether the answer may call tools or must have a format.
    """
    if structured and RESUME_MODES.get(routing.resume):
        yield FieldViolation(
            "routing.resume",
            "Must not be ONCE with tools or a format: these cannot be gone on from.",
        )
