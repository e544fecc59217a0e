"""What kind of document some bytes are.

The content decides first, where it is plain: the first bytes of a binary format, the members of a
zip container, the doctype of a page. Much text could be several things: a line of JSON is also
Python, a list is also Markdown. There the file name decides, then the sender's media type, then
what the text looks like. A name or type that the content cannot be is passed over with a warning;
one that says little, such as `.txt` or `text/plain`, counts as none.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from services.rag.core.document_errors import MediaTypeUnsupported
from services.rag.core.parsing import media_types as types
from services.rag.core.parsing.json_text import is_json, is_json_lines
from services.rag.core.parsing.table import find_delimiter

__all__ = ["Detected", "detect_container", "detect_text"]

# First bytes of formats that are not text.
_SIGNATURES = (
    (b"%PDF-", types.PDF),
    (b"PK\x03\x04", types.ZIP),
    (b"PK\x05\x06", types.ZIP),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"\x1f\x8b", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"\x7fELF", "application/x-elf"),
    (b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (b"{\\rtf", "application/rtf"),
    (b"%!PS", "application/postscript"),
)
# Readers of PDF accept a little before the signature.
_PDF_SEARCH_BYTES = 1024
_BINARY_PREFIXES = ("image/", "audio/", "video/", "font/")

_HTML_START = re.compile(r"<(?:!doctype\s+html|html)\b", re.I)
# What may stand before that.
_HTML_PROLOGUE = re.compile(r"<\?xml|<!--", re.I)
_SPACE = re.compile(r"\s*")
_LOOKS_LIKE_MARKDOWN = re.compile(r"^(?:#{1,6} \S|```|~~~)", re.M)
_SHEBANG = re.compile(r"#!\S*/(?:env +(?:-S +)?)?(?P<program>[a-z]+)")
_PHP_START = re.compile(r"\s*<\?php\b")
_PROGRAMS = {
    "python": types.PYTHON,
    "pypy": types.PYTHON,
    "sh": "text/x-shellscript",
    "bash": "text/x-shellscript",
    "zsh": "text/x-shellscript",
    "ruby": "text/x-ruby",
    "perl": "text/x-perl",
    "node": "text/javascript",
    "lua": "text/x-lua",
    "php": "text/x-php",
}
# A table without a name that says so must be this regular.
_UNNAMED_TABLE_ROWS = 3


@dataclass(frozen=True, slots=True)
class Detected:
    """What a document is, and what was said of it that it is not."""

    media_type: str
    warnings: tuple[str, ...] = ()


def detect_container(content: bytes) -> str:
    """Returns the media type of a format that is not text, by its first bytes; empty for others."""
    for signature, media_type in _SIGNATURES:
        if content.startswith(signature):
            return media_type
    head = content[:_PDF_SEARCH_BYTES]
    if b"%PDF-" in head and b"\0" not in head.partition(b"%PDF-")[0]:
        is_line_start = head.partition(b"%PDF-")[0].endswith((b"\n", b"\r"))
        return types.PDF if is_line_start and b"%%EOF" in content[-_PDF_SEARCH_BYTES:] else ""
    return ""


def detect_text(text: str, *, file_name: str = "", declared: str = "") -> Detected:
    """Returns what kind of text this is.

    Args:
        text: The decoded text.
        file_name: Name or path of the document; may be empty.
        declared: Media type the sender gave; may be empty, may have parameters.

    Raises:
        MediaTypeUnsupported: The sender declared a type that is not text, and nothing tells
            otherwise.
    """
    if _looks_like_html(text):
        return Detected(types.HTML)
    by_name = types.by_file_name(file_name)
    said = declared.partition(";")[0].strip().lower()
    by_sender = types.by_declaration(said)
    warnings: list[str] = []
    for source, media_type in (("name", by_name), ("media type", by_sender)):
        if not media_type:
            continue
        if _may_be(text, media_type):
            return Detected(media_type, tuple(warnings))
        warnings.append(f"The content is not {media_type}, as the {source} says.")
    if said.startswith(_BINARY_PREFIXES) and not by_name:
        raise MediaTypeUnsupported(said)
    if warnings:
        # A broken file of another kind: what it looks like is not to be trusted either.
        return Detected(types.PLAIN, tuple(warnings))
    return Detected(_guess(text, file_name))


def _may_be(text: str, media_type: str) -> bool:
    if media_type == types.JSON:
        return is_json(text) or is_json_lines(text)
    if media_type == types.JSON_LINES:
        return is_json_lines(text)
    return media_type not in (types.PDF, types.DOCX, types.ZIP)


def _guess(text: str, file_name: str) -> str:
    shebang = _SHEBANG.match(text)
    if shebang and shebang["program"] in _PROGRAMS:
        return _PROGRAMS[shebang["program"]]
    if _PHP_START.match(text):
        return "text/x-php"
    if text.lstrip()[:1] in ("{", "["):
        if is_json(text):
            return types.JSON
        if is_json_lines(text):
            return types.JSON_LINES
    if PurePosixPath(file_name).suffix:
        return types.PLAIN
    if _LOOKS_LIKE_MARKDOWN.search(text):
        return types.MARKDOWN
    if find_delimiter(text, minimum_rows=_UNNAMED_TABLE_ROWS) == "\t":
        return types.TSV
    return types.PLAIN


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
