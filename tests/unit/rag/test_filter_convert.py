from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.rag.v1 import filter_pb2 as pb
from services.common.errors import InvalidRequest
from services.common.validation import Violations
from services.rag.core.filters import EVERY_DOCUMENT, DocumentFilter, NumberRange
from services.rag.filter_convert import filter_of


def read(message: pb.DocumentFilter) -> DocumentFilter:
    violations = Violations()
    result = filter_of(message, violations, field="filter")
    violations.raise_found()
    return result


def fields_at_fault(message: pb.DocumentFilter) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        read(message)
    return [each.field for each in caught.value.violations]


def metadata(**condition) -> pb.DocumentFilter:
    return pb.DocumentFilter(metadata=[pb.MetadataCondition(key="year", **condition)])


def test_a_filter_that_says_nothing_leaves_everything() -> None:
    assert read(pb.DocumentFilter()) == EVERY_DOCUMENT


def test_a_condition_of_a_newer_client_is_refused() -> None:
    # Field 99, holding 1.
    assert fields_at_fault(pb.DocumentFilter.FromString(b"\x98\x06\x01")) == ["filter.99"]


def test_every_condition_is_read() -> None:
    message = pb.DocumentFilter(
        document_ids=["b", "a", "b"],
        any_tags=["x"],
        all_tags=["y", "x"],
        source_prefix="file:///",
        metadata=[
            pb.MetadataCondition(key="kind", equals="manual"),
            pb.MetadataCondition(key="year", one_of=pb.TextList(values=["1999", "2001"])),
            pb.MetadataCondition(key="pages", range=pb.NumberRange(minimum=0)),
            pb.MetadataCondition(key="owner", present=True),
        ],
        updated_from=Timestamp(seconds=1),
        updated_before=Timestamp(seconds=2),
        languages=["en"],
        media_types=["text/html"],
    )
    assert read(message) == DocumentFilter(
        document_ids=("a", "b"),
        any_tags=("x",),
        all_tags=("x", "y"),
        source_prefix="file:///",
        metadata_in={"kind": ("manual",), "year": ("1999", "2001")},
        metadata_ranges={"pages": NumberRange(0.0, None)},
        metadata_present=("owner",),
        updated_from=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        updated_before=datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC),
        languages=("en",),
        media_types=("text/html",),
    )


def test_conditions_on_one_key_must_hold_together() -> None:
    message = pb.DocumentFilter(
        metadata=[
            pb.MetadataCondition(key="kind", one_of=pb.TextList(values=["a", "b"])),
            pb.MetadataCondition(key="kind", one_of=pb.TextList(values=["b", "c"])),
            pb.MetadataCondition(key="year", range=pb.NumberRange(minimum=1, maximum=9)),
            pb.MetadataCondition(key="year", range=pb.NumberRange(minimum=3)),
        ]
    )
    wanted = read(message)
    assert wanted.metadata_in == {"kind": ("b",)}
    assert wanted.metadata_ranges == {"year": NumberRange(3.0, 9.0)}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.DocumentFilter(document_ids=["x"] * 1001), "filter.document_ids"),
        (pb.DocumentFilter(document_ids=["x" * 513]), "filter.document_ids[0]"),
        (pb.DocumentFilter(any_tags=["ok", ""]), "filter.any_tags[1]"),
        (pb.DocumentFilter(all_tags=["t"] * 65), "filter.all_tags"),
        (pb.DocumentFilter(all_tags=["a\0b"]), "filter.all_tags[0]"),
        (pb.DocumentFilter(source_prefix="x" * 2001), "filter.source_prefix"),
        (pb.DocumentFilter(languages=["eng"]), "filter.languages[0]"),
        (pb.DocumentFilter(languages=["EN"]), "filter.languages[0]"),
        (pb.DocumentFilter(media_types=["x"] * 33), "filter.media_types"),
        (
            pb.DocumentFilter(updated_from=Timestamp(seconds=10**15)),
            "filter.updated_from",
        ),
        (metadata(), "filter.metadata[0]"),
        (metadata(present=False), "filter.metadata[0].present"),
        (metadata(equals="x" * 2001), "filter.metadata[0].equals"),
        (metadata(equals="\0"), "filter.metadata[0].equals"),
        (metadata(one_of=pb.TextList()), "filter.metadata[0].one_of.values"),
        (metadata(one_of=pb.TextList(values=["x"] * 101)), "filter.metadata[0].one_of.values"),
        (metadata(range=pb.NumberRange()), "filter.metadata[0].range"),
        (metadata(range=pb.NumberRange(minimum=float("nan"))), "filter.metadata[0].range"),
        (metadata(range=pb.NumberRange(maximum=float("inf"))), "filter.metadata[0].range"),
        (
            pb.DocumentFilter(metadata=[pb.MetadataCondition(present=True)]),
            "filter.metadata[0].key",
        ),
        (
            pb.DocumentFilter(metadata=[pb.MetadataCondition(key="k", present=True)] * 33),
            "filter.metadata",
        ),
    ],
)
def test_what_breaks_a_rule_is_named_by_its_field(message: pb.DocumentFilter, field: str) -> None:
    assert field in fields_at_fault(message)
