from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import filter_pb2 as pb
from services.common.unknown_fields import unknown_field_violations

# Field 99, a number, and field 100, a text.
NUMBER = b"\x98\x06\x01"
TEXT = b"\xa2\x06\x01x"


def fields(message: Message, *, field: str = "") -> list[str]:
    return [each.field for each in unknown_field_violations(message, field=field)]


def test_what_is_known_is_passed_over() -> None:
    message = corpus.DeleteDocumentsRequest(
        collection="docs",
        document_ids=["a"],
        filter=pb.DocumentFilter(metadata=[pb.MetadataCondition(key="year", equals="1")]),
    )
    assert fields(message) == []


def test_each_unknown_field_is_named_once_by_its_number() -> None:
    message = pb.DocumentFilter.FromString(TEXT + NUMBER + NUMBER)
    assert fields(message) == ["99", "100"]
    assert fields(message, field="options.filter") == ["options.filter.99", "options.filter.100"]


def test_messages_within_are_looked_through() -> None:
    condition = pb.MetadataCondition(key="year", range=pb.NumberRange.FromString(TEXT))
    message = corpus.DeleteDocumentsRequest(
        filter=pb.DocumentFilter(metadata=[pb.MetadataCondition(key="a"), condition])
    )
    message.filter.updated_before.MergeFromString(NUMBER)
    assert fields(message) == ["filter.metadata[1].range.100", "filter.updated_before.99"]


def test_values_of_maps_are_looked_through() -> None:
    message = Struct(fields={"b": Value.FromString(NUMBER), "a": Value(string_value="x")})
    assert fields(message) == ["fields[b].99"]
