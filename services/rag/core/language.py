"""Which language a text is written in."""

import re
import threading
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

__all__ = ["detect_language"]

# The languages that can be stemmed, those of unspaced scripts, and neighbours that would
# otherwise be taken for one of them: Ukrainian for Russian, Slovak for Czech. `zxx` is no language.
_LANGUAGES = (
    "af ar az be bg bn ca cs da de el en eo es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja "
    "ka kk km kn ko lo lt lv mk ml mr ms my ne nl no pa pl pt ro ru si sk sl sq sr st sv ta te th "
    "tr uk ur vi zh zxx"
)
_NO_LANGUAGE = "zxx"
_LEAST_CONFIDENCE = 0.6
# Fewer letters tell too little: names and commands look like any language.
_LEAST_LETTERS = 12
# Samples from the beginning, the middle and the end, in characters.
_SAMPLE_COUNT = 3
_SAMPLE_CHARACTERS = 1_000
# Han, kana, Hangul, Thai and others whose few letters tell enough.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]"
)
_LEAST_UNSPACED_LETTERS = 4
# Addresses and identifiers are in no language.
_NO_PROSE = re.compile(r"\S*(?:://|[_/\\@{}()<>=;]|\w\.\w)\S*|\d+")

_loading = threading.Lock()


def detect_language(text: str) -> str:
    """Returns the language of a text, an ISO 639-1 code; empty where it is not sure.

    The first call reads the model, which takes about half a second and 60 MB: call it from a
    worker thread. It may be called from several threads.

    Args:
        text: Any text; of a long one only samples are read.
    """
    sample = _NO_PROSE.sub(" ", _sample(text))
    unspaced_count = len(_UNSPACED.findall(sample))
    letter_count = sum(map(str.isalpha, sample))
    if letter_count < _LEAST_LETTERS and unspaced_count < _LEAST_UNSPACED_LETTERS:
        return ""
    with _loading:
        identifier = _identifier()
    language, confidence = identifier.classify(sample)
    if language == _NO_LANGUAGE or confidence < _LEAST_CONFIDENCE:
        return ""
    return str(language)


@cache
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES.split())
    return identifier


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE_COUNT * _SAMPLE_CHARACTERS:
        return text
    step = (len(text) - _SAMPLE_CHARACTERS) // (_SAMPLE_COUNT - 1)
    starts = (index * step for index in range(_SAMPLE_COUNT))
    return "\n".join(text[start : start + _SAMPLE_CHARACTERS] for start in starts)
