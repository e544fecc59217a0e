"""The media types that documents have, by file name and by what senders call them."""

import re
from pathlib import PurePosixPath

__all__ = [
    "CSV",
    "DOCX",
    "HTML",
    "JSON",
    "JSON_LINES",
    "MARKDOWN",
    "PDF",
    "PLAIN",
    "PYTHON",
    "TSV",
    "ZIP",
    "by_declaration",
    "by_file_name",
    "is_source",
]

PLAIN = "text/plain"
MARKDOWN = "text/markdown"
HTML = "text/html"
PYTHON = "text/x-python"
JSON = "application/json"
JSON_LINES = "application/jsonl"
CSV = "text/csv"
TSV = "text/tab-separated-values"
PDF = "application/pdf"
ZIP = "application/zip"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

_SOURCES = {
    "text/x-c": "c h",
    "text/x-c++": "cc cpp cxx hh hpp hxx ipp cu cuh ino",
    "text/x-csharp": "cs",
    "text/css": "css scss less",
    "text/x-dart": "dart",
    "text/x-elixir": "ex exs",
    "text/x-go": "go",
    "text/x-groovy": "groovy gradle",
    "text/x-haskell": "hs",
    "text/x-java": "java",
    "text/javascript": "js mjs cjs jsx",
    "text/x-julia": "jl",
    "text/x-kotlin": "kt kts",
    "text/x-lua": "lua",
    "text/x-objective-c": "m mm",
    "text/x-perl": "pl pm",
    "text/x-php": "php",
    "text/x-protobuf": "proto",
    "text/x-r": "r",
    "text/x-ruby": "rb rake",
    "text/x-rust": "rs",
    "text/x-scala": "scala sc",
    "text/x-shellscript": "sh bash zsh ksh",
    "text/x-sql": "sql",
    "text/x-swift": "swift",
    "text/x-typescript": "ts tsx mts cts",
    "text/x-zig": "zig",
}
_BY_SUFFIX = {
    **{f".{suffix}": each for each, suffixes in _SOURCES.items() for suffix in suffixes.split()},
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".mdx": MARKDOWN,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".py": PYTHON,
    ".pyi": PYTHON,
    ".json": JSON,
    ".geojson": JSON,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".csv": CSV,
    ".tsv": TSV,
    ".tab": TSV,
    ".pdf": PDF,
    ".docx": DOCX,
    ".docm": DOCX,
}
_BY_DECLARATION = {
    **{media_type: media_type for media_type in (*_SOURCES, *_BY_SUFFIX.values())},
    "text/x-markdown": MARKDOWN,
    "application/xhtml+xml": HTML,
    "text/x-script.python": PYTHON,
    "application/x-python": PYTHON,
    "application/javascript": "text/javascript",
    "application/typescript": "text/x-typescript",
    "application/x-sh": "text/x-shellscript",
    "application/sql": "text/x-sql",
    "text/json": JSON,
    "application/x-ndjson": JSON_LINES,
    "application/ndjson": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/csv": CSV,
    "text/x-csv": CSV,
    "text/tsv": TSV,
    "application/x-pdf": PDF,
}
_QUERY = re.compile(r"[?#].*", re.S)


def by_file_name(file_name: str) -> str:
    """Returns the media type that a name, path or URI tells; empty where it tells none."""
    return _BY_SUFFIX.get(PurePosixPath(_QUERY.sub("", file_name)).suffix.lower(), "")


def by_declaration(media_type: str) -> str:
    """Returns our name for a media type in lower case; empty where it says too little."""
    if media_type.endswith("+json"):
        return JSON
    return _BY_DECLARATION.get(media_type, "")


def is_source(media_type: str) -> bool:
    """Returns whether it is source code that `parse_source` reads."""
    return media_type in _SOURCES
