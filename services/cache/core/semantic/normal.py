"""The form in which two questions are the same question."""

from __future__ import annotations

import unicodedata

__all__ = ["normal_form"]


def normal_form(query: str) -> str:
    """Returns a question in Unicode NFC, trimmed, with white space collapsed to single blanks.

    Case and punctuation stay: questions that differ in them are compared by meaning.
    """
    return " ".join(unicodedata.normalize("NFC", query).split())
