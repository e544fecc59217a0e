"""Questions from a file: a line each, or JSON Lines; several wordings of one go together.

Plain text has a question per line, with other wordings after tabs; lines that begin with `#` say
nothing. JSON Lines have `question` and may have a list of `paraphrases`.
"""

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["BadQuestions", "parse_questions"]

_LONGEST_QUESTION = 8_000


class BadQuestions(ValueError):
    """A file of questions that cannot be read."""


def parse_questions(text: str) -> list[tuple[str, ...]]:
    """Reads questions; returns the wordings of each.

    Raises:
        BadQuestions: A line cannot be read, or there is none; the message names all that cannot.
    """
    groups: list[tuple[str, ...]] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            wordings = _wordings(line)
            _check(wordings)
            groups.append(tuple(dict.fromkeys(wordings)))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise BadQuestions("; ".join(problems))
    if not groups:
        raise BadQuestions("there is no question in it")
    return groups


def _wordings(line: str) -> list[str]:
    if not line.lstrip().startswith("{"):
        return [each.strip() for each in line.split("\t") if each.strip()]
    entry: Any = json.loads(line)
    paraphrases = entry.get("paraphrases", [])
    return [entry.get("question"), *(paraphrases if isinstance(paraphrases, list) else [None])]


def _check(wordings: Sequence[Any]) -> None:
    if not wordings:
        raise ValueError("there is no question")
    for each in wordings:
        if not isinstance(each, str) or not each.strip():
            raise ValueError("a question must be a text that is not empty")
        if len(each) > _LONGEST_QUESTION:
            raise ValueError(f"a question has more than {_LONGEST_QUESTION} characters")
