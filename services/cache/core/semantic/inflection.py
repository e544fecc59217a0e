"""Words without their inflection: plural, tense, participle; and one spelling for each.

Derivations stay apart, unlike with a Snowball stemmer, for which "important" is "import",
"customer" is "custom" and "employer" is "employed": an answer about one is wrong for the other.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["base_form"]

_MOST_KNOWN = 8192
# Of what is longer, little is a word.
_LONGEST_KNOWN = 32

_IRREGULAR = {
    form: base
    for line in """
    be am is are was were been being|begin began begun|break broke broken|bring brought|build built
    buy bought|catch caught|choose chose chosen|come came|do does did done doing|draw drew drawn
    drive drove driven|eat ate eaten|fall fell fallen|feel felt|find found|fly flew flown flies
    forget forgot forgotten|freeze froze frozen|get got gotten|give gave given|go goes went gone
    grow grew grown|have has had having|hear heard|hide hid hidden|hold held|keep kept
    know knew known|lead led|lend lent|lose lost|make made|mean meant|meet met|pay paid
    ride rode ridden|rise rose risen|run ran|say said|see saw seen|sell sold|send sent
    shake shook shaken|show shown|sing sang sung|sink sank sunk|sleep slept|speak spoke spoken
    spend spent|stand stood|steal stole stolen|swim swam swum|swear swore sworn|take took taken
    teach taught|tear tore torn|tell told|think thought|throw threw thrown|understand understood
    wake woke woken|wear wore worn|win won|withdraw withdrew withdrawn|write wrote written
    child children|foot feet|man men|mouse mice|person people persons|tooth teeth|woman women
    index indices indexes|add adding|wife wives|life lives|knife knives|leaf leaves|half halves
    tax taxes|lay laid|undo undid undone|overdraw overdrew overdrawn|reset resetting|quit quitting
    egg eggs|die died dying dies|tie tied tying ties|lie lied lying lies|agree agreed|free freed
    movie movies|cookie cookies|calorie calories|receive recieve recieved recieving|data datum
    analysis analyses|criterion criteria
    """.strip()
    .replace("\n", "|")
    .split("|")
    for base, *forms in [line.split()]
    for form in forms
}
# They only look like plurals, participles or gerunds.
_UNCHANGED = frozenset(
    re.findall(
        r"\S+",
        """news always perhaps series species sms gps ios aws gas bus plus lens yes this thus his
        its us has as is was during morning evening nothing something anything everything
        string king ring thing wing spring bring sing wedding ceiling need speed feed seed bed
        red shed led hundred address access process business express wireless press less
        unless across success class glass pass loss boss cross miss mass dress guess stress
        kiss bless fitness illness settings savings earnings diabetes paris texas tos https
        dns tls css saas covid exceed proceed succeed indeed bleed breed weed greed embed
        sacred kindred interest france using""",
    )
)
_VOWEL = re.compile(r"[aeiouy]")
_SHORT = re.compile(r"[^aeiouy]*[aeiouy][^aeiouwxy]")
_DOUBLED = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")
_SPELLINGS = (
    (
        re.compile(
            r"^((?:un|de|re)?(?:apolog|author|capital|categor|central|character|critic|custom|"
            r"digit|emphas|equal|final|finan|general|global|harmon|immun|initial|item|legal|local|"
            r"materi?al|maxim|memor|minim|mobil|modern|monet|neutral|normal|optim|organ|penal|"
            r"personal|popular|priorit|public|random|real|recogn|san|serial|social|special|stabil|"
            r"standard|steril|subsid|summar|symbol|synchron|util|vandal|visual|virtual))is"
            r"(?=(?:e|ed|es|ing|er|ers|ation|ations)$)"
        ),
        r"\1iz",
    ),
    (
        re.compile(
            r"^((?:un|dis)?(?:col|fav|behavi|lab|neighb|hon|hum|harb|flav|rum|vap"
            r"|arm))our"
        ),
        r"\1or",
    ),
    (re.compile(r"^(cent|theat|lit|fib|kilomet|millimet|centimet|met)re(?=s?$)"), r"\1er"),
    (re.compile(r"^analys(?=(?:e|ed|ing)$)"), "analyz"),
    (re.compile(r"^catalogue"), "catalog"),
    (re.compile(r"^cheque"), "check"),
    (re.compile(r"^(licen|defen|offen)ce(?=s?$)"), r"\1se"),
    (re.compile(r"^programme(?=s?$)"), "program"),
    (re.compile(r"^grey"), "gray"),
    (re.compile(r"^tyre"), "tire"),
)


def base_form(word: str) -> str:
    """Returns a word without inflection, in American spelling; unknown words by rule.

    Args:
        word: Case-folded, letters only.
    """
    return _known_form(word) if len(word) <= _LONGEST_KNOWN else _form(word)


def _form(word: str) -> str:
    word = _IRREGULAR.get(word, word)
    if len(word) < 4 or word in _UNCHANGED or not word.isascii():
        return word
    return _without_e(_without_ending(_american(word)))


# Questions have few words that others have not.
_known_form = lru_cache(maxsize=_MOST_KNOWN)(_form)


def _american(word: str) -> str:
    for pattern, replacement in _SPELLINGS:
        word = pattern.sub(replacement, word, count=1)
    return word


def _without_ending(word: str) -> str:
    if word.endswith("s"):
        word = _singular(word)
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    for ending in ("ed", "ing"):
        stem = word.removesuffix(ending)
        if stem != word and not word.endswith("eed"):
            return _mended(stem) if len(stem) > 1 and _VOWEL.search(stem) else word
    return word


def _singular(word: str) -> str:
    if word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("sses", "shes", "ches", "xes", "zzes", "oes")):
        return word[:-2]
    return word[:-1]


def _mended(stem: str) -> str:
    """Gives back what the ending took from a word, or takes away what it added."""
    if stem.endswith(_DOUBLED):
        return stem[:-1]
    if len(stem) <= 4 and _SHORT.fullmatch(stem):
        return stem + "e"
    return stem


def _without_e(word: str) -> str:
    """Takes off a final "e" where a gerund would not show whether there was one."""
    if word.endswith("ll") and len(word) > 5:
        return word[:-1]
    if not word.endswith("e") or word.endswith("ee") or len(word) < 4:
        return word
    keeps = len(word) < 6 and _SHORT.fullmatch(word[:-1])
    return word if keeps else word[:-1]
