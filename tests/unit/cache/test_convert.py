"""Nothing is lost or added between the wire and the core."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pannier.cache.v1 import control_pb2
from services.cache import convert
from services.cache.core import tags
from services.cache.core.model import Control, Keeping, Scope

MILLISECONDS = st.integers(0, 253_402_300_799_999)


def document(collection: str, document_id: str) -> control_pb2.Tag:
    return control_pb2.Tag(
        document=control_pb2.DocumentTag(collection=collection, document_id=document_id)
    )


def test_a_control_without_wishes_accepts_everything() -> None:
    assert convert.control(control_pb2.LookupControl()) == Control()


def test_a_control_says_what_it_said() -> None:
    message = control_pb2.LookupControl(
        bypass=True,
        max_age=Duration(seconds=1, nanos=500_000_000),
        min_create_time=Timestamp(seconds=5, nanos=1_999_999),
    )
    assert convert.control(message) == Control(
        bypass=True, max_age_seconds=1.5, min_created_ms=5_001
    )


def test_a_time_of_zero_is_a_time() -> None:
    assert convert.control(control_pb2.LookupControl(min_create_time=Timestamp())) == Control(
        min_created_ms=0
    )
    assert convert.keeping(control_pb2.StoreControl(basis_time=Timestamp())) == Keeping(basis_ms=0)


@given(MILLISECONDS, st.integers(0, 999_999))
def test_times_keep_their_milliseconds_and_are_never_made_later(ms: int, nanos: int) -> None:
    message = convert.timestamp_from_ms(ms)
    assert convert.whole_ms(message) == ms
    message.nanos += nanos
    assert convert.whole_ms(message) == ms


def test_a_document_brings_its_collection_and_nothing_is_noted_twice() -> None:
    message = control_pb2.StoreControl(
        ttl=Duration(seconds=60),
        tags=[
            document("manuals", "a.md"),
            document("manuals", "b.md"),
            control_pb2.Tag(collection="manuals"),
            control_pb2.Tag(custom="prompt 7"),
        ],
        basis_time=Timestamp(seconds=7),
    )
    assert convert.keeping(message) == Keeping(
        ttl_seconds=60.0,
        tags=(
            tags.document_tag("manuals", "a.md"),
            tags.collection_tag("manuals"),
            tags.document_tag("manuals", "b.md"),
            tags.custom_tag("prompt 7"),
        ),
        basis_ms=7_000,
    )


def test_sixteen_documents_of_sixteen_collections_are_all_noted() -> None:
    message = control_pb2.StoreControl(tags=[document(f"c{n}", "d") for n in range(16)])
    noted = convert.keeping(message).tags
    assert len((*noted, tags.handed_over_tag(0))) == tags.MAXIMUM_NOTED_TAGS


def test_a_digest_means_the_same_in_either_case() -> None:
    scopes = {
        convert.scope("acme", namespace="faq", model_digest=digest)
        for digest in ("AB" * 32, "ab" * 32)
    }
    assert scopes == {Scope("acme", "faq", "ab" * 32)}
