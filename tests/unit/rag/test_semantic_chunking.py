import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.chunking import ChunkSizes, fit_sizes, restore_chunks
from services.rag.core.parsing import ParsedDocument, parse_document
from services.rag.core.semantic_chunking import semantic_places, sentences_of

PIECES = st.sampled_from(
    ["# Head\n\n", "One sentence. ", "Another one! ", "\n\n", "- it\n", "```\nf()\n```\n", "x" * 9]
)  # fmt: skip


def parse(text: str) -> ParsedDocument:
    return parse_document(text.encode(), file_name="a.md")


def vectors(count: int, seed: int = 0) -> list[np.ndarray]:
    rows = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return list(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@given(st.lists(PIECES, min_size=1, max_size=40).map("".join), st.integers(32, 90), st.integers())
def test_chunks_are_ordered_disjoint_and_cover_all_visible_text(
    source: str, target: int, seed: int
) -> None:
    document = parse("." + source)
    sizes = ChunkSizes(target=target, maximum=target + 10, whole=target + 20)
    sentences = sentences_of(document)
    places = semantic_places(document, sentences, vectors(len(sentences), abs(seed)), sizes)
    position = 0
    for chunk in restore_chunks(document, places, sizes):
        assert not document.text[position : chunk.char_start].strip()
        assert chunk.text.strip()
        assert chunk.token_estimate <= sizes.whole
        position = chunk.char_end
    assert not document.text[position:].strip()


def test_a_chunk_ends_where_the_meaning_changes() -> None:
    first, second = "Cats sleep most of the day. ", "Rockets burn fuel quickly. "
    document = parse(first * 12 + second * 12)
    sentences = sentences_of(document)
    about = [np.eye(2, dtype=np.float32)[index // 12] for index in range(24)]
    chunks = restore_chunks(
        document, semantic_places(document, sentences, about, fit_sizes(200, 240))
    )
    assert ["Cats" in chunk.text for chunk in chunks] == [True, False]
    assert ["Rockets" in chunk.text for chunk in chunks] == [False, True]


def test_sections_never_share_a_chunk() -> None:
    document = parse("# A\n\nOne sentence.\n\n# B\n\nOne sentence.")
    sentences = sentences_of(document)
    same = [np.ones(2, np.float32)] * len(sentences)
    places = semantic_places(document, sentences, same, fit_sizes(200, 240))
    assert [path for _, _, path in places] == [(), ("B",)]


def test_each_sentence_needs_its_vector() -> None:
    document = parse("One sentence. And another.")
    with pytest.raises(ValueError, match="vectors"):
        semantic_places(document, sentences_of(document), vectors(1), fit_sizes(200, 240))
