"""The questions that the quality of semantic hits is measured on."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["QUALITY_FOLDER", "Pair", "Question", "banking", "clinc", "out_of_scope", "pairs"]

QUALITY_FOLDER = Path(__file__).parents[2] / "quality"


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what it is after; questions after the same may share an answer."""

    text: str
    intent: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and in which way they differ."""

    category: str
    question: str
    other: str


def pairs(name: str) -> list[Pair]:
    """Reads a set of our own: "polarity" or "paraphrases"."""
    with (QUALITY_FOLDER / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        return [Pair(*row) for row in rows]


def banking(data: Path, part: str) -> list[Question]:
    """Reads BANKING77: every second training question to tune on, all others to report on."""
    train, test = (_banking_file(data / "banking77" / f"{name}.csv") for name in ("train", "test"))
    return train[::2] if part == "tuning" else train[1::2] + test


def clinc(data: Path, part: str) -> list[Question]:
    """Reads CLINC150's questions in scope: the training part to tune on, the rest to report on."""
    names = ("train",) if part == "tuning" else ("val", "test")
    return _clinc_lists(data, names)


def out_of_scope(data: Path) -> list[Question]:
    """Reads the questions of CLINC150 that belong to none of its intents."""
    return _clinc_lists(data, ("oos_train", "oos_val", "oos_test"))


def _banking_file(path: Path) -> list[Question]:
    with path.open(encoding="utf-8", newline="") as file:
        return [Question(row["text"], row["category"]) for row in csv.DictReader(file)]


def _clinc_lists(data: Path, names: tuple[str, ...]) -> list[Question]:
    lists = json.loads((data / "clinc150" / "data_small.json").read_text(encoding="utf-8"))
    return [Question(text, intent) for name in names for text, intent in lists[name]]
