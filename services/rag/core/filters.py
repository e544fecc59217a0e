"""Which documents count in a search: what the caller asks for, and what the caller may read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

__all__ = ["ANYONE", "EVERY_DOCUMENT", "SERVICE", "Access", "DocumentFilter", "NumberRange"]


@dataclass(frozen=True, slots=True)
class NumberRange:
    """A range of numbers; None leaves an end open."""

    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFilter:
    """Conditions on documents; all that are set must hold, and empty ones hold always.

    Attributes:
        document_ids: Only these.
        any_tags: Only with at least one of these.
        all_tags: Only with all of these.
        source_prefix: Only where `source_uri` begins with this.
        metadata_in: Only where the value of each key is among those given.
        metadata_ranges: Only where the value of each key is a number in the range.
        metadata_present: Only where each key has a value.
        updated_from: Only where last replaced at this time or later.
        updated_before: Only where last replaced before this time.
        languages: Only in one of these languages.
        media_types: Only of one of these media types.
    """

    document_ids: tuple[str, ...] = ()
    any_tags: tuple[str, ...] = ()
    all_tags: tuple[str, ...] = ()
    source_prefix: str = ""
    metadata_in: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    metadata_ranges: Mapping[str, NumberRange] = field(default_factory=lambda: MappingProxyType({}))
    metadata_present: tuple[str, ...] = ()
    updated_from: datetime | None = None
    updated_before: datetime | None = None
    languages: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it holds for every document."""
        return self == EVERY_DOCUMENT


EVERY_DOCUMENT = DocumentFilter()
"""No condition at all."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller may read of a tenant: documents for everyone, and those that name the caller.

    Attributes:
        principals: `user:<id>` and `group:<id>`, sorted; None where all may be read, as by the
            service itself.
    """

    principals: tuple[str, ...] | None = ()

    @classmethod
    def of(cls, user_id: str, group_ids: tuple[str, ...] = ()) -> "Access":
        """Returns what a user may read."""
        users = (f"user:{user_id}",) if user_id else ()
        return cls(tuple(sorted({*users, *(f"group:{each}" for each in group_ids)})))


ANYONE = Access()
"""Nobody in particular: reads what is for everyone of the tenant."""

SERVICE = Access(None)
"""The service itself: reads everything of a tenant."""
