"""Which documents count, as conditions in SQL: made in one place for every statement that finds."""

from decimal import Decimal

from services.rag.core.filters import Access, DocumentFilter, NumberRange

__all__ = ["CHUNK_BITS", "Parameters", "chunk_condition", "document_conditions", "unguarded"]

CHUNK_BITS = 22
"""A chunk's id is its document's number, shifted by this, plus its ordinal (migration 0003)."""

# What counts as a number; numeric keeps every digit and fails on none of these.
_NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?$"

_UNGUARDED = """NOT EXISTS (
    SELECT FROM rag.document
    WHERE tenant_id = {tenant} AND collection_id = {collection} AND guarded
)"""
_NUMBERS = """(chunk_id >> {bits}) IN (
    SELECT number FROM rag.document
    WHERE tenant_id = {tenant} AND collection_id = {collection} AND {conditions}
)"""


class Parameters:
    """The parameters of a statement, in the order of their numbers.

    Args:
        values: The first ones.
    """

    def __init__(self, *values: object) -> None:
        self.values = list(values)

    def add(self, value: object) -> str:
        """Takes a value in; returns what stands for it in the statement."""
        self.values.append(value)
        return f"${len(self.values)}"


def document_conditions(filter: DocumentFilter, access: Access, parameters: Parameters) -> str:
    """Returns the condition on rows of `rag.document` under which a document counts.

    Args:
        filter: What the caller asks for.
        access: What the caller may read.
        parameters: Receives the values.
    """
    add = parameters.add
    conditions = ["(document.expires_at IS NULL OR document.expires_at > now())"]
    if access.principals is not None:
        conditions.append(
            "(cardinality(document.readers) = 0"
            f" OR document.readers && {add(list(access.principals))}::text[])"
        )
    for values, condition in (
        (filter.document_ids, "document.document_id = ANY({}::text[])"),
        (filter.any_tags, "document.tags && {}::text[]"),
        (filter.all_tags, "document.tags @> {}::text[]"),
        (filter.languages, "document.language = ANY({}::text[])"),
        (filter.media_types, "document.media_type = ANY({}::text[])"),
        (filter.metadata_present, "document.metadata ?& {}::text[]"),
    ):
        if values:
            conditions.append(condition.format(add(list(values))))
    if filter.source_prefix:
        conditions.append(f"starts_with(document.source_uri, {add(filter.source_prefix)})")
    if filter.updated_from is not None:
        conditions.append(f"document.updated_at >= {add(filter.updated_from)}")
    if filter.updated_before is not None:
        conditions.append(f"document.updated_at < {add(filter.updated_before)}")
    for key, wanted in filter.metadata_in.items():
        conditions.append(
            f"(document.metadata ->> {add(key)}::text) = ANY({add(list(wanted))}::text[])"
        )
    for key, numbers in filter.metadata_ranges.items():
        conditions.append(_range_condition(key, numbers, parameters))
    return " AND ".join(conditions)


def chunk_condition(
    filter: DocumentFilter,
    access: Access,
    parameters: Parameters,
    *,
    tenant: str,
    collection: str,
) -> str:
    """Returns the condition on a `chunk_id` of one collection under which the chunk counts.

    Without a filter, documents are only looked at where some are not for everyone or expire.

    Args:
        filter: What the caller asks for.
        access: What the caller may read.
        parameters: Receives the values.
        tenant: What stands for the tenant's id in the statement.
        collection: What stands for the collection's number; not null.
    """
    among = _NUMBERS.format(
        bits=CHUNK_BITS,
        tenant=tenant,
        collection=collection,
        conditions=document_conditions(filter, access, parameters),
    )
    if not filter.is_empty:
        return among
    return f"({unguarded(tenant=tenant, collection=collection)} OR {among})"


def unguarded(*, tenant: str, collection: str) -> str:
    """Returns the condition under which all of a collection is for everyone and never expires."""
    return _UNGUARDED.format(tenant=tenant, collection=collection)


def _range_condition(key: str, numbers: NumberRange, parameters: Parameters) -> str:
    value = f"(document.metadata ->> {parameters.add(key)}::text)"
    bounds = [
        f"{value}::numeric {operator} {parameters.add(Decimal(repr(bound)))}"
        for operator, bound in ((">=", numbers.minimum), ("<=", numbers.maximum))
        if bound is not None
    ]
    bounded = " AND ".join(bounds) or "true"
    # Only CASE keeps the cast from texts that are no numbers.
    return f"(CASE WHEN {value} ~ '{_NUMBER}' THEN {bounded} ELSE false END)"
