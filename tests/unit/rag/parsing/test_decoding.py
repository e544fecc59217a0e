import pytest

from services.rag.core.document_errors import DocumentBinary, DocumentEmpty, DocumentNotUtf8
from services.rag.core.parsing import parse_document
from services.rag.core.parsing.decoding import decode_text


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
