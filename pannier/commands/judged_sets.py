"""Reads document collections with judged queries, in the layout of BEIR.

A folder holds `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and
`qrels/<split>.tsv` (query id, document id, grade; with or without a heading).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BadJudgedSet", "JudgedDocument", "JudgedQuery", "JudgedSet", "open_judged_set"]

_KEYS = ("_id", "text")
_PREFERRED_SPLITS = ("test", "dev", "train")


class BadJudgedSet(Exception):
    """A folder does not hold what it should."""


@dataclass(frozen=True, slots=True)
class JudgedDocument:
    """A document; its title may be empty."""

    document_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A question with the grades of the documents that were judged."""

    query_id: str
    text: str
    grades: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """A folder that was found to be complete.

    Attributes:
        folder: The folder.
        split: Which judgements.
        queries: The queries that have judgements, in the order of their file.
        document_count: Documents that hold text.
    """

    folder: Path
    split: str
    queries: tuple[JudgedQuery, ...]
    document_count: int

    def documents(self) -> Iterator[JudgedDocument]:
        """Reads the documents one by one, without those that hold no text."""
        for row in _rows(self.folder / "corpus.jsonl"):
            document = JudgedDocument(row["_id"], row.get("title") or "", row["text"])
            if document.text.strip():
                yield document


def open_judged_set(folder: Path, *, split: str = "", limit: int | None = None) -> JudgedSet:
    """Reads the queries and judgements of a folder, and looks through its documents.

    Args:
        folder: The folder.
        split: Which judgements; empty for the only ones, or for those of the test.
        limit: Most queries to take, the first ones; None for all.

    Raises:
        BadJudgedSet: Something is missing, or cannot be read.
    """
    chosen = split or _find_split(folder)
    grades = _read_grades(folder / "qrels" / f"{chosen}.tsv")
    queries = [
        JudgedQuery(row["_id"], row["text"], grades[row["_id"]])
        for row in _rows(folder / "queries.jsonl")
        if row["_id"] in grades
    ]
    if not queries:
        raise BadJudgedSet(f"no query of {folder / 'queries.jsonl'} is judged in {chosen}.tsv")
    judged_set = JudgedSet(folder, chosen, tuple(queries[:limit]), 0)
    document_count = sum(1 for _ in judged_set.documents())
    return JudgedSet(folder, chosen, judged_set.queries, document_count)


def _find_split(folder: Path) -> str:
    splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    if not splits:
        raise BadJudgedSet(f"{folder / 'qrels'} holds no .tsv file of judgements")
    return next((each for each in _PREFERRED_SPLITS if each in splits), splits[0])


def _read_grades(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_lines(path), start=1):
        cells = line.split("\t")
        try:
            query_id, document_id, grade = cells
            grades.setdefault(query_id, {})[document_id] = int(grade)
        except ValueError as error:
            if number > 1:
                raise BadJudgedSet(f"{path}, line {number}: not an id, an id, a grade") from error
    return {query_id: each for query_id, each in grades.items() if each}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in _KEYS):
            raise BadJudgedSet(f"{path}, line {number}: no JSON object with an _id and a text")
        yield row


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    yield line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadJudgedSet(f"{path} cannot be read: {error}") from error
