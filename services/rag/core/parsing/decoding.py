"""From received bytes to text."""

import re

from services.rag.core.document_errors import DocumentBinary, DocumentEmpty, DocumentNotUtf8
from services.rag.core.parsing.cleaning import clean_text

__all__ = ["decode_text"]

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
# Control characters that no text holds; tab, line feed, form feed, carriage return, backspace and
# escape do occur in plain text, man pages and terminal logs.
_BINARY_BYTE = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f]")


def decode_text(content: bytes) -> str:
    """Returns the visible text of a document, with line feeds as its only line breaks.

    It must be UTF-8, or UTF-16 with a byte order mark.

    Raises:
        DocumentBinary: It holds bytes that no text holds.
        DocumentNotUtf8: It is no valid UTF-8.
        DocumentEmpty: Nothing visible is in it.
    """
    if content.startswith(_UTF16_BOMS):
        content = _recode(content)
    body = content.removeprefix(_UTF8_BOM)
    skipped = len(content) - len(body)
    binary = _BINARY_BYTE.search(body)
    if binary:
        raise DocumentBinary(skipped + binary.start())
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentNotUtf8(skipped + error.start) from None
    text = clean_text(text)
    if not text.strip():
        raise DocumentEmpty
    return text


def _recode(content: bytes) -> bytes:
    try:
        return content.decode("utf-16").encode()
    except UnicodeError:
        # Neither; the search for binary bytes or the decoding tells where.
        return content
