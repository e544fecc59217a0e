"""What kind of answer a question asks for, and what is left of it once that is said.

"Could you please tell me how I can reset my password?" is a HOW of "reset my password". Phrases
that only ask politely are taken off; what a question asks for is a set, because "is there a way
to" may be read as "how" and as "can I".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from services.cache.core.semantic.question_forms import (
    AUXILIARIES,
    CLAUSE,
    CLOSING,
    CONDITION,
    IN_ORDER,
    LATER_AUXILIARY,
    MEANING,
    MODALS,
    OPENING,
    OPENING_ASKS_FOR,
    POLITE,
    STATEMENT,
    TELLS,
    TIME_CLAUSE,
    Wanted,
)

__all__ = ["Asked", "Tense", "Wanted", "read_question"]


class Tense(Enum):
    """When that of which a question asks takes place."""

    PAST = "past"
    PRESENT = "present"
    FUTURE = "future"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question taken apart.

    Attributes:
        wanted: What it may be read to ask for; not empty.
        tense: Of its first auxiliary verb; None where there is none, and of "has" and "have".
        modal: "can", "must" or "should" where the question turns on it, "is" where it asks how
            things are, else "".
        subject_matter: What is left of the text, clauses parted by " , ".
    """

    wanted: frozenset[Wanted]
    tense: Tense | None
    modal: str
    subject_matter: str


_PLAIN = frozenset({Wanted.ACTION, Wanted.HOW, Wanted.WHAT, Wanted.WHY, Wanted.REMARK})
_TOLD = frozenset({Wanted.ACTION, Wanted.WHAT})
_STATED = frozenset({Wanted.REMARK})
# Of these, the verb may come after the thing that is asked about.
_OF_THINGS = frozenset(
    {Wanted.WHAT, Wanted.AMOUNT, Wanted.WHO, Wanted.WHEN, Wanted.WHERE, Wanted.DEGREE}
)
_OF_FACTS = _OF_THINGS | {Wanted.DURATION, Wanted.FREQUENCY}
_BE = frozenset({"is", "are", "was", "were"})
_TENSES: dict[str, Tense | None] = {
    # "what has been sold" asks for what was sold, and for what is.
    "has": None,
    "have": None,
    "did": Tense.PAST,
    "was": Tense.PAST,
    "were": Tense.PAST,
    "had": Tense.PAST,
    "will": Tense.FUTURE,
    "shall": Tense.FUTURE,
}


def read_question(text: str) -> Asked:
    """Takes a question apart.

    Args:
        text: One question in its normal form, contractions written out.
    """
    text = _without_in_order(text)
    wanted: frozenset[Wanted] = frozenset()
    tense, modal, told = None, "", False
    rests = []
    clauses = CLAUSE.split(text)
    for number, clause in enumerate(clauses, 1):
        plain, tells = _without_politeness(clause)
        told = told or tells
        is_condition = CONDITION.match(clause) or (
            number < len(clauses) and TIME_CLAUSE.match(plain)
        )
        if not wanted and not is_condition:
            is_indirect = plain != clause.strip(" ,.!?;:")
            wanted, tense, modal, plain = _opening(plain)
            if is_indirect and Wanted.DEGREE in wanted:
                # "tell me how it works" has no verb where "how does it work" has one.
                wanted |= {Wanted.HOW}
        if plain.strip():
            rests.append(plain.strip())
    rest = " , ".join(rests)
    if Wanted.WHAT in wanted:
        rest = MEANING.sub(" ", rest).strip()
    if not wanted:
        wanted = _TOLD if told else _STATED if STATEMENT.match(rest) else _PLAIN
    return Asked(
        wanted=wanted,
        tense=tense,
        modal=modal,
        subject_matter=rest,
    )


def _without_in_order(text: str) -> str:
    lower = text.lower()
    if text.isascii() and not ("order to" in lower or "so as to" in lower or "step" in lower):
        # Most questions; looking for the pattern at each letter takes ten times as long.
        return text
    return IN_ORDER.sub("", text)


def _without_politeness(clause: str) -> tuple[str, bool]:
    told = False
    clause = clause.strip(" ,.!?;:")
    while match := POLITE.match(clause):
        if match.end() == 0:
            break
        told = told or bool(TELLS.search(match[0]))
        clause = clause[match.end() :]
    return CLOSING.sub("", clause + " "), told


def _opening(clause: str) -> tuple[frozenset[Wanted], Tense | None, str, str]:
    """Finds what a clause asks for; nothing where it does not begin like a question."""
    match = OPENING.match(clause)
    if match is None or match.lastindex is None:
        return frozenset(), None, "", clause
    wanted = OPENING_ASKS_FOR[match.lastindex - 1]
    rest = clause[match.end() :]
    auxiliary = AUXILIARIES.match(rest)
    if auxiliary is not None:
        rest = rest[auxiliary.end() :]
    elif wanted & _OF_THINGS:
        # "which files were deleted", "which settings must be changed"
        auxiliary = LATER_AUXILIARY.match(rest)
    if auxiliary is None:
        return wanted, None, _modal_of(wanted, match[0]), rest
    word = auxiliary["auxiliary"].lower()
    # "what is deleted" asks for less than "what can be deleted".
    modal = "is" if word in _BE and wanted & _OF_FACTS else MODALS.get(word, "")
    return wanted, _TENSES.get(word, Tense.PRESENT), modal, rest


def _modal_of(wanted: frozenset[Wanted], opening: str) -> str:
    if len(wanted) > 1 or wanted <= {Wanted.HOW}:
        return ""
    return next((MODALS[word] for word in opening.lower().split() if word in MODALS), "")
