"""Messages as plain values from which keys are made.

Found by reflection, so that a field added to a message takes part in its key without a change
here; fields of a newer proto than ours, which arrive as unknown ones, take part as well. What is
absent has no entry, so that an absent temperature and a temperature of 0 make different keys.

Left out are only the few options of which it is known that they cannot change an output. Texts
count as they were sent, byte by byte.
"""

import hashlib
import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.unknown_fields import UnknownFieldSet

__all__ = ["IRRELEVANT_OPTIONS", "canonical_fields"]

IRRELEVANT_OPTIONS = frozenset(
    {
        "keep_alive",
        "main_gpu",
        "num_batch",
        "num_gpu",
        "num_thread",
        "stream",
        "use_mmap",
    }
)
"""Options of Ollama that say how and where an output is made and not what it is. They are left out
of free-form options, at the top and in their `options`; what is not listed counts."""

# No field can have this name.
_UNKNOWN = "?"
_OPTIONS = "options"
_NOTHING: frozenset[str] = frozenset()
# Images may have megabytes; collisions of 256 bits are not found.
_DIGEST_BYTES = 32


def canonical_fields(message: Message) -> dict[str, object]:
    """Returns everything a message says, as values that JSON can hold.

    Two messages that say the same give equal results. A sub-message that is present but empty is
    told from an absent one: it may mean something, and a needless miss is the smaller harm.
    """
    fields: dict[str, object] = {
        field.name: _field_value(field, value) for field, value in message.ListFields()
    }
    unknown = UnknownFieldSet(message)
    if len(unknown):
        fields[_UNKNOWN] = _unknown_values(unknown)
    return fields


def _field_value(field: FieldDescriptor, value: Any) -> object:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(key): _value(value[key]) for key in value}
    if field.is_repeated:
        return [_value(each) for each in value]
    return _value(value)


def _value(value: Any) -> object:
    if isinstance(value, Struct):
        return _struct(value, leave_out=IRRELEVANT_OPTIONS)
    if isinstance(value, Message):
        return canonical_fields(value)
    if isinstance(value, bytes):
        return _digest(value)
    if isinstance(value, float):
        # 0.0 and -0.0 ask for the same; JSON has no words for what is not finite.
        return value + 0.0 if math.isfinite(value) else str(value)
    plain: object = value
    return plain


def _struct(struct: Struct, *, leave_out: frozenset[str]) -> dict[str, object]:
    """Returns free-form options; null stands for none."""
    return {
        name: _free_form(value, leave_out=leave_out if name == _OPTIONS else _NOTHING)
        for name, value in struct.fields.items()
        if name not in leave_out and value.WhichOneof("kind") not in (None, "null_value")
    }


def _free_form(value: Value, *, leave_out: frozenset[str]) -> object:
    """Returns a free-form value under the name of its kind: the text "nan" is not a number."""
    kind = value.WhichOneof("kind")
    match kind:
        case "struct_value":
            return {kind: _struct(value.struct_value, leave_out=leave_out)}
        case "list_value":
            listed = value.list_value.values
            return {kind: [_free_form(each, leave_out=_NOTHING) for each in listed]}
        case None:
            return {}
        case _:
            return {kind: _value(getattr(value, kind))}


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _unknown_values(unknown: Any) -> list[list[object]]:
    # Only the order of equal field numbers means something on the wire.
    values: list[list[object]] = [
        [each.field_number, each.wire_type, _unknown_value(each.data)] for each in unknown
    ]
    return sorted(values, key=_number)


def _unknown_value(data: Any) -> object:
    if isinstance(data, bytes):
        return _digest(data)
    return data if isinstance(data, int) else _unknown_values(data)


def _number(entry: list[object]) -> int:
    number = entry[0]
    assert isinstance(number, int)  # noqa: S101 - built so above
    return number
