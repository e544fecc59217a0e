"""What is found out about a match, and by whom."""

from enum import Enum

__all__ = ["Finding", "Judge", "Verdict", "finding_of"]


class Verdict(Enum):
    """Whether a match was right; the values are the labels it is counted under."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


class Judge(Enum):
    """Who judges.

    Attributes:
        EVIDENCE: A comparison of passages: says whether the answer may be given to the question
            at hand, neither that it is right nor that the entry is wrong.
        RECOMPUTATION: A comparison with an answer computed anew.
        MODEL: A model.
        PERSON: A person.
    """

    EVIDENCE = "evidence"
    RECOMPUTATION = "recomputation"
    MODEL = "model"
    PERSON = "person"


class Finding(Enum):
    """What a verdict says about matches as similar; the values are names in the shared store.

    Attributes:
        RIGHT: An answer that was given is right.
        WRONG: An answer that was given is wrong.
        UNFIT: An answer would have been wrong, and was not given.
    """

    RIGHT = "r"
    WRONG = "w"
    UNFIT = "u"


def finding_of(verdict: Verdict, judge: Judge) -> Finding | None:
    """Returns what a verdict says about matches as similar, or None where it says nothing.

    That the same passages are found shows no answer to be right: "turn on" and "turn off" find the
    same. Only who has looked at the answer itself can tell.

    Args:
        verdict: Whether the match was right.
        judge: Who says so.
    """
    if verdict is Verdict.UNDECIDED:
        return None
    if judge is Judge.EVIDENCE:
        return Finding.UNFIT if verdict is Verdict.WRONG else None
    return Finding.RIGHT if verdict is Verdict.RIGHT else Finding.WRONG
