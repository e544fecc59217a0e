import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.errors import InvalidRequest
from services.common.validation import Violations
from services.rag.core.intake import Chunking, ChunkingStrategy
from services.rag.ingest_convert import (
    check_document_id,
    header_of,
    label_changes_of,
    options_of,
)


def violated(check):
    violations = Violations()
    check(violations)
    with pytest.raises(InvalidRequest) as raised:
        violations.raise_found()
    return [each.field for each in raised.value.violations]


def is_allowed(document_id):
    violations = Violations()
    check_document_id(document_id, violations, field="id")
    try:
        violations.raise_found()
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize(
    "document_id",
    [
        "../../etc/passwd",
        "報告\u3000書.pdf",
        "\u0645\u06cc\u200c\u062e.md",
        "a\u00a0b",
        "👩\u200d💻.md",
        "C:\\x",
        "x" * 512,
    ],
)
def test_an_id_is_a_name_and_never_a_path(document_id):
    assert is_allowed(document_id)


@pytest.mark.parametrize(
    "document_id",
    [
        "",
        " ",
        "a\nb",
        "a\0b",
        "\x1b[2Jx",
        "gpj.\u202eexe.md",
        "a\u2066b",
        "a\u200bb",
        "\ufeffa",
        "a\u2028b",
        "x" * 513,
    ],
)
def test_an_id_that_could_pass_for_another_or_break_a_line_is_refused(document_id):
    assert not is_allowed(document_id)


def test_everything_wrong_with_a_header_is_said_at_once():
    header = pb.DocumentHeader(
        document_id="\n",
        source_uri="x" * 2001,
        title="x" * 501,
        language="english",
        tags=["", "x" * 65],
        readers=["everyone", "user:", "group:a,b"],
        expire_time=Timestamp(seconds=-(10**12)),
        expected_content_digest="abc",
        metadata={"": "x"},
    )
    fields = violated(lambda violations: header_of(header, violations))
    assert set(fields) == {
        f"header.{each}"
        for each in (
            "document_id",
            "source_uri",
            "title",
            "language",
            "tags",
            "readers",
            "expire_time",
            "expected_content_digest",
            "metadata",
        )
    }


def test_tags_and_readers_are_sets():
    header = pb.DocumentHeader(
        document_id="a", tags=["b", "a", "b"], readers=["user:x", "group:g", "user:x"]
    )
    document = header_of(header, Violations())
    assert document.tags == ("a", "b")
    assert document.readers == ("group:g", "user:x")


@pytest.mark.parametrize(("field", "count"), [("tags", 65), ("readers", 257)])
def test_too_many_labels_are_not_looked_into(field, count):
    header = pb.DocumentHeader(document_id="a", **{field: ["\0"] * count})
    assert violated(lambda violations: header_of(header, violations)) == [f"header.{field}"]


@pytest.mark.parametrize(
    ("chunking", "fields"),
    [
        ({"strategy": 9}, ["strategy"]),
        ({"target_token_count": 31}, ["target_token_count"]),
        ({"target_token_count": 2001, "maximum_token_count": 4001}, None),
        ({"target_token_count": 400, "maximum_token_count": 399}, ["maximum_token_count"]),
        ({"target_token_count": -1}, ["target_token_count"]),
        ({"maximum_token_count": 4001}, ["maximum_token_count"]),
    ],
)
def test_all_of_the_options_are_checked_at_once(chunking, fields):
    message = pb.IngestOptions(collection="Docs", chunking=pb.ChunkingOptions(**chunking))
    with pytest.raises(InvalidRequest) as raised:
        options_of(message)
    found = [each.field for each in raised.value.violations]
    expected = fields or ["target_token_count", "maximum_token_count"]
    assert found == ["options.collection", *(f"options.chunking.{each}" for each in expected)]


def test_options_are_read():
    message = pb.IngestOptions(
        collection="docs",
        background=True,
        chunking=pb.ChunkingOptions(
            strategy=pb.CHUNKING_STRATEGY_SEMANTIC, target_token_count=100, maximum_token_count=100
        ),
    )
    options = options_of(message)
    assert options.background
    assert options.chunking == Chunking(
        strategy=ChunkingStrategy.SEMANTIC, target_token_count=100, maximum_token_count=100
    )


def test_only_the_labels_named_are_changed():
    request = pb.UpdateDocumentRequest(
        labels=pb.DocumentLabels(tags=["new"], metadata={"a": "b"}),
        update_mask=FieldMask(paths=["tags", "expire_time"]),
    )
    labels = label_changes_of(request, Violations())
    assert labels.tags == ("new",)
    assert labels.metadata is None
    assert labels.readers is None
    assert labels.never_expires
    assert labels.expires_at is None


@pytest.mark.parametrize("paths", [[], ["title"], ["tags", "text"]])
def test_a_mask_names_labels(paths):
    request = pb.UpdateDocumentRequest(update_mask=FieldMask(paths=paths))
    assert violated(lambda violations: label_changes_of(request, violations)) == ["update_mask"]
