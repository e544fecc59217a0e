"""Finds the files to ingest and reads them in parts."""

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PART_BYTES", "SUFFIXES", "SameIdTwice", "SourceFile", "find_files", "read_parts"]

SUFFIXES = frozenset(
    f".{suffix}"
    for suffixes in (
        "md markdown mdx txt text rst adoc org log tex",
        "html htm xhtml pdf docx docm",
        "json geojson jsonl ndjson csv tsv tab",
        "py pyi c h cc cpp cxx hh hpp hxx ipp cu cuh ino cs css scss less dart ex exs go groovy",
        "gradle hs java js mjs cjs jsx jl kt kts lua m mm pl pm php proto r rb rake rs scala sc",
        "sh bash zsh ksh sql swift ts tsx mts cts zig yaml yml toml ini cfg",
    )
    for suffix in suffixes.split()
)
PART_BYTES = 256 * 1024


class SameIdTwice(Exception):
    """Two files would be stored as the same document."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to ingest.

    Attributes:
        document_id: Its path relative to the folder that was named, or its name; bytes that are no
            UTF-8 are written as escapes.
        path: Where it is.
    """

    document_id: str
    path: Path


def find_files(paths: Sequence[Path]) -> list[SourceFile]:
    """Finds files, by document id.

    Folders are searched with all folders below them, for files with one of `SUFFIXES`; what begins
    with a dot is passed over, and links to folders are not followed. A file that is named itself
    is taken whatever its suffix.

    Args:
        paths: Files and folders.

    Raises:
        FileNotFoundError: One of the paths does not exist.
        SameIdTwice: Two files would have the same document id.
    """
    found: dict[str, SourceFile] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        for source in _below(path) if path.is_dir() else [_source(path.name, path)]:
            other = found.setdefault(source.document_id, source)
            if other.path.resolve() != source.path.resolve():
                raise SameIdTwice(
                    f"{other.path} and {source.path} would both be stored as "
                    f"{source.document_id}: name a folder above both, or use two collections"
                )
    return [found[document_id] for document_id in sorted(found)]


def _below(folder: Path) -> Iterator[SourceFile]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES:
                yield _source(path.relative_to(folder).as_posix(), path)


def _source(name: str, path: Path) -> SourceFile:
    return SourceFile(os.fsencode(name).decode(errors="backslashreplace"), path)


def read_parts(path: Path) -> Generator[tuple[bytes, bool], None, None]:
    """Yields the parts of a file with whether each is the last; an empty file has one empty part.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        part = file.read(PART_BYTES)
        while True:
            following = file.read(PART_BYTES) if len(part) == PART_BYTES else b""
            yield part, not following
            if not following:
                return
            part = following
