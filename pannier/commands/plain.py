"""Messages as plain data, for `--json`: names as in the protos, numbers as numbers.

Unlike protobuf's own JSON, 64-bit integers are numbers, and a `Duration` is a number of seconds
under its field's name with `_seconds` added.
"""

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["to_plain"]


def to_plain(message: Message) -> dict[str, Any]:
    """Converts a message; fields that cannot be absent are always there."""
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        name, value = field.name, getattr(message, field.name)
        if field.message_type is not None and field.message_type.full_name == _DURATION:
            name += "_seconds"
        plain[name] = _field(field, value)
    return plain


_DURATION = Duration.DESCRIPTOR.full_name


def _field(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {str(key): _value(entry, each) for key, each in value.items()}
    if field.is_repeated:
        return [_value(field, each) for each in value]
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Duration):
        return value.ToNanoseconds() / 1e9
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Message):
        return to_plain(value)
    if isinstance(value, bytes):
        return value.hex()
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value
