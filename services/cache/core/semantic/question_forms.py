"""How questions begin and end: polite phrases, and the openings that say what is asked for."""

from __future__ import annotations

import re
from enum import Enum

__all__ = [
    "AUXILIARIES",
    "CLAUSE",
    "CLOSING",
    "CONDITION",
    "IN_ORDER",
    "LATER_AUXILIARY",
    "MEANING",
    "MODALS",
    "OPENING",
    "OPENING_ASKS_FOR",
    "POLITE",
    "STATEMENT",
    "TELLS",
    "TIME_CLAUSE",
    "Wanted",
]


class Wanted(Enum):
    """What is asked for."""

    WHO = "who"
    WHAT = "what"
    WHEN = "when"
    WHERE = "where"
    WHY = "why"
    HOW = "how"
    AMOUNT = "amount"
    DURATION = "duration"
    FREQUENCY = "frequency"
    DEGREE = "degree"
    FACT = "fact"
    POSSIBILITY = "possibility"
    NECESSITY = "necessity"
    ADVICE = "advice"
    ACTION = "action"
    REMARK = "remark"


_YOU = r"(?:you|u|someone|somebody|anyone|anybody)"
_ONE = r"(?:i|we|you|one|someone|somebody|people|anyone|a person|a user|users)"
_TAIL = (
    r"(?: (?:me|us))?(?: (?:please|more|some|any|all|a bit|information|info|details|detail|advice"
    r"|help|guidance|know|understand|figure|out|with|through|about|on|regarding|how to go about"
    r"|if you know|exactly))*"
)
_WH = r"(?:who|whom|whose|what|which|when|where|why|how|if|whether)"
POLITE = re.compile(
    rf"(?:(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening))(?: (?:there|team|all))?"
    r"|please|kindly|ok|okay|so|well|um|also|and|but|actually|basically|excuse me|sorry|thanks"
    r"|thank you|(?:a )?quick question|just|then"
    rf"|(?:can|could|would|will) {_YOU}(?: (?:please|kindly|possibly|maybe|just|be able to))*"
    rf" (?:tell|show|help|assist|advise|inform|instruct|let|teach|guide|walk|give|provide)(?: me|"
    rf" us){_TAIL}(?: to\b)?"
    rf"|(?:can|could|would|will) {_YOU}(?: please| kindly)* (?:explain|clarify|describe|define)"
    rf"(?: to)?{_TAIL}"
    rf"|(?:tell|show|help|assist|advise|inform|instruct|let|teach|guide|walk|give|provide)(?: me|"
    rf" us){_TAIL}(?: to\b)?"
    rf"|(?:explain|clarify|describe|define)(?: to)?{_TAIL}"
    r"|(?:i|we) (?:would (?:really )?(?:like|love)|want|wanted|need|wish|am trying|was hoping"
    r"|have|must|got)(?: you)?"
    rf" to (?:know|find out|understand|learn|ask|figure out|tell)(?: me)?{_TAIL}"
    r"|(?:i|we) (?:was|am|were|are)(?: just)? (?:wondering|curious|asking|unsure|confused|not"
    r" sure)"
    r"(?: about| as to)?"
    r"|i (?:always )?wonder"
    rf"|(?:i|we) (?:do|can) not (?:know|understand|see|get|figure out|find out)(?= {_WH}\b)"
    r"|go ahead and|let us|if you (?:could|can|would)(?: please)?(?= tell| let| show| help)"
    r"|(?:it would be (?:great|nice|helpful)|i would (?:appreciate it|be grateful)) if you"
    r" (?:could|can|would)"
    rf"(?: (?:tell|show|help|let)(?: me| us){_TAIL})?"
    rf"|(?:is it possible for you|are you able) to (?:tell|show|help|let|explain)(?: me|"
    rf" us)?{_TAIL}"
    rf"|(?:can|could|would|will) {_YOU} (?:please )?(?:find out|check|look up|see)(?: for me)?(?="
    rf" {_WH}\b)"
    r"|(?:i|we) (?:would (?:really )?(?:like|love)|want) to hear(?: more)? about"
    rf"|do(?: {_YOU})?(?: happen to)? (?:know|have any idea)(?: about)?"
    rf"|(?:have you |got )?(?:any|no) idea(?: about| of)?(?= {_WH}\b)"
    r"|(?:may|can|could) i (?:know|ask)(?: you)?"
    r"|i have (?:a|another|one) question(?: about| regarding| on)?"
    r"|i (?:need|want|would like|am looking for)(?: some| more| your| any| a bit of)?"
    r" (?:help|information|info|assistance|advice|details|guidance|instructions)"
    r"(?: with| on| about| regarding| to| in| for)?"
    rf")(?:[,.!:]+|\b)\s*",
    re.IGNORECASE,
)
CLOSING = re.compile(
    r"[\s,.!?]+(?:please|thanks|thank you(?: (?:very|so) much)?|cheers|for me|(?:is|are|do|does"
    r"|can"
    r"|will|has|have) not (?:it|they|i|you|we))?[\s.!?]*$",
    re.IGNORECASE,
)
TELLS = re.compile(r"\b(?:explain|clarify|describe|define|about|info|information|details)\b", re.I)
_BE = r"(?:is|are|was|were|will be|would be)"
_BEST = r"(?:(?:the|a|an|some|any|my) )?(?:(?:best|right|correct|proper|recommended|usual) )*"
_WAY = r"(?:ways?|steps?|procedures?|process|methods?|instructions?)"
_AUXILIARY = (
    r"(?P<auxiliary>do|does|did|is|are|was|were|am|can|could|should|ought|would|will|shall|may"
    r"|might|must|has|have|had)"
)
_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        "DURATION",
        r"(?:for )?how (?:much time|long|soon|quickly|quick|fast)\b(?: does it take(?: for)?|"
        r" will it take"
        r"(?: for)?| would it take(?: for)?| it takes(?: for)?)?(?: to)?",
    ),
    ("FREQUENCY", r"how (?:often|frequently|regularly|many times)\b"),
    ("AMOUNT", r"how (?:much|many)\b|what(?: is| are) the (?:number|amount|quantity) of\b"),
    (
        "HOW",
        rf"(?:how|in (?:what|which) way) (?:do|does|did|can|could|would|should|shall|might|may"
        rf"|must) {_ONE}\b(?: (?:need to|have to|go about"
        r"|be able to|best|then|actually))*",
    ),
    ("HOW", rf"how {_ONE} (?:do|can|could|would|should|might|may|must)\b"),
    ("HOW", rf"how (?:to|{_ONE} to)\b|how (?:do|should|can) (?:i|we|you) go about\b"),
    (
        "HOW",
        rf"what(?: {_BE})? {_BEST}{_WAY} (?:to|for|of|that|(?:i|we|you) (?:can|should))\b(?: do"
        rf" to)?",
    ),
    (
        "HOW",
        rf"what {_WAY} (?:do|should|must|can) (?:i|we|you) (?:need to |have to )?(?:take|follow"
        rf"|do|use) to\b",
    ),
    ("HOW", rf"{_BEST}{_WAY} (?:to|for|of)\b"),
    (
        "HOW",
        r"what (?:do|should|must|can|would) (?:i|we|you) (?:need to |have to )?do (?:in order"
        r" )?to\b",
    ),
    (
        "HOW WHAT",
        r"what (?:do|should|must|can|would|could) (?:i|we|you) (?:need to |have to )?do\b",
    ),
    (
        "POSSIBILITY HOW",
        r"(?:(?:is|are) there|any) (?:a |any |some )?(?:ways?|possibility|means|methods?|option)"
        r" (?:to|for (?:me|us) to|of|that|(?:i|we|you|one) can)\b(?: be able to)?",
    ),
    (
        "HOW",
        r"how\b(?= (?:do|does|did|is|are|was|were|am|can|could|should|would|will|shall|may|might"
        r"|must|has|have|had)\b)",
    ),
    (
        "WHY",
        r"how come\b|for (?:what|which) reasons?\b|what(?: is| are| was| were)? (?:the"
        r" )?(?:reasons?|causes?) (?:for|that"
        r"|why|behind|of)\b|(?:is there (?:a|any)|any) reasons?(?: for| that| why)?\b|what"
        r" (?:could|might|may|would|can) (?:be )?(?:the |a )?(?:reason|cause)(?: be)?(?: for|"
        r" that| why)?\b|what (?:is causing|causes|caused|makes|made)\b",
    ),
    ("DEGREE", r"how\b(?= [a-z])"),
    ("HOW", r"how\b"),
    ("WHY", r"why\b"),
    (
        "WHEN",
        r"(?:at |on |in )?(?:when\b|(?:what|which) (?:exact )?"
        r"(?=(?:times?|dates?|days?|hours?|year|month)\b))",
    ),
    ("WHERE", r"(?:at |in )?(?:where|(?:what|which) (?:place|location))\b"),
    ("WHO", r"(?:to |for |with |from |by )?(?:who|whom|whose)\b"),
    (
        "WHAT",
        r"(?:to |for |with |from |by |at |in |on )?(?:what|which)\b(?: (?:kind|sort|type)s? of\b)?",
    ),
    (
        "POSSIBILITY",
        rf"(?:am|are|is|would|was|were|will) (?:i|we|it|one|you)(?: be)? (?:still )?(?:able"
        rf"|allowed"
        rf"|permitted|possible|ok|okay|fine|entitled) (?:for (?:me|us) )?(?:to|if {_ONE})\b",
    ),
    ("POSSIBILITY", r"(?:is|would) it (?:be )?possible (?:to|for|that|if)\b"),
    ("POSSIBILITY", r"(?:can|could|may|might) (?:i|we|one)(?: be able to| still| also)?\b"),
    (
        "NECESSITY",
        rf"(?:do|does|did|will|would) {_ONE}(?: really| still)? (?:have to|need to|need)\b",
    ),
    (
        "NECESSITY",
        r"(?:am|are|is) (?:i|we|it|one|you) (?:required|obliged|obligated|necessary|mandatory"
        r"|compulsory)(?: (?:for|by) [a-z]+)?(?: to)?\b|must\b",
    ),
    (
        "ADVICE",
        r"(?:should|ought|shall) (?:i|we|one)(?: to)?\b|is it (?:advisable|recommended|better|a"
        r" good idea)"
        r"(?: to)?\b",
    ),
    (
        "ACTION POSSIBILITY",
        r"(?:can|could|would|will) (?:you|u)(?: (?:please|kindly|also|just))*\b",
    ),
    ("ADVICE", r"should\b"),
    ("POSSIBILITY", r"(?:can|could|may|might)\b"),
    ("FACT", r"(?:is|are|was|were|will) there\b"),
    ("FACT POSSIBILITY NECESSITY ADVICE", r"(?:if|whether)\b"),
    ("FACT", r"(?=(?:do|does|did|is|are|was|were|am|has|have|had|will|would) )"),
    (
        "ACTION HOW",
        r"(?:i|we)(?: (?:really|just|also|urgently|think i|would|have got))* (?:want|need|would"
        r" like|like|wish|love|have to|must"
        r"|am trying|am looking|tried|plan|intend)(?: to| for)?\b(?: be able to)?",
    ),
)
OPENING = re.compile("|".join(rf"((?:{pattern})\s*)" for _, pattern in _PATTERNS), re.IGNORECASE)
"""Any opening; the number of its group is the place in `OPENING_ASKS_FOR`, from 1."""
OPENING_ASKS_FOR = tuple(
    frozenset(Wanted[name] for name in names.split()) for names, _ in _PATTERNS
)
AUXILIARIES = re.compile(rf"{_AUXILIARY}\b\s*", re.IGNORECASE)
LATER_AUXILIARY = re.compile(rf"(?:\S+ ){{1,8}}?{_AUXILIARY}\b", re.IGNORECASE)
CLAUSE = re.compile(r"(?<=[.?!;,:])\s+|\s+[\u2013\u2014-]+\s+|\?+(?=\S)")
IN_ORDER = re.compile(r"\b(?:in order|so as) (?=to\b)|\bstep[ -]by[ -]step ?", re.IGNORECASE)
# "If my card is stolen, what ..." does not ask whether it is, nor "when I travel, ..." when.
CONDITION = re.compile(r"\W*(?:and |but )?(?:if|whether)\b", re.IGNORECASE)
TIME_CLAUSE = re.compile(
    r"(?:when|whenever|where|while)\b(?! (?:do|does|did|is|are|was|were|am|can|could|should|would"
    r"|will|shall|may|might|must|has|have|had)\b).*\s",
    re.IGNORECASE,
)
# Who only says how things are does not say what to tell them about it.
STATEMENT = re.compile(
    r"(?:i|we|it|this|that|there|my (?:\w+ ){1,4}?(?:is|are|was|were|has|have|had|do|does|did|can"
    r"|could"
    r"|will|would|got|keeps?|seems?|appears?))\b(?! to\b)",
    re.IGNORECASE,
)
MODALS = {
    "can": "can",
    "could": "can",
    "may": "can",
    "might": "can",
    "must": "must",
    "should": "should",
    "ought": "should",
    "shall": "should",
}
MEANING = re.compile(r"\s+means?$|\b(?:meaning|definition) of\s+", re.IGNORECASE)
