"""English words as terms: stemmed, without those that say nothing about a subject."""

import re

import Stemmer

_WORD = re.compile(r"[a-z0-9]+")
_STOP_WORDS_TEXT = """
a about all also am an and any are as at be because been but by can could did do does doing
each for from get had has have how i if in into is it its just like may me might more most
must my no not of on one only or other our out over shall should so some such tell than that
the their them then there these they this those through to too under up us use used using
very was way we were what when where which while who whom whose why will with would you your
please question explain describe
"""
_STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())


def find_terms(text: str) -> list[str]:
    """The stems of a text's words in order, stop words left out; identifiers fall apart."""
    words = [word for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]
    return [str(stem) for stem in Stemmer.Stemmer("english").stemWords(words)]
