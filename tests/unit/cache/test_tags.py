"""Tags tell apart what is not the same, in a bounded space."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core import tags

NAMES = st.tuples(st.text(max_size=5), st.text(max_size=5))


@given(NAMES, NAMES)
def test_documents_share_a_tag_only_if_they_are_the_same(one, other) -> None:
    assert (tags.document_tag(*one) == tags.document_tag(*other)) == (one == other)


@given(st.text())
def test_kinds_never_share_a_tag(name: str) -> None:
    made = {
        tags.document_tag(name, name),
        tags.collection_tag(name),
        tags.custom_tag(name),
        tags.grown_field(name),
        tags.namespace_field(name),
        tags.model_field(name),
        tags.threshold_field(name),
        tags.EVERYTHING,
    }
    assert len(made) == 8


def test_a_value_says_when_it_was_handed_over_to_those_who_waited():
    kept = (tags.custom_tag("h:7"), tags.collection_tag("h"))
    assert tags.handed_over_ms(kept) is None
    assert (
        tags.handed_over_ms((*kept, tags.handed_over_tag(1_700_000_000_123))) == 1_700_000_000_123
    )
    assert tags.handed_over_ms(("h:soon",)) is None


@given(st.text(min_size=1, max_size=1000))
def test_tags_are_short_and_do_not_show_names(name: str) -> None:
    for tag in (
        tags.document_tag(name, name),
        tags.collection_tag(name),
        tags.custom_tag(name),
        tags.grown_field(name),
    ):
        assert len(tag) == 24
        assert tag.isascii()


def test_the_case_of_a_digest_does_not_matter() -> None:
    assert tags.model_field("AB" * 32) == tags.model_field("ab" * 32)
