"""Going on with a text whose beginning has been passed on before."""

__all__ = ["Replay"]


class Replay:
    """Leaves out of a text what its reader has already.

    A reader who was shown the beginning of an answer that then broke off may be shown the rest of
    another only where that one begins with the same words: what has been shown cannot be taken
    back.

    Args:
        shown: The beginning that the reader has; empty for none.

    Attributes:
        deviates: Whether the text has turned out to begin otherwise.
    """

    def __init__(self, shown: str) -> None:
        self._rest = shown
        self.deviates = False

    @property
    def is_behind(self) -> bool:
        """Whether the text has not come to the end of what the reader has."""
        return bool(self._rest)

    def feed(self, text: str) -> str:
        """Takes a further part of the text, and returns what of it is new to the reader."""
        count = min(len(text), len(self._rest))
        if self.deviates or text[:count] != self._rest[:count]:
            self.deviates = True
            return ""
        self._rest = self._rest[count:]
        return text[count:]
