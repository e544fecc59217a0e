"""Taking out the characters that a reader does not see but a model does.

Text can hide in a document between visible characters: in zero-width characters, behind marks that
change the direction of writing, in Unicode's tag characters. What is stored is what is seen.
"""

import re

__all__ = ["clean_text"]

_NEWLINE = re.compile(r"\r\n?|[\u2028\u2029\x85]")
_OVERSTRIKE = re.compile(r"[^\n\x08]\x08")
_UNSEEN = re.compile(
    "["
    # Controls, without tab and line feed.
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
    # Soft hyphen, fillers, zero-width characters and invisible operators.
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u3164\ufeff\uffa0"
    # Marks, embeddings, overrides and isolates of the direction of writing.
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"
    # Annotations, halves of surrogate pairs, characters that are none, tags.
    "\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "]"
)
# Variation selectors and joiners shape emoji and several scripts one at a time; rows of them, and
# joiners beside Latin letters, only carry hidden data.
_MANY_SELECTORS = re.compile(r"([\ufe00-\ufe0f])[\ufe00-\ufe0f]+")
_MANY_JOINERS = re.compile(r"([\u200c\u200d])[\u200c\u200d]+")
_STRAY_JOINER = re.compile(
    r"(?<=[\x00-\u024f])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\u024f])|\A[\u200c\u200d]"
)


def clean_text(text: str) -> str:
    """Returns a text with line feeds as its only line breaks and without unseen characters.

    Overstrikes, which terminals use for bold type, leave their last character.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    text = _NEWLINE.sub("\n", text)
    if "\b" in text:
        text = _OVERSTRIKE.sub("", text)
    text = _UNSEEN.sub("", text)
    if text.isascii():
        return text
    text = _MANY_SELECTORS.sub(r"\1", text)
    return _STRAY_JOINER.sub("", _MANY_JOINERS.sub(r"\1", text))
