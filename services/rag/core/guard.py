"""What of a model's words must not reach the caller: made-up links, and the prompt itself.

A document that carries instructions may have a model send data to an address of the attacker's by
a link, or repeat what it was told. Links that no source holds are taken out, and so is the wording
of the prompt. The text is filtered as it comes: what may become such a stretch is held back until
that is known, everything else passes at once.
"""

import re
from collections.abc import Iterable, Sequence

__all__ = ["REMOVED_ECHO", "REMOVED_LINK", "Guard", "links_of"]

REMOVED_LINK = "(link removed)"
REMOVED_ECHO = "(removed)"

_LINK = re.compile(
    r"(?:(?:https?|ftps?|wss?|file|data|javascript):(?://)?|//(?=\w)|(?<![\w.@])www\.)"
    r"[^\s<>\"'`\])}\u3002\uff0c\u3001]+",
    re.IGNORECASE,
)
_LINK_STARTS = (
    "https://", "http://", "ftp://", "ftps://", "wss://", "ws://", "file://", "data:",
    "javascript:", "www.", "//",
)  # fmt: skip
# Every link holds one of these.
_LINK_SIGNS = ("//", "www.", "http", "ftp", "ws:", "wss:", "file:", "data:", "javascript:")
_TRAILING = ".,;:!?*_~|"
_LONGEST_LINK = 2048
_LEAST_PROTECTED = 24


def links_of(*texts: str) -> frozenset[str]:
    """Returns the links that stand in texts, written one way."""
    return frozenset(
        _plain(each) for text in texts if _may_hold_links(text) for each in _LINK.findall(text)
    )


def _may_hold_links(text: str) -> bool:
    """Says whether it is worth to look for links, which takes a hundred times as long."""
    lowered = text.lower() if text.isascii() else text.casefold()
    if not text.isascii():
        # What counts as the same letter where case is ignored, and has no common small letter.
        lowered = lowered.replace("i\u0307", "i").replace("\u0131", "i")
    return any(sign in lowered for sign in _LINK_SIGNS)


class Guard:
    """Filters one answer.

    Args:
        protected: Stretches of the prompt that are not repeated; short ones are left out.
        known_links: Links that may be given, as by `links_of`; None where any may be.
    """

    def __init__(self, protected: Iterable[str], known_links: frozenset[str] | None) -> None:
        self._protected = tuple(
            each.casefold() for each in protected if len(each) >= _LEAST_PROTECTED
        )
        self._known_links = known_links
        self._held = ""
        self.removed_link_count = 0
        self.removed_echo_count = 0

    def feed(self, text: str) -> str:
        """Takes text, and returns what may be shown now."""
        self._held += text
        self._held = self._without_echoes(self._held)
        safe = self._safe_length(self._held)
        shown, self._held = self._held[:safe], self._held[safe:]
        return self._without_links(shown)

    def finish(self) -> str:
        """Returns what was held back; the text is complete."""
        rest, self._held = self._held, ""
        return self._without_links(self._without_echoes(rest))

    def _without_echoes(self, text: str) -> str:
        for protected in self._protected:
            start = text.casefold().find(protected)
            while start >= 0:
                self.removed_echo_count += 1
                text = f"{text[:start]}{REMOVED_ECHO}{text[start + len(protected) :]}"
                start = text.casefold().find(protected)
        return text

    def _without_links(self, text: str) -> str:
        return text if self._known_links is None else _LINK.sub(self._checked, text)

    def _checked(self, link: re.Match[str]) -> str:
        known = self._known_links or frozenset()
        if link[0].startswith("//") and "." not in link[0]:
            return link[0]
        if _is_known(_plain(link[0]), known):
            return link[0]
        self.removed_link_count += 1
        kept = link[0][len(link[0].rstrip(_TRAILING)) :]
        return f"{REMOVED_LINK}{kept}"

    def _safe_length(self, text: str) -> int:
        """Returns how much of a text nothing that follows can make a stretch to be removed."""
        safe = len(text)
        if self._known_links is not None:
            safe = min(safe, _open_link(text))
        lowered = text.casefold()
        for protected in self._protected:
            safe = min(safe, len(text) - _overlap(lowered, protected))
        return safe


def _open_link(text: str) -> int:
    """Returns where a link begins that may go on after the text, or the text's length."""
    links = list(_LINK.finditer(text))
    if links and links[-1].end() == len(text) and len(links[-1][0]) < _LONGEST_LINK:
        return links[-1].start()
    lowered = text.casefold()
    most = max(_overlap(lowered, start) for start in _LINK_STARTS)
    return len(text) - most


def _overlap(text: str, wanted: str) -> int:
    """Returns the length of the longest end of a text that is a beginning of another."""
    for length in range(min(len(text), len(wanted)), 0, -1):
        if text.endswith(wanted[:length]):
            return length
    return 0


def _plain(link: str) -> str:
    bare = link.rstrip(_TRAILING).casefold()
    for scheme in ("https://", "http://", "//"):
        bare = bare.removeprefix(scheme)
    return bare.removeprefix("www.").rstrip("/")


def _is_known(link: str, known: Sequence[str] | frozenset[str]) -> bool:
    return link in known or link.partition("#")[0].rstrip("/") in known
