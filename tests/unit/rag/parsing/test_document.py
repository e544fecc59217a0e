"""Each document is read by the parser of what it holds, whatever it is called."""

import pytest

from services.rag.core.document_errors import DocumentEmpty, DocumentLimitExceeded
from services.rag.core.parsing.document import parse_document
from services.rag.core.parsing.limits import ParseLimits


@pytest.mark.parametrize(
    ("content", "file_name", "media_type", "text"),
    [
        (b"Plain words.", "a.txt", "text/plain", "Plain words."),
        (b"# Head\n\nWords.", "a.md", "text/markdown", "# Head\n\nWords."),
        (b"<p>Words <b>here</b></p>", "a.html", "text/html", "Words here"),
        (b"def walk():\n    pass\n", "a.py", "text/x-python", "def walk():"),
        (b"fn walk() {}\n", "a.rs", "text/x-rust", "fn walk() {}"),
        (b'{"name": "Ada"}', "a.json", "application/json", "Ada"),
        (b'{"n": 1}\n{"n": 2}\n', "a.json", "application/json", "2"),
        (b"name,age\nAda,36\n", "a.csv", "text/csv", "Ada"),
        (b"name\tage\nAda\t36\n", "a.tsv", "text/tab-separated-values", "Ada"),
    ],
)
def test_every_kind_has_its_parser(
    content: bytes, file_name: str, media_type: str, text: str
) -> None:
    document = parse_document(content, file_name=file_name)
    assert document.media_type == media_type
    assert text in document.text
    assert not document.warnings


@pytest.mark.parametrize(
    ("content", "file_name", "given", "title"),
    [
        (b"# Head\n\nWords.", "dir/a.md", "Given\x00 title", "Given title"),
        (b"# Head\n\nWords.", "dir/a.md", "", "Head"),
        (b"Words.", "dir/notes.txt", "", "notes.txt"),
        (b"Words.", "", "", "Untitled"),
    ],
)
def test_the_title_is_the_given_one_else_its_own_else_its_name(
    content: bytes, file_name: str, given: str, title: str
) -> None:
    assert parse_document(content, file_name=file_name, title=given).title == title


@pytest.mark.parametrize("content", [b"", b" \n\t\n", b"<html><script>x()</script></html>"])
def test_a_document_without_words_is_refused(content: bytes) -> None:
    with pytest.raises(DocumentEmpty):
        parse_document(content, file_name="a.html")


def test_the_text_is_bounded_before_it_is_parsed() -> None:
    limits = ParseLimits(character_count=100)
    assert parse_document(b"x" * 100, limits=limits).text == "x" * 100
    with pytest.raises(DocumentLimitExceeded):
        parse_document(b"x" * 101, limits=limits)


def test_a_package_is_named_by_its_folder() -> None:
    document = parse_document(b"def walk():\n    pass\n", file_name="src/legs/__init__.py")
    assert any("legs" in " ".join(each.heading_path) for each in document.sections) or (
        document.title == "legs"
    )
