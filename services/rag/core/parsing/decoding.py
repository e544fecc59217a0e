"""From received bytes to text, and what kind of document it is."""

import re
from pathlib import PurePosixPath

from services.rag.core.errors import (
    DocumentBinary,
    DocumentEmpty,
    DocumentNotUtf8,
    MediaTypeUnsupported,
)

__all__ = ["HTML", "MARKDOWN", "PLAIN", "PYTHON", "decode_text", "detect_media_type"]

PLAIN = "text/plain"
MARKDOWN = "text/markdown"
HTML = "text/html"
PYTHON = "text/x-python"

_BY_SUFFIX = {
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".mdx": MARKDOWN,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".py": PYTHON,
    ".pyi": PYTHON,
}
_BY_DECLARATION = {
    "text/markdown": MARKDOWN,
    "text/x-markdown": MARKDOWN,
    "text/html": HTML,
    "application/xhtml+xml": HTML,
    "text/x-python": PYTHON,
    "text/x-script.python": PYTHON,
    "application/x-python": PYTHON,
}
# First bytes of formats that need a parser of their own.
_SIGNATURES = (
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"\x1f\x8b", "application/gzip"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"{\\rtf", "application/rtf"),
)
_UTF8_BOM = b"\xef\xbb\xbf"
# Control characters that no text holds; tab, line feed, form feed, carriage return, backspace and
# escape do occur in plain text, man pages and terminal logs.
_BINARY_BYTE = re.compile(rb"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_OVERSTRIKE = re.compile(r"[^\n\x08]\x08")
_NEWLINE = re.compile(r"\r\n?|\u2028|\u2029|\x85")
_HTML_START = re.compile(r"<(?:!doctype\s+html|html)\b", re.I)
# What may stand before that.
_HTML_PROLOGUE = re.compile(r"<\?xml|<!--", re.I)
_SPACE = re.compile(r"\s*")
_LOOKS_LIKE_MARKDOWN = re.compile(r"^(?:#{1,6} \S|```|~~~)", re.M)


def decode_text(content: bytes) -> str:
    """Returns the text of a document, with line feeds as its only line breaks.

    A byte order mark is dropped, and so are control characters and the overstrikes that terminals
    use for bold type.

    Raises:
        MediaTypeUnsupported: It is a known format that is not text.
        DocumentBinary: It holds bytes that no text holds.
        DocumentNotUtf8: It is no valid UTF-8.
        DocumentEmpty: Nothing visible is in it.
    """
    for signature, media_type in _SIGNATURES:
        if content.startswith(signature):
            raise MediaTypeUnsupported(media_type)
    body = content.removeprefix(_UTF8_BOM)
    skipped = len(content) - len(body)
    binary = _BINARY_BYTE.search(body)
    if binary:
        raise DocumentBinary(skipped + binary.start())
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentNotUtf8(skipped + error.start) from None
    text = _CONTROL.sub("", _OVERSTRIKE.sub("", _NEWLINE.sub("\n", text)))
    if not text.strip("\ufeff\u200b\u2060 \t\n"):
        raise DocumentEmpty
    return text


def detect_media_type(text: str, *, file_name: str = "", declared: str = "") -> str:
    """Returns what kind of text this is: what it plainly is, then what it is called.

    Args:
        text: The decoded text.
        file_name: Name or path of the document; may be empty.
        declared: Media type the sender gave; may be empty, may have parameters.

    Raises:
        MediaTypeUnsupported: The sender declared a type that is not text.
    """
    if _looks_like_html(text):
        return HTML
    media_type = declared.partition(";")[0].strip().lower()
    if media_type in _BY_DECLARATION:
        return _BY_DECLARATION[media_type]
    if media_type.startswith(("image/", "audio/", "video/")):
        raise MediaTypeUnsupported(media_type)
    by_name = _BY_SUFFIX.get(PurePosixPath(file_name).suffix.lower())
    if by_name:
        return by_name
    if not PurePosixPath(file_name).suffix and _LOOKS_LIKE_MARKDOWN.search(text):
        return MARKDOWN
    return PLAIN


def _looks_like_html(text: str) -> bool:
    position = _skip_space(text, 0)
    while opening := _HTML_PROLOGUE.match(text, position):
        ending = "-->" if opening[0] == "<!--" else "?>"
        end = text.find(ending, opening.end())
        if end < 0:
            return False
        position = _skip_space(text, end + len(ending))
    return _HTML_START.match(text, position) is not None


def _skip_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position
