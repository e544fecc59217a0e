"""Messages as plain values from which keys are made.

Found by reflection, so that a field added to a message takes part in its key without a change
here; fields of a newer proto than ours, which arrive as unknown ones, take part as well. What is
absent has no entry, so that an absent temperature and a temperature of 0 make different keys.
"""

import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

__all__ = ["canonical_fields"]

# No field can have this name.
_UNKNOWN = "?"


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
    if isinstance(value, Message):
        return canonical_fields(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        # 0.0 and -0.0 ask for the same; JSON has no words for what is not finite.
        return value + 0.0 if math.isfinite(value) else str(value)
    plain: object = value
    return plain


def _unknown_values(unknown: Any) -> list[list[object]]:
    # Only the order of equal field numbers means something on the wire.
    values: list[list[object]] = [
        [each.field_number, each.wire_type, _unknown_value(each.data)] for each in unknown
    ]
    return sorted(values, key=_number)


def _unknown_value(data: Any) -> object:
    if isinstance(data, bytes):
        return data.hex()
    return data if isinstance(data, int) else _unknown_values(data)


def _number(entry: list[object]) -> int:
    number = entry[0]
    assert isinstance(number, int)  # noqa: S101 - built so above
    return number
