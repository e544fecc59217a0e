"""From messages that say which documents count to values of the core, with the checks of them."""

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pannier.rag.v1 import filter_pb2 as pb
from services.common.unknown_fields import unknown_field_violations
from services.common.validation import Violations
from services.rag.core.filters import DocumentFilter, NumberRange
from services.rag.times_convert import moment_of

__all__ = ["filter_of"]

_MOST_DOCUMENT_IDS = 1000
_MOST_TAGS = 64
_MOST_CONDITIONS = 32
_MOST_VALUES = 100
_LANGUAGE = re.compile(r"[a-z]{2}")


def filter_of(
    message: pb.DocumentFilter, violations: Violations, *, field: str, searched: bool = False
) -> DocumentFilter:
    """Reads which documents count.

    Args:
        message: The filter; one that was never set leaves all documents.
        violations: Receives what is wrong.
        field: Path of the filter in the request.
        searched: Whether the whole request was searched for fields that are not known.
    """
    if not searched:
        violations.extend(unknown_field_violations(message, field=field))
    check = _Texts(violations, field)
    its_metadata = _Metadata(message.metadata, violations, field=f"{field}.metadata")
    violations.check_text(f"{field}.source_prefix", message.source_prefix, maximum_length=2000)
    violations.check_plain(f"{field}.source_prefix", message.source_prefix)
    result = DocumentFilter(
        document_ids=check.read("document_ids", message.document_ids, _MOST_DOCUMENT_IDS, 512),
        any_tags=check.read("any_tags", message.any_tags, _MOST_TAGS, 64),
        all_tags=check.read("all_tags", message.all_tags, _MOST_TAGS, 64),
        source_prefix=message.source_prefix,
        metadata_in=its_metadata.values,
        metadata_ranges=its_metadata.ranges,
        metadata_present=tuple(its_metadata.present),
        updated_from=_time(message, "updated_from", violations, field),
        updated_before=_time(message, "updated_before", violations, field),
        languages=check.read("languages", message.languages, _MOST_CONDITIONS, 2),
        media_types=check.read("media_types", message.media_types, _MOST_CONDITIONS, 200),
    )
    for index, language in enumerate(message.languages):
        violations.require(
            _LANGUAGE.fullmatch(language) is not None,
            f"{field}.languages[{index}]",
            "Must be an ISO 639-1 code such as 'en'.",
        )
    return result


class _Texts:
    """Reads lists of texts."""

    def __init__(self, violations: Violations, field: str) -> None:
        self._violations = violations
        self._field = field

    def read(
        self, name: str, values: Iterable[str], most: int, maximum_length: int
    ) -> tuple[str, ...]:
        """Returns the texts, each once, in the order of the alphabet."""
        found = tuple(values)
        path = f"{self._field}.{name}"
        self._violations.require(
            len(found) <= most, path, f"Has {len(found)} values, at most {most} are allowed."
        )
        for index, value in enumerate(found[:most]):
            self._violations.check_text(
                f"{path}[{index}]", value, minimum_length=1, maximum_length=maximum_length
            )
            self._violations.check_plain(f"{path}[{index}]", value)
        return tuple(sorted(set(found)))


class _Metadata:
    """Reads conditions on metadata; all of the conditions on one key have to hold."""

    def __init__(
        self, conditions: Iterable[pb.MetadataCondition], violations: Violations, *, field: str
    ) -> None:
        self.values: dict[str, tuple[str, ...]] = {}
        self.ranges: dict[str, NumberRange] = {}
        self.present: list[str] = []
        self._violations = violations
        found = list(conditions)
        violations.require(
            len(found) <= _MOST_CONDITIONS,
            field,
            f"Has {len(found)} conditions, at most {_MOST_CONDITIONS} are allowed.",
        )
        for index, condition in enumerate(found[:_MOST_CONDITIONS]):
            self._read(condition, f"{field}[{index}]")

    def _read(self, condition: pb.MetadataCondition, field: str) -> None:
        violations, key = self._violations, condition.key
        violations.check_text(f"{field}.key", key, minimum_length=1, maximum_length=100)
        violations.check_plain(f"{field}.key", key)
        kind = condition.WhichOneof("condition")
        if kind == "equals":
            self._keep_values(key, (condition.equals,), f"{field}.equals")
        elif kind == "one_of":
            violations.require(
                0 < len(condition.one_of.values) <= _MOST_VALUES,
                f"{field}.one_of.values",
                f"Must have 1 to {_MOST_VALUES} values.",
            )
            self._keep_values(key, tuple(condition.one_of.values), f"{field}.one_of.values")
        elif kind == "range":
            self._keep_range(key, condition.range, f"{field}.range")
        elif kind == "present":
            violations.require(condition.present, f"{field}.present", "Must be true.")
            self.present.append(key)
        else:
            violations.add(field, "Must have a condition.")

    def _keep_values(self, key: str, values: tuple[str, ...], field: str) -> None:
        for value in values:
            self._violations.check_text(field, value, maximum_length=2000)
            self._violations.require("\0" not in value, field, "Must not hold control characters.")
        before = self.values.get(key)
        wanted = set(values) if before is None else set(values) & set(before)
        self.values[key] = tuple(sorted(wanted))

    def _keep_range(self, key: str, message: pb.NumberRange, field: str) -> None:
        minimum = message.minimum if message.HasField("minimum") else None
        maximum = message.maximum if message.HasField("maximum") else None
        bounds = [each for each in (minimum, maximum) if each is not None]
        self._violations.require(bool(bounds), field, "Must have a minimum or a maximum.")
        self._violations.require(
            all(map(math.isfinite, bounds)), field, "Must have finite numbers."
        )
        before = self.ranges.get(key, NumberRange())
        minima = [each for each in (minimum, before.minimum) if each is not None]
        maxima = [each for each in (maximum, before.maximum) if each is not None]
        self.ranges[key] = NumberRange(max(minima, default=None), min(maxima, default=None))


def _time(
    message: pb.DocumentFilter,
    name: Literal["updated_from", "updated_before"],
    violations: Violations,
    field: str,
) -> datetime | None:
    if not message.HasField(name):
        return None
    return moment_of(getattr(message, name), violations, field=f"{field}.{name}")
