"""Shortened words written out: "don't", "whats", "gonna"."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["written_out"]

# Most words are ones that were read before; at most 4 MiB.
_MOST_KNOWN = 8192
_LONGEST_KNOWN = 32

_WHOLE = {
    "can't": "can not",
    "won't": "will not",
    "shan't": "shall not",
    "ain't": "is not",
    "let's": "let us",
    "y'all": "you",
    "cannot": "can not",
    "gonna": "going to",
    "wanna": "want to",
    "gotta": "have to",
    "lemme": "let me",
    "pls": "please",
    "plz": "please",
    "dont": "do not",
    "doesnt": "does not",
    "didnt": "did not",
    "isnt": "is not",
    "arent": "are not",
    "wasnt": "was not",
    "werent": "were not",
    "cant": "can not",
    "couldnt": "could not",
    "wont": "will not",
    "wouldnt": "would not",
    "shouldnt": "should not",
    "hasnt": "has not",
    "havent": "have not",
    "hadnt": "had not",
    "im": "i am",
    "ive": "i have",
    "whats": "what is",
    "hows": "how is",
    "wheres": "where is",
    "whos": "who is",
    "thats": "that is",
    "theres": "there is",
}
_ENDINGS = {
    "n't": " not",
    "'m": " am",
    "'re": " are",
    "'ve": " have",
    "'ll": " will",
    "'d": " would",
}
# Only after these words is "'s" a verb; elsewhere it marks an owner.
_SHORT_IS = "what|how|where|who|when|why|that|there|it|he|she|here"
_PATTERN = re.compile(
    rf"\b(?:(?P<whole>{'|'.join(_WHOLE)})|(?P<subject>{_SHORT_IS})'s"
    rf"|(?P<stem>[a-z]+?)(?P<ending>{'|'.join(_ENDINGS)}))\b",
    re.IGNORECASE,
)
_LETTERS = re.compile("[a-z]+")
_WITHOUT_APOSTROPHE = frozenset(word for word in _WHOLE if "'" not in word)


def written_out(text: str) -> str:
    """Returns a text with English contractions written out; typographic apostrophes are plain."""
    text = text.replace("\u2019", "'").replace("\u2018", "'")
    # No contraction has a blank in it.
    return " ".join(
        [
            _known_word(word) if len(word) <= _LONGEST_KNOWN else _word(word)
            for word in text.split(" ")
        ]
    )


def _word(word: str) -> str:
    if "'" not in word and _WITHOUT_APOSTROPHE.isdisjoint(_LETTERS.findall(word.casefold())):
        # Looking for each contraction at each letter takes ten times as long.
        return word
    return _PATTERN.sub(_written_out, word)


_known_word = lru_cache(maxsize=_MOST_KNOWN)(_word)


def _written_out(match: re.Match[str]) -> str:
    if match["whole"]:
        # "\u0131" passes for an "i" where case is ignored, and makes no contraction.
        return _WHOLE.get(match["whole"].lower(), match["whole"])
    if match["subject"]:
        return f"{match['subject']} is"
    return match["stem"] + _ENDINGS[match["ending"].lower()]
