"""The rules of what a model is told: messages, tools, pictures, texts."""

from collections.abc import Iterable, Iterator

import orjson

from pannier.common.v1 import generation_pb2
from services.balancer.core.requests import Role
from services.common.errors import FieldViolation

__all__ = [
    "MAXIMUM_PROMPT_CHARACTERS",
    "ROLES",
    "Found",
    "conversation_violations",
    "image_violations",
    "length_violations",
    "object_violations",
    "tool_violations",
]

MAXIMUM_PROMPT_CHARACTERS = 1_000_000
MAXIMUM_MESSAGES = 256
MAXIMUM_IMAGES = 16
MAXIMUM_IMAGES_BYTES = 20 * 1024 * 1024
MAXIMUM_TOOLS = 128
MAXIMUM_TOOL_NAME_CHARACTERS = 128

ROLES = {
    generation_pb2.CHAT_ROLE_SYSTEM: Role.SYSTEM,
    generation_pb2.CHAT_ROLE_USER: Role.USER,
    generation_pb2.CHAT_ROLE_ASSISTANT: Role.ASSISTANT,
    generation_pb2.CHAT_ROLE_TOOL: Role.TOOL,
}

# The first bytes of PNG and of JPEG files.
_IMAGE_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")

Found = Iterator[FieldViolation]


def conversation_violations(messages: Iterable[generation_pb2.ChatMessage]) -> Found:
    """Checks a conversation."""
    messages = list(messages)
    characters = sum(map(_character_count, messages))
    if not 1 <= len(messages) <= MAXIMUM_MESSAGES:
        yield FieldViolation(
            "messages", f"Must be 1 to {MAXIMUM_MESSAGES} messages, there are {len(messages)}."
        )
    elif characters > MAXIMUM_PROMPT_CHARACTERS:
        yield _too_long("messages", characters)
    else:
        for index, message in enumerate(messages):
            yield from _message_violations(f"messages[{index}]", message)
        yield from image_violations(
            [(f"messages[{index}].images", each.images) for index, each in enumerate(messages)]
        )


def _message_violations(field: str, message: generation_pb2.ChatMessage) -> Found:
    if message.role not in ROLES:
        yield FieldViolation(
            f"{field}.role", f"Must be SYSTEM, USER, ASSISTANT or TOOL, is {message.role}."
        )
    if not (message.content or message.images or message.tool_calls):
        yield FieldViolation(
            f"{field}.content", "Must not be empty, unless there are images or tool calls."
        )
    if message.role != generation_pb2.CHAT_ROLE_ASSISTANT:
        for name in ("thinking", "tool_calls"):
            if getattr(message, name):
                yield FieldViolation(f"{field}.{name}", "Must be set with the role ASSISTANT only.")
    if message.role != generation_pb2.CHAT_ROLE_TOOL:
        for name in ("tool_name", "tool_call_id"):
            if getattr(message, name):
                yield FieldViolation(f"{field}.{name}", "Must be set with the role TOOL only.")
    for index, call in enumerate(message.tool_calls):
        yield from length_violations(
            f"{field}.tool_calls[{index}].name", call.name, MAXIMUM_TOOL_NAME_CHARACTERS
        )
        yield from object_violations(
            f"{field}.tool_calls[{index}].arguments_json", call.arguments_json
        )


def _character_count(message: generation_pb2.ChatMessage) -> int:
    arguments = sum(len(call.arguments_json) for call in message.tool_calls)
    return len(message.content) + len(message.thinking) + arguments


def tool_violations(tools: Iterable[generation_pb2.ToolDefinition]) -> Found:
    """Checks the tools that a model may ask for."""
    tools = list(tools)
    characters = sum(len(each.description) + len(each.parameters_json_schema) for each in tools)
    if len(tools) > MAXIMUM_TOOLS:
        yield FieldViolation(
            "tools", f"Must be at most {MAXIMUM_TOOLS} tools, there are {len(tools)}."
        )
    elif characters > MAXIMUM_PROMPT_CHARACTERS:
        yield _too_long("tools", characters)
    else:
        for index, tool in enumerate(tools):
            field = f"tools[{index}]"
            yield from length_violations(f"{field}.name", tool.name, MAXIMUM_TOOL_NAME_CHARACTERS)
            yield from object_violations(
                f"{field}.parameters_json_schema", tool.parameters_json_schema
            )


def _too_long(field: str, characters: int) -> FieldViolation:
    return FieldViolation(
        field,
        f"Must have at most {MAXIMUM_PROMPT_CHARACTERS} characters in all, has {characters}.",
    )


def image_violations(fields: Iterable[tuple[str, Iterable[bytes]]]) -> Found:
    """Checks all images of a request.

    Args:
        fields: Path of each field with images, and the images.
    """
    last_field, count, size = "images", 0, 0
    for field, images in fields:
        for index, image in enumerate(images):
            last_field, count, size = field, count + 1, size + len(image)
            if not image.startswith(_IMAGE_BEGINNINGS):
                yield FieldViolation(
                    f"{field}[{index}]", f"Must be a PNG or JPEG file, begins {image[:4].hex()!r}."
                )
    if count > MAXIMUM_IMAGES:
        yield FieldViolation(
            last_field, f"Must be at most {MAXIMUM_IMAGES} images per request, there are {count}."
        )
    if size > MAXIMUM_IMAGES_BYTES:
        yield FieldViolation(
            last_field,
            f"Must be images of at most {MAXIMUM_IMAGES_BYTES} bytes per request, have {size}.",
        )


def object_violations(field: str, text: str) -> Found:
    """Checks a text that must be a JSON object of at most a million characters."""
    if len(text) > MAXIMUM_PROMPT_CHARACTERS:
        yield _too_long(field, len(text))
        return
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        yield FieldViolation(field, f"Must be a JSON object: {error}.")
        return
    if not isinstance(value, dict):
        yield FieldViolation(field, f"Must be a JSON object, is {text[:20]!r}.")


def length_violations(field: str, text: str, maximum: int, *, minimum: int = 1) -> Found:
    """Checks the length of a text, in characters."""
    if not minimum <= len(text) <= maximum:
        yield FieldViolation(
            field, f"Must have {minimum} to {maximum} characters, has {len(text)}."
        )
