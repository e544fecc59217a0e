"""Fields that a newer client knows and this release does not.

Most requests may lack a wish and still be answered. One that says what is read, changed or deleted
would, without a condition that is not understood, concern more than was meant; it is refused.
"""

from collections.abc import Iterator

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from services.common.errors import FieldViolation

__all__ = ["unknown_field_violations"]

_UNKNOWN = "Is a field that this release does not know; leave it out, or update the service."


def unknown_field_violations(message: Message, *, field: str = "") -> Iterator[FieldViolation]:
    """Yields what a message, and any in it, says in fields that are not known.

    Such a field has no name; its number stands at the end of its path, as in `filter.99`.

    Args:
        message: The message as it was received.
        field: Path of the message in the request; empty for the request itself.
    """
    prefix = f"{field}." if field else ""
    unknown = UnknownFieldSet(message)
    for number in sorted({unknown[index].field_number for index in range(len(unknown))}):
        yield FieldViolation(f"{prefix}{number}", _UNKNOWN)
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        path = f"{prefix}{descriptor.name}"
        if descriptor.message_type.GetOptions().map_entry:
            if descriptor.message_type.fields_by_name["value"].message_type is not None:
                for key in sorted(value):
                    yield from unknown_field_violations(value[key], field=f"{path}[{key}]")
        elif isinstance(value, Message):
            yield from unknown_field_violations(value, field=path)
        else:
            for index, each in enumerate(value):
                yield from unknown_field_violations(each, field=f"{path}[{index}]")
