"""What kind of thing a question asks for, told from its words alone, for whoever counts questions.

The first rule that fits counts:

1. `follow_up`: there was something said before, and the question leans on it.
2. `comparison`: it sets things against each other: compare, difference, versus, better than.
3. `how_to`: it asks for a way to do something: how do I, how to, steps to.
4. `why`: it asks for a reason.
5. `definition`: it asks what or who something is: what is, who is, define, meaning of.
6. `fact`: it begins with another question word: who, when, where, which, how many.
7. `yes_no`: it begins with a verb that wants a yes or a no.
8. `instruction`: it begins with a verb that wants something done: list, summarize, translate.
9. `keywords`: no question mark, and few words.
10. `other`: anything else, other languages than English and German among it.
"""

import re
from enum import Enum

from services.rag.core.followup import leans_on_history

__all__ = ["QueryType", "query_type"]

# What a question asks for shows at its beginning; the rest may be a whole document.
_LONGEST_CONSIDERED = 300
_MOST_KEYWORDS = 6


class QueryType(Enum):
    """What a question asks for; the values label metrics."""

    FOLLOW_UP = "follow_up"
    COMPARISON = "comparison"
    HOW_TO = "how_to"
    WHY = "why"
    DEFINITION = "definition"
    FACT = "fact"
    YES_NO = "yes_no"
    INSTRUCTION = "instruction"
    KEYWORDS = "keywords"
    OTHER = "other"


_COMPARISON = re.compile(
    r"\b(?:compare[ds]?|comparison|versus|vs|differ(?:s|ences?|ent from)?|better than|worse than"
    r"|pros and cons|vergleich(?:e|en|t)?|unterschied(?:e|en|lich)?|besser als|schlechter als"
    r"|vor- und nachteile|im gegensatz zu)\b"
)
_HOW_TO = re.compile(
    r"(?:how (?:do|does|can|could|should|would|to|might)\b|how'?d (?:i|you|we)\b"
    r"|what(?:'s| is| are) the (?:best way|way|steps?|procedure)\b"
    r"|(?:steps?|instructions?) (?:to|for)\b"
    r"|wie (?:kann|könnte|muss|soll|sollte|mache?|macht|geht|gehe|lässt|lassen|bekomme?|stelle?"
    r"|installiere?|richte?|werde?n?|wird)\b|anleitung\b)"
)
_WHY = re.compile(r"(?:why\b|how come\b|what causes?\b|warum\b|weshalb\b|wieso\b|weswegen\b)")
_DEFINITION = re.compile(
    r"(?:what(?:'s| is| are| was| were)\b(?! (?:the )?(?:number|name|date|time|price|cost|size"
    r"|limit|value|default|maximum|minimum|length|version|address)\b)"
    r"|what does .{1,80} mean\b|define\b|definition of\b|meaning of\b|who (?:is|was|are|were)\b"
    r"|was (?:ist|sind|war|waren|bedeutet|heißt|versteht man)\b"
    r"|wer (?:ist|sind|war|waren)\b|definition\b|erkläre?\b|explain\b)"
)
_FACT = re.compile(
    r"(?:what|which|who|whom|whose|when|where|how|whats|whos|was|welche[rsmn]?|wer|wen|wem|wessen"
    r"|wann|wo|woher|wohin|womit|wofür|wie|wieviele?)\b"
)
_YES_NO = re.compile(
    r"(?:is|are|was|were|am|do|does|did|can|could|will|would|shall|should|may|might|must|has|have"
    r"|had|isn't|aren't|don't|doesn't|can't|won't|ist|sind|war|waren|hat|haben|hatte|kann|können"
    r"|darf|dürfen|muss|müssen|soll|sollen|sollte|wird|werden|würde|gibt es|gilt|gelten|lässt)\b"
)
_INSTRUCTION = re.compile(
    r"(?:please |bitte )?(?:list|show|give|tell|describe|summari[sz]e|write|translate|find|name"
    r"|outline|provide|calculate|count|extract|draft|liste?|zeige?|nenne?|gib|beschreibe?|fasse?|schreibe?"
    r"|übersetze?|finde?|suche?|berechne?|zähle?)\b"
)
# What must stand at the beginning, in the order in which it counts.
_OPENINGS = (
    (_HOW_TO, QueryType.HOW_TO),
    (_WHY, QueryType.WHY),
    (_DEFINITION, QueryType.DEFINITION),
    (_YES_NO, QueryType.YES_NO),
    (_FACT, QueryType.FACT),
    (_INSTRUCTION, QueryType.INSTRUCTION),
)


def query_type(question: str, *, has_history: bool) -> QueryType:
    """Says what a question asks for.

    Args:
        question: The question.
        has_history: Whether something was said before it.
    """
    if has_history and leans_on_history(question):
        return QueryType.FOLLOW_UP
    text = " ".join(question[:_LONGEST_CONSIDERED].lower().replace("\u2019", "'").split())
    text = text.lstrip("¿¡\"'(- ")
    if _COMPARISON.search(text):
        return QueryType.COMPARISON
    for opening, kind in _OPENINGS:
        if opening.match(text):
            return kind
    words = text.split()
    if words and "?" not in text and len(words) <= _MOST_KEYWORDS:
        return QueryType.KEYWORDS
    return QueryType.OTHER
