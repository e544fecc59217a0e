"""Names and declarations tell a document's kind under one name each."""

import pytest

from services.rag.core.parsing.media_types import (
    CSV,
    HTML,
    JSON,
    JSON_LINES,
    MARKDOWN,
    PDF,
    PLAIN,
    PYTHON,
    by_declaration,
    by_file_name,
    is_source,
)


@pytest.mark.parametrize(
    ("file_name", "media_type"),
    [
        ("README.MD", MARKDOWN),
        ("https://example.org/a/page.html?print=1.pdf#top", HTML),
        ("/srv/archive.tar/notes.jsonl", JSON_LINES),
        ("report.pdf", PDF),
        ("main.rs", "text/x-rust"),
        ("Makefile", ""),
        (".py", ""),
        ("", ""),
    ],
)
def test_the_last_suffix_of_the_path_tells_the_kind(file_name: str, media_type: str) -> None:
    assert by_file_name(file_name) == media_type


@pytest.mark.parametrize(
    ("declared", "media_type"),
    [
        ("text/x-markdown", MARKDOWN),
        ("application/ld+json", JSON),
        ("application/csv", CSV),
        ("application/typescript", "text/x-typescript"),
        ("text/x-python", PYTHON),
        ("application/octet-stream", ""),
        ("text/plain", ""),
    ],
)
def test_a_declaration_is_known_by_all_of_its_names(declared: str, media_type: str) -> None:
    assert by_declaration(declared) == media_type


def test_every_kind_that_a_name_tells_may_be_declared() -> None:
    names = ("a.c", "a.md", "a.html", "a.py", "a.json", "a.tsv", "a.docx", "a.zig")
    assert all(by_declaration(by_file_name(name)) == by_file_name(name) != "" for name in names)


def test_only_source_code_without_a_parser_of_its_own_is_read_as_source() -> None:
    assert is_source("text/x-go")
    assert not any(is_source(each) for each in (PLAIN, PYTHON, MARKDOWN, HTML, ""))
