"""Clauses of a text, and whether two texts say yes and no to the same thing.

Clauses are compared with each other: a negation counts for the clause it stands in, and the clause
of a source that shares most terms with a clause of the statement is the one it is compared with.
"""

import re

from services.rag.core.analysis import analyse_query

__all__ = ["clauses_of", "contradicts"]

# A bar at the margin, as pydoc draws it; a row of a table has one at its end, too.
_MARGIN = re.compile(r"^[ \t]*[|>][ \t|>]*(?=[^|\n]*$)", re.MULTILINE)
_WRAPPED = re.compile(r"\n(?!\s*(?:[-*+|#>]|\d{1,3}[.)]|\n))")
_BOUNDARY = re.compile(
    r"[,;:()\u2014\u2013\n\uff0c\uff1b\u3001]+(?=\s|$)|[.!?\u3002](?=\s|$)|\n"
    r"|\s(?:and|but|while|whereas|although|though|because|unless|if|when|so|und|aber|et|mais|y|pero)"
    r"\s",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nor|neither|cannot|without|nothing|nobody|hardly|rarely|fails? to|"
    r"nicht|kein(?:e[rnms]?)?|nie|niemals|ohne|pas|jamais|sans|sin|nunca|ning[u\u00fa]n\w*|"
    r"non|mai|senza|n\u00e3o|nunca|sem|niet|geen)\b|n['\u2019]t\b|"
    r"(?:\u4e0d|\u6ca1|\u7121|\u65e0|\u306a\u3044|\u307e\u305b\u3093)",
    re.IGNORECASE,
)
# English `no` is Spanish `not`; German `an` and the like are left out.
_OPPOSITES: dict[str, set[str]] = {}
for _pair in [
    "increase/decrease",
    "increases/decreases",
    "increased/decreased",
    "rise/fall",
    "rises/falls",
    "rose/fell",
    "raises/lowers",
    "higher/lower",
    "more/less",
    "more/fewer",
    "most/least",
    "maximum/minimum",
    "max/min",
    "largest/smallest",
    "larger/smaller",
    "longest/shortest",
    "longer/shorter",
    "faster/slower",
    "before/after",
    "enable/disable",
    "enables/disables",
    "enabled/disabled",
    "on/off",
    "true/false",
    "allow/forbid",
    "allows/forbids",
    "allowed/forbidden",
    "allow/deny",
    "allows/denies",
    "permitted/prohibited",
    "required/optional",
    "mandatory/optional",
    "always/never",
    "open/closed",
    "opens/closes",
    "start/stop",
    "starts/stops",
    "first/last",
    "oldest/newest",
    "older/newer",
    "mutable/immutable",
    "synchronous/asynchronous",
    "blocking/nonblocking",
    "valid/invalid",
    "safe/unsafe",
    "stable/unstable",
    "above/below",
    "over/under",
    "inside/outside",
    "included/excluded",
    "includes/excludes",
    "include/exclude",
    "possible/impossible",
    "ascending/descending",
    "accept/reject",
    "accepts/rejects",
    "accepted/rejected",
    "success/failure",
    "succeeds/fails",
    "buy/sell",
    "win/lose",
    "won/lost",
    "gain/loss",
    "profit/loss",
    "early/late",
    "earlier/later",
    "upper/lower",
    "import/export",
    "public/private",
    "readable/unreadable",
    "deprecated/recommended",
    "supported/unsupported",
    "ordered/unordered",
    "thread-safe/unsafe",
    "positive/negative",
    "hot/cold",
    "left/right",
    "north/south",
    "east/west",
    "day/night",
    "begin/end",
    "begins/ends",
    "add/remove",
    "adds/removes",
    "added/removed",
    "create/delete",
    "creates/deletes",
    "created/deleted",
    "encrypt/decrypt",
    "approved/rejected",
    "passed/failed",
    "passes/fails",
    "likely/unlikely",
]:
    _one, _, _other = _pair.partition("/")
    _OPPOSITES.setdefault(_one, set()).add(_other)
    _OPPOSITES.setdefault(_other, set()).add(_one)
_WORD = re.compile(r"[\w-]+")
# A clause with fewer terms says too little to be compared by itself.
_FEW_TERMS = 2
_LEAST_SHARED_RATIO = 0.5


def clauses_of(text: str) -> list[str]:
    """Cuts a text into clauses; one with hardly any terms goes with the one before.

    A row of a table is one clause.
    """
    clauses: list[str] = []
    for line in _WRAPPED.sub(" ", _MARGIN.sub("", text)).split("\n"):
        is_row = line.strip().startswith("|") and line.strip().endswith("|")
        inner = 0
        for part in [line] if is_row else _BOUNDARY.split(line):
            if not part.strip():
                continue
            if inner and len(_terms(part)) < _FEW_TERMS:
                clauses[-1] = f"{clauses[-1]} {part}"
            else:
                clauses.append(part)
                inner += 1
    return clauses


def contradicts(statement: str, window: str) -> bool:
    """Says whether a statement and a window of a source differ in a negation or an opposite.

    Only clauses are compared that are about the same, by their terms.
    """
    sources = [(each, _terms(each)) for each in clauses_of(window)]
    for clause in clauses_of(statement):
        terms = _terms(clause)
        if len(terms) < _FEW_TERMS:
            continue
        best, shared = "", 0
        for text, held in sources:
            if len(terms & held) > shared:
                best, shared = text, len(terms & held)
        if shared < _LEAST_SHARED_RATIO * len(terms):
            continue
        if _is_negated(clause) != _is_negated(best) and not _opposed(clause, best):
            return True
        if _is_negated(clause) == _is_negated(best) and _opposed(clause, best):
            return True
    return False


def _terms(text: str) -> frozenset[str]:
    return frozenset(analyse_query(text))


def _is_negated(clause: str) -> bool:
    return len(_NEGATION.findall(clause)) % 2 == 1


def _opposed(first: str, second: str) -> bool:
    words, others = _words(first), _words(second)
    return any(
        opposite in others and opposite not in words
        for word in words - others
        for opposite in _OPPOSITES.get(word, ())
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))
