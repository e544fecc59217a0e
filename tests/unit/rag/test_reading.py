from dataclasses import replace

import numpy as np
import pytest

from services.rag.core.chunking import fit_sizes
from services.rag.core.document_errors import DocumentEmpty
from services.rag.core.reading import ReadingOrder, cut, cut_by_meaning, parse, read_sentences

ORDER = ReadingOrder(
    file_name="guide.md", media_type="", title="", language="", sizes=fit_sizes(40, 60)
)
GUIDE = (
    "# Guide\n\n"
    + "\n\n".join(
        f"## Part {n}\n\nThe foxes are jumping over the dogs of part {n}." for n in range(9)
    )
).encode()


def read(content, order):
    return cut(parse(content, order), order)


def test_a_document_is_read_cut_and_analysed():
    reading = read(GUIDE, ORDER)
    assert (reading.title, reading.media_type, reading.language) == ("Guide", "text/markdown", "en")
    assert len(reading.chunks) == len(reading.terms) > 1
    assert all("jump" in each.counts for each in reading.terms[1:])
    for each in reading.chunks:
        assert reading.text[each.char_start : each.char_end] == each.text


def test_the_language_that_is_given_decides_how_words_are_stemmed():
    reading = read(GUIDE, replace(ORDER, language="de"))
    assert reading.language == "de"
    assert not any("jump" in each.counts for each in reading.terms)


def test_a_document_is_cut_again_where_it_was_cut_before():
    first = read(GUIDE, ORDER)
    places = [(each.char_start, each.char_end, each.heading_path) for each in first.chunks]
    assert read(GUIDE, replace(ORDER, places=places)) == first


def test_a_document_is_cut_where_its_meaning_changes():
    text = "Foxes run far. Foxes jump over dogs. Banks lend money. Banks keep money."
    order = replace(ORDER, file_name="a.txt", sizes=fit_sizes(32, 40))
    sentences = read_sentences(text.encode(), order)
    assert len(sentences.texts()) == 4
    vectors = [np.eye(2, dtype=np.float32)[int("Bank" in each)] for each in sentences.texts()]
    reading = cut_by_meaning(sentences, vectors, order)
    assert [each.text.strip() for each in reading.chunks] == [text[:36], text[37:]]


def test_what_cannot_become_a_document_is_refused():
    for function in (read, read_sentences):
        with pytest.raises(DocumentEmpty):
            function(b" ", ORDER)
