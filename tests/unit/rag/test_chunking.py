# ruff: noqa: RUF001 (headers are joined by an angle mark)

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.chunking import (
    ChunkSizes,
    chunk_document,
    document_head,
    fingerprint,
    fit_sizes,
    restore_chunks,
)
from services.rag.core.document_errors import DocumentRejected
from services.rag.core.documents import Chunk
from services.rag.core.parsing import ParsedDocument, parse_document
from services.rag.core.parsing.parsed import BlockKind, PageSpan

WORDS = st.sampled_from(
    [
        "# Head\n", "## Sub\n", "word ", "sentence ends. ", "\n", "\n\n", "- item\n", "```\n",
        "code()\n", "| a | b |\n|---|---|\n", "机器学习很有用。", "é", "e\u0301",
        "👩\u200d👩\u200d👧 ", "🇩🇪", "\r\n", "    ", "x" * 300, "NAME\n", "class A:\n",
        "    def f(self):\n        pass\n", "\t", "1. one\n", "&", "\u200b", "<b>", "हिन्दी ",
        "9" * 50,
    ]
)  # fmt: skip
SOURCES = st.one_of(
    st.lists(WORDS, max_size=60).map("".join),
    st.lists(WORDS, min_size=1, max_size=4).map(lambda words: "".join(words) * 80),
    st.text(max_size=400),
).map(lambda text: "." + text.replace("\0", ""))
SMALL = fit_sizes(200, 240)
FILE_NAMES = st.sampled_from(["a.md", "a.txt", "a.py", "a.html"])


def is_whole_code(chunk: Chunk, document: ParsedDocument) -> bool:
    blocks = [block for section in document.sections for block in section.blocks]
    return any(
        block.kind is BlockKind.VERBATIM
        and (block.char_start, block.char_end) == (chunk.char_start, chunk.char_end)
        for block in blocks
    )


def parse(text: str, file_name: str = "a.md") -> ParsedDocument:
    return parse_document(text.encode(), file_name=file_name)


@given(SOURCES, FILE_NAMES, st.integers(32, 90), st.integers(0, 60))
def test_chunks_are_ordered_disjoint_slices_that_cover_all_visible_text(
    source: str, file_name: str, target: int, slack: int
) -> None:
    try:
        document = parse(source, file_name)
    except DocumentRejected:
        return
    sizes = ChunkSizes(target=target, maximum=target + slack, whole=target + 2 * slack)
    chunks = chunk_document(document, sizes)
    position = 0
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert position <= chunk.char_start < chunk.char_end
        assert not document.text[position : chunk.char_start].strip()
        assert chunk.text == document.text[chunk.char_start : chunk.char_end]
        assert chunk.text.strip()
        is_whole = is_whole_code(chunk, document)
        assert chunk.token_estimate <= (sizes.whole if is_whole else sizes.maximum)
        position = chunk.char_end
    assert not document.text[position:].strip()


@given(SOURCES, FILE_NAMES)
def test_chunks_can_be_restored_from_their_places(source: str, file_name: str) -> None:
    try:
        document = parse(source, file_name)
    except DocumentRejected:
        return
    chunks = chunk_document(document)
    places = [(chunk.char_start, chunk.char_end, chunk.heading_path) for chunk in chunks]
    assert restore_chunks(document, places) == chunks


def test_a_section_that_fits_is_one_chunk_with_its_headings() -> None:
    body = "Some prose that fills the section. " * 16
    document = parse(f"# Guide\n\n## Setup\n\n{body}\n\n## Use\n\n{body}")
    chunks = chunk_document(document, SMALL)
    assert [chunk.heading_path for chunk in chunks] == [("Setup",), ("Use",)]
    assert [chunk.header for chunk in chunks] == ["Guide › Setup", "Guide › Use"]
    assert chunks[0].text.startswith("# Guide\n\n## Setup")
    assert chunks[1].embedding_text.startswith("Guide › Use\n## Use")


def test_small_siblings_share_a_chunk_under_their_common_heading() -> None:
    document = parse("# T\n\n## A\n\n### a1\n\none\n\n### a2\n\ntwo\n\n## B\n\n### b1\n\nthree\n")
    chunks = chunk_document(document)
    assert [chunk.heading_path for chunk in chunks] == [("A",), ("B", "b1")]
    assert "one" in chunks[0].text
    assert "two" in chunks[0].text


def test_prose_is_cut_between_sentences() -> None:
    document = parse("This is one sentence of a paragraph that is far too long. " * 60)
    chunks = chunk_document(document, SMALL)
    assert len(chunks) > 2
    assert all(chunk.text.endswith(".") for chunk in chunks)
    assert all(chunk.text.startswith("This") for chunk in chunks)


def test_code_is_kept_whole_where_it_fits_and_cut_between_lines_where_not() -> None:
    fence = "```\n" + "call(argument)\n" * 20 + "```"
    prose = "Words of a paragraph before the code. " * 14
    chunks = chunk_document(parse(f"# T\n\n{prose}\n\n{fence}\n"), SMALL)
    assert any(chunk.text == fence for chunk in chunks)
    long_fence = "```\n" + "call(argument)\n" * 200 + "```"
    for chunk in chunk_document(parse(f"# T\n\n{long_fence}\n"), SMALL):
        assert set(chunk.text.splitlines()) <= {"# T", "", "```", "call(argument)"}


def test_glyphs_of_several_characters_stay_together() -> None:
    family = "👩\u200d👩\u200d👧"
    for chunk in chunk_document(parse("e\u0301" * 900 + "\n\n" + family * 300), SMALL):
        assert chunk.text[0] not in "\u0301\u200d"
        assert not chunk.text.endswith("\u200d")


def test_no_chunk_of_prose_is_tiny_where_its_paragraph_is_long() -> None:
    chunks = chunk_document(parse("A sentence that says something again. " * 27), SMALL)
    assert min(chunk.token_estimate for chunk in chunks) > 60


def test_a_long_heading_path_leaves_room_for_text() -> None:
    heading = "very long heading with many words indeed " * 3
    source = "".join(f"{'#' * level} {heading}{level}\n\n" for level in range(1, 7))
    chunks = chunk_document(parse(source + "Body text. " * 200), SMALL)
    assert all(chunk.token_estimate <= 240 for chunk in chunks)
    assert max(len(chunk.text) for chunk in chunks) > 400


def test_equal_texts_under_equal_headers_have_equal_digests() -> None:
    first, second = (chunk_document(parse(text))[0] for text in ("# T\n\nSame.", "# T\n\nSame."))
    renamed = chunk_document(parse_document(b"# T\n\nSame.", file_name="a.md", title="Other"))[0]
    assert first.text_digest == second.text_digest
    assert renamed.text_digest != first.text_digest


@pytest.mark.parametrize(("target", "maximum"), [(8, 240), (200, 199)])
def test_contradicting_sizes_are_refused(target: int, maximum: int) -> None:
    with pytest.raises(ValueError, match="target"):
        fit_sizes(target, maximum)


def test_sizes_fit_what_the_model_reads() -> None:
    assert fit_sizes(400, 512) == ChunkSizes(target=400, maximum=512, whole=768)
    assert fit_sizes(400, 512, window=256) == ChunkSizes(target=200, maximum=240, whole=240)
    assert fit_sizes(400, 512, window=512) == ChunkSizes(target=400, maximum=481, whole=481)
    assert fit_sizes(400, 512, window=8192) == fit_sizes(400, 512)
    assert fit_sizes(100, 120, window=256) == fit_sizes(100, 120)


@given(st.integers(32, 2000), st.integers(0, 2000), st.integers(64, 10_000))
def test_no_size_exceeds_what_the_model_reads(target: int, slack: int, window: int) -> None:
    sizes = fit_sizes(target, target + slack, window=window)
    assert sizes.target <= sizes.maximum <= sizes.whole <= window


def test_the_fingerprint_names_all_parameters() -> None:
    sizes = [fit_sizes(400, 512), fit_sizes(100, 512), fit_sizes(400, 500)]
    names = {fingerprint(each) for each in sizes}
    assert len(names | {fingerprint(sizes[0], strategy="semantic")}) == 4


def test_chunks_name_the_pages_they_come_from() -> None:
    body = "A sentence of some length that fills the page. " * 40
    document = parse(f"{body}\n\n{body}\n\n{body}")
    third = len(document.text) // 3 + 150
    pages = (
        PageSpan(1, 0, third),
        PageSpan(2, third, 2 * third),
        PageSpan(4, 2 * third, len(document.text)),
    )
    chunks = chunk_document(replace(document, pages=pages), fit_sizes(100, 120))
    for chunk in chunks:
        touched = [
            page.number
            for page in pages
            if page.char_start < chunk.char_end and chunk.char_start < page.char_end
        ]
        assert (chunk.page_start, chunk.page_end) == (touched[0], touched[-1])
    assert {chunk.page_end for chunk in chunks} == {1, 2, 4}
    assert any(chunk.page_start != chunk.page_end for chunk in chunks)


def test_a_document_without_pages_has_none_in_its_chunks() -> None:
    assert [(each.page_start, each.page_end) for each in chunk_document(parse("text"))] == [(0, 0)]


def test_code_and_tables_are_whole_up_to_a_size_of_their_own() -> None:
    sizes = ChunkSizes(target=100, maximum=120, whole=180)
    table = "| a | b |\n|---|---|\n" + "| one | two |\n" * 22
    for block in ("```\n" + "call(argument)\n" * 30 + "```", table.rstrip()):
        chunks = chunk_document(parse(f"# T\n\n{'Words before it. ' * 30}\n\n{block}\n"), sizes)
        assert any(chunk.text == block and chunk.token_estimate > 120 for chunk in chunks)


def test_the_head_of_a_document_ends_with_a_word() -> None:
    assert document_head(parse("Short.")) == "Short."
    head = document_head(parse("word " * 100))
    assert 190 <= len(head) <= 200
    assert head.endswith("word")
