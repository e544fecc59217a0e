import pytest

from services.rag.core.errors import (
    DocumentBinary,
    DocumentEmpty,
    DocumentNotUtf8,
    MediaTypeUnsupported,
)
from services.rag.core.parsing import parse_document
from services.rag.core.parsing.decoding import decode_text, detect_media_type


def test_a_byte_order_mark_is_dropped_and_newlines_become_one_kind() -> None:
    assert decode_text(b"\xef\xbb\xbfa\r\nb\rc\nd") == "a\nb\nc\nd"


def test_overstrikes_and_control_characters_are_dropped() -> None:
    assert decode_text("N\bNA\bAME \x1b[1m\x85x".encode()) == "NAME [1m\nx"


@pytest.mark.parametrize("content", [b"a\x00b", b"# Title\n\x01\x02", "text".encode("utf-16-be")])
def test_binary_bytes_are_refused_whatever_the_name(content: bytes) -> None:
    with pytest.raises(DocumentBinary):
        parse_document(content, file_name="notes.md", media_type="text/markdown")


def test_the_place_of_invalid_utf8_is_told() -> None:
    with pytest.raises(DocumentNotUtf8) as caught:
        parse_document(b"\xef\xbb\xbfabc \xe9t\xe9", file_name="latin1.txt")
    assert caught.value.metadata == {"byte_offset": "7"}


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n", "\ufeff\u200b\n".encode()])
def test_a_document_without_visible_text_is_refused(content: bytes) -> None:
    with pytest.raises(DocumentEmpty):
        parse_document(content, file_name="empty.txt")


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"%PDF-1.7 text", "application/pdf"),
        (b"PK\x03\x04rest", "application/zip"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
    ],
)
def test_formats_without_a_parser_are_named(content: bytes, media_type: str) -> None:
    with pytest.raises(MediaTypeUnsupported) as caught:
        parse_document(content, file_name="claims-to-be.txt")
    assert caught.value.metadata["media_type"] == media_type


def test_a_declared_image_is_refused_even_if_it_decodes() -> None:
    with pytest.raises(MediaTypeUnsupported):
        parse_document(b"<svg></svg>", media_type="image/svg+xml")


@pytest.mark.parametrize(
    ("text", "file_name", "declared", "expected"),
    [
        ("x", "a.md", "", "text/markdown"),
        ("x", "dir/A.MARKDOWN", "", "text/markdown"),
        ("x", "a.py", "", "text/x-python"),
        ("x", "a.htm", "", "text/html"),
        ("x", "a.rst", "", "text/plain"),
        ("x", "", "text/html; charset=utf-8", "text/html"),
        ("x", "a.txt", "text/markdown", "text/markdown"),
        ("# Head\n", "README", "", "text/markdown"),
        ("# a comment\n", "a.conf", "", "text/plain"),
        ("<!DOCTYPE html><p>x", "a.txt", "text/plain", "text/html"),
        ("<!-- c --> <HTML>", "a.md", "", "text/html"),
    ],
)
def test_the_kind_is_told_by_content_then_declaration_then_name(
    text: str, file_name: str, declared: str, expected: str
) -> None:
    assert detect_media_type(text, file_name=file_name, declared=declared) == expected
