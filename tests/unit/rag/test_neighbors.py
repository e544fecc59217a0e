from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.ranking.neighbors import (
    LONGEST_PASSAGE_TOKENS,
    fill_places,
    gaps_of,
    join,
)
from tests.kit.candidates import candidate, passage

TEXT = "First part.\n\nSecond part. \tThird part.\nFourth part."


def chunks_of(text: str, cuts: list[tuple[int, int]], *, document_id: str = "doc", first: int = 1):
    """Passages of a document; each has its place in it as ordinal."""
    return [
        passage(
            first + ordinal,
            text[start:end],
            document_id=document_id,
            ordinal=ordinal,
            char_start=start,
        )
        for ordinal, (start, end) in enumerate(cuts)
    ]


CHUNKS = chunks_of(TEXT, [(0, 11), (13, 25), (27, 38), (39, 51)])


def merged(order, *, places: int = 8, join_neighbors: bool = True, texts=None):
    candidates = [candidate(each, 1 - place / 100) for place, each in enumerate(order)]
    runs = fill_places(candidates, places=places, join_neighbors=join_neighbors)
    known = {span: TEXT[span.char_start : span.char_end] for span in gaps_of(runs)}
    return [each for run in runs for each in join(run, (known if texts is None else texts).get)]


def test_passages_that_follow_each_other_become_one_with_the_best_score() -> None:
    pages = [
        replace(each, page_start=each.ordinal + 1, page_end=each.ordinal + 1) for each in CHUNKS
    ]
    (found,) = merged([pages[2], pages[1]])
    assert found.passage.text == TEXT[13:38]
    assert (found.passage.char_start, found.passage.char_end) == (13, 38)
    assert (found.passage.ordinal, found.passage.ordinal_end) == (1, 3)
    assert (found.passage.page_start, found.passage.page_end) == (2, 3)
    assert found.ranking.score == 1.0
    assert found.passage.chunk_id == found.ranking.chunk_id == 3
    assert found.passage.token_estimate == 20


def test_a_part_of_what_was_joined_has_the_pages_of_its_own_chunks() -> None:
    pages = [
        replace(each, page_start=each.ordinal + 1, page_end=each.ordinal + 2) for each in CHUNKS
    ]
    (found,) = merged(pages[:3])
    assert found.passage.pages_of(0, 38) == (1, 4)
    assert found.passage.pages_of(13, 20) == (2, 3)
    assert found.passage.pages_of(20, 30) == (2, 4)
    assert found.passage.pages_of(11, 13) == (1, 4)
    assert pages[1].pages_of(13, 20) == (2, 3)


def test_one_that_closes_a_gap_joins_both_sides() -> None:
    first, second, third, _ = CHUNKS
    (found,) = merged([third, first, second])
    assert found.passage.text == TEXT[:38]


def test_a_neighbour_takes_no_place_of_its_own() -> None:
    other = passage(50, document_id="other")
    found = merged([CHUNKS[0], CHUNKS[1], other], places=2)
    assert [each.passage.document_id for each in found] == ["doc", "other"]


def test_passages_of_other_documents_or_further_away_are_not_joined() -> None:
    stranger = passage(60, ordinal=1, document_id="stranger")
    found = merged([CHUNKS[0], stranger, CHUNKS[2]])
    assert [each.passage.chunk_id for each in found] == [1, 60, 3]
    assert all(each.passage.ordinal_end == 0 for each in found)


def test_nothing_is_joined_where_that_is_not_wanted() -> None:
    assert len(merged(CHUNKS, join_neighbors=False)) == 4


def test_a_passage_does_not_grow_without_end() -> None:
    large = [replace(each, token_estimate=LONGEST_PASSAGE_TOKENS // 2) for each in CHUNKS]
    assert [each.passage.ordinal for each in merged(large)] == [0, 2]


def test_overlapping_passages_are_joined_without_a_repetition() -> None:
    (found,) = merged(chunks_of(TEXT, [(0, 20), (13, 38)]))
    assert found.passage.text == TEXT[:38]


def test_where_the_text_between_is_not_known_the_passages_stay_apart() -> None:
    found = merged(CHUNKS[:2], texts={})
    assert [each.passage.text for each in found] == [TEXT[:11], TEXT[13:25]]


def test_headings_that_all_members_share_are_kept() -> None:
    first, second, *_ = CHUNKS
    one = replace(first, heading_path=("A",), header="T › A")  # noqa: RUF001
    other = replace(second, heading_path=("A", "B"), header="T › A › B")  # noqa: RUF001
    (found,) = merged([other, one])
    assert found.passage.heading_path == ("A",)
    assert found.passage.header == "T › A"  # noqa: RUF001


@given(st.data())
def test_text_is_always_the_documents_own_and_the_best_is_never_lost(data: st.DataObject) -> None:
    text = data.draw(st.text("ab \n\u00e4\U0001f600", min_size=8, max_size=60))
    marks = data.draw(
        st.lists(st.integers(0, len(text)), min_size=4, max_size=12, unique=True).map(sorted)
    )
    cuts = list(zip(marks[::2], marks[1::2], strict=False))
    order = data.draw(st.permutations(chunks_of(text, cuts)))
    places = data.draw(st.integers(1, 6))
    candidates = [candidate(each, 1 - place / 100) for place, each in enumerate(order)]
    runs = fill_places(candidates, places=places, join_neighbors=True)
    known = {span: text[span.char_start : span.char_end] for span in gaps_of(runs)}
    found = [each for run in runs for each in join(run, known.get)]
    assert 1 <= len(found) <= places
    assert found[0].ranking.chunk_id == order[0].chunk_id
    for each in found:
        assert each.passage.text == text[each.passage.char_start : each.passage.char_end]
    taken = [each for run in runs for each in run.members]
    assert len(taken) == len({each.ranking.chunk_id for each in taken})
