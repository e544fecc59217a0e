import zipfile
from io import BytesIO

import pytest

from services.rag.core.document_errors import MediaTypeUnsupported
from services.rag.core.parsing import is_heavy, parse_document
from services.rag.core.parsing.detection import detect_text


def zip_of(*names: str) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as container:
        for name in names:
            container.writestr(name, "content")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (zip_of("readme.txt"), "application/zip"),
        (
            zip_of("xl/workbook.xml"),
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\x1f\x8bpacked", "application/gzip"),
        (b"{\\rtf1 text}", "application/rtf"),
    ],
)
def test_formats_without_a_parser_are_named_whatever_the_file_is_called(
    content: bytes, media_type: str
) -> None:
    with pytest.raises(MediaTypeUnsupported) as caught:
        parse_document(content, file_name="claims-to-be.txt", media_type="text/plain")
    assert caught.value.metadata["media_type"] == media_type


def test_a_declared_image_is_refused_even_if_it_decodes() -> None:
    with pytest.raises(MediaTypeUnsupported):
        parse_document(b"<svg></svg>", media_type="image/svg+xml")


@pytest.mark.parametrize(
    ("text", "file_name", "declared", "expected"),
    [
        ("x", "a.md", "", "text/markdown"),
        ("x", "dir/A.MARKDOWN", "", "text/markdown"),
        ("x", "https://host.invalid/a.md?raw=1#top", "", "text/markdown"),
        ("x", "a.py", "", "text/x-python"),
        ("x", "a.htm", "", "text/html"),
        ("x", "a.rst", "", "text/plain"),
        ("x", "", "text/html; charset=utf-8", "text/html"),
        ("x", "a.txt", "text/markdown", "text/markdown"),
        ("x", "a.py", "text/markdown", "text/x-python"),
        ("# Head\n", "README", "", "text/markdown"),
        ("# a comment\n", "a.conf", "", "text/plain"),
        ("<!DOCTYPE html><p>x", "a.txt", "text/plain", "text/html"),
        ("<!-- c --> <HTML>", "a.md", "", "text/html"),
        ('{"a": 1}', "", "", "application/json"),
        ("[1, 2]", "a.py", "", "text/x-python"),
        ('{"a": 1}\n{"a": 2}\n', "", "", "application/jsonl"),
        ("#!/usr/bin/env -S python3\nx = 1\n", "tool", "", "text/x-python"),
        ("a\tb\n1\t2\n3\t4\n", "", "", "text/tab-separated-values"),
        ("x", "", "application/vnd.api+json", "text/plain"),
    ],
)
def test_the_kind_is_told_by_content_then_name_then_declaration(
    text: str, file_name: str, declared: str, expected: str
) -> None:
    assert detect_text(text, file_name=file_name, declared=declared).media_type == expected


@pytest.mark.parametrize(
    ("content", "name", "media_type"),
    [
        (b"plain words", "a.pdf", "text/plain"),
        (b"not json at all", "a.json", "text/plain"),
        (b'{"a": 1}\n{"a": 2}', "a.json", "application/json"),
    ],
)
def test_a_name_that_the_content_contradicts_is_passed_over(
    content: bytes, name: str, media_type: str
) -> None:
    document = parse_document(content, file_name=name)
    assert document.media_type == media_type
    assert bool(document.warnings) == (media_type == "text/plain")


def test_what_is_large_or_packed_is_heavy() -> None:
    assert not is_heavy(b"short text")
    assert is_heavy(b"%PDF-1.7")
    assert is_heavy(zip_of("word/document.xml"))
    assert is_heavy(b"x" * 100_000)
