"""Questions about how things stand when they are asked, though they name no time.

"Is the shop already open?", "when is the next meeting?" and "how many days are left?" have another
answer later. The words that show it have other uses too ("next.js", "left join", "open source"), so
they count in questions of these kinds only.
"""

from __future__ import annotations

import re

__all__ = ["ASKING", "asks_about_now"]

# Each mark belongs to the word before it: were it either one's, time would double with every word.
ASKING = (
    r"\W*(?:(?:please|can you|could you|would you|will you|i (?:want|need|would like) to|hi|hello"
    r"|hey|so)\b\W*)*"
)
"""What a question may begin with without being another one."""

# Words up to the one that counts; a condition, a purpose or a reason makes a question general.
_GENERAL = r"(?:if|when|whenever|while|after|once|without|unless|to|than|why|reasons?)\b"
_WORDS = rf"(?:(?!{_GENERAL})[\w'/.-]+,? )"
_END = r"(?=[?!.\s]*$)"
_IS = r"(?:is|are)"
_BE = r"(?:is|are|was|were|has|have|had|does|do|did|will)"

# What comes next of things of which there is always another one.
_RECURRING = (
    r"(?:appointment|board|bus|call|class|concert|conference|course|deadline|election|episode|event"
    r"|exam|ferry|flight|game|holiday|launch|lecture|lesson|maintenance|match|meeting|meetup|payday"
    r"|payment|race|release|season|session|shift|show|sprint|stand-?up|summit|train|training|update"
    r"|vacation|version|webinar|window|workshop)(?:e?s)?"
)
_NEXT = r"(?<![\w.-])next(?![.(-]|\s*\(|\s+(?:to|door|js|generation)\b)"
# Of these the next one is the same whenever it is asked for.
_IN_ORDER = (
    r"(?:block|byte|cell|character|column|element|entry|field|frame|instruction|item|iteration|level"
    r"|line|node|number|page|prime|record|row|sentence|sibling|state|step|tag|token|value|word)s?"
)
_STILL = (
    r"(?<![\"'\u201c\w-])(?:already|still(?!\s+(?:water|life|image|picture|frame|birth)s?\b)"
    r"|yet(?!\s+another\b))(?![\"'\u201d\w-])"
)
_UP = r"(?<!top )(?<!topping )(?<!set )(?<!sign )(?<!back )up"
_STATE = (
    rf"(?:open|closed|down|{_UP}|running|available|unavailable|online|offline|reachable|sold out"
    r"|out of (?:order|service|stock)|in stock)"
)
_AMOUNT = r"how (?:many|much|long)"
_TIME = "seconds|minutes|hours|days|nights|weeks|months|years|time|longer"
_REST = r"(?:left|remain(?:s|ing)?)"

_QUESTIONS = (
    rf"(?:when|who|where|what (?:time|day|date))\b[^?]*?{_NEXT}(?!\s+(?:\w+\s+)?{_IN_ORDER}\b)",
    rf"(?:what|which|{_AMOUNT}|{_IS}|does|will)\b[^?]*?{_NEXT}\s+(?:\w+ ){{0,2}}?{_RECURRING}\b",
    # "are we still hiring", "has the release been published yet", "who is still there"
    rf"(?:(?:who|which|where|when|what|{_AMOUNT}) {_WORDS}{{0,4}}?)?{_BE} {_WORDS}{{0,8}}?{_STILL}"
    rf"(?! {_WORDS}{{0,8}}?{_GENERAL})",
    # "is the server down", "are there tickets available"
    rf"{_IS} (?!(?:an?|every|each) ){_WORDS}{{1,6}}?{_STATE}(?: or \w+| and running| again)?{_END}",
    # "how many days until christmas", "how long is it till the start"
    rf"{_AMOUNT}(?: more)?(?: (?:{_TIME}))?(?: {_IS} (?:it|there|we))?(?: (?:left|to go))?"
    r" (?:until|till)\b",
    # "how much time is left", "how many seats remain"
    rf"{_AMOUNT} {_WORDS}{{0,6}}?(?:(?:(?<!be )(?<!shift ){_REST}{_END})"
    rf"|{_IS} (?:still )?(?:left|remaining)\b(?! {_WORDS}{{0,8}}?{_GENERAL}))",
)
_QUESTION = re.compile(rf"{ASKING}(?:{'|'.join(_QUESTIONS)})", re.IGNORECASE)


def asks_about_now(text: str) -> bool:
    """Returns whether a question asks for a state that passes.

    Args:
        text: The question, contractions written out.
    """
    return _QUESTION.match(text) is not None
