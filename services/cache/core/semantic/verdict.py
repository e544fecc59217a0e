"""What is found out about a match, and by whom."""

from enum import Enum

__all__ = ["Judge", "Verdict"]


class Verdict(Enum):
    """Whether a match was right; the values are the labels it is counted under."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


class Judge(Enum):
    """Who judges.

    Attributes:
        EVIDENCE: A comparison of passages: says that the match is wrong, not that the answer is.
        RECOMPUTATION: A comparison with an answer computed anew.
        MODEL: A model.
        PERSON: A person.
    """

    EVIDENCE = "evidence"
    RECOMPUTATION = "recomputation"
    MODEL = "model"
    PERSON = "person"
