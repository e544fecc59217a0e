"""Checks of request fields that report every problem at once."""

import re
from collections.abc import Iterable

from services.common.errors import FieldViolation, InvalidRequest

__all__ = ["Violations"]

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Violations:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Notes a problem.

        Args:
            field: Path of the field.
            description: The rule and what to do, without the field's name.
        """
        self._found.append(FieldViolation(field, description))

    def extend(self, found: Iterable[FieldViolation]) -> None:
        """Notes problems that another check has found."""
        self._found.extend(found)

    def require(self, condition: bool, field: str, description: str) -> None:  # noqa: FBT001
        """Notes a problem where a condition does not hold."""
        if not condition:
            self.add(field, description)

    def check_text(
        self, field: str, value: str, *, maximum_length: int, minimum_length: int = 0
    ) -> None:
        """Checks the length of a text, in characters; required text must not be blank."""
        if len(value) > maximum_length:
            self.add(field, f"Has {len(value)} characters, at most {maximum_length} are allowed.")
        elif minimum_length and not value.strip():
            self.add(field, "Must be set and hold more than white space.")
        elif len(value) < minimum_length:
            self.add(field, f"Must have at least {minimum_length} characters.")

    def check_plain(self, field: str, value: str) -> None:
        """Checks that a text holds no control characters."""
        if _CONTROL.search(value):
            self.add(field, "Must not hold control characters.")

    def check_range(self, field: str, value: float | None, minimum: float, maximum: float) -> None:
        """Checks a number; None stands for an absent one. NaN is refused."""
        if value is not None and not minimum <= value <= maximum:
            self.add(field, f"Is {value:g}, must be from {minimum:g} to {maximum:g}.")

    def raise_found(self) -> None:
        """Ends the check.

        Raises:
            InvalidRequest: There were problems; what was found twice is told once.
        """
        if self._found:
            raise InvalidRequest(*dict.fromkeys(self._found))
