"""Tokens of several words made one: numbers in words, phrasal verbs, fixed phrases."""

from __future__ import annotations

import re

from services.cache.core.semantic.quantities import (
    MULTIPLIERS,
    NUMBER_WORDS,
    ORDINAL_WORDS,
    UNITS,
    spoken_number,
)
from services.cache.core.semantic.synonyms import PHRASES, standing_for
from services.cache.core.semantic.tokens import (
    BORDER,
    CODE,
    DATE,
    NUMBER,
    ORDINAL,
    UNIT,
    WORD,
    Token,
)
from services.cache.core.semantic.vocabulary import (
    FUNCTION_WORDS,
    PARTICLE_VERBS,
    PARTICLES,
    PREPOSITIONS,
)

__all__ = ["joined"]

# Words between a verb and its particle: "turn the two lamps in the hall off" is as far as we look.
_PARTICLE_REACH = 5
# "put the card in the slot" is no phrasal verb, "put it in" and "log in to the site" are.
_PREPOSITIONS_TOO = frozenset({"in", "on", "over"})
_SWITCHING_VERBS = frozenset(
    re.findall(
        r"\S+",
        """turn switch power plug log sign check opt clock fill hand flip lock phas scal cash""",
    )
)
# "rollover" is written as "roll over", the verb, would be.
_PARTED = {
    f"{verb}{particle}": f"{verb}_{particle}"
    for verb in PARTICLE_VERBS
    for particle in PARTICLES
    if len(verb) > 2
}
# "the second one", "which one", "no one", "one of them": there "one" counts nothing.
_BEFORE_PRONOUN = frozenset(
    ["the", "this", "that", "which", "another", "any", "no", "every", "some", "each", "only", "new"]
)
# Of all words only these count or measure something.
_COUNTING = NUMBER_WORDS.keys() | MULTIPLIERS.keys() | ORDINAL_WORDS.keys() | UNITS.keys()


def joined(tokens: list[Token]) -> list[Token]:
    """Returns the tokens with what belongs together made one, in the words that stand for it."""
    return _named(_with_phrasal_verbs(_dated(_counted(tokens))))


def _counted(tokens: list[Token]) -> list[Token]:
    """Joins number words to numbers, and gives units their names."""
    result: list[Token] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token.kind is WORD and token.text.casefold() not in _COUNTING:
            result.append(token)
            position += 1
            continue
        end = _number_end(tokens, position)
        if end > position:
            result.append(Token(NUMBER, _value(tokens[position:end])))
            position = end
            continue
        position += 1
        if token.kind is WORD:
            token = _measure(token, result[-1] if result else None)
        result.append(token)
    return result


def _number_end(tokens: list[Token], begin: int) -> int:
    end = begin
    while end < len(tokens) and _counts(tokens, end, begin):
        end += 1
    if end - begin == 1 and tokens[begin].text == "one":
        before = tokens[begin - 1].text if begin else ""
        after = tokens[end] if end < len(tokens) else None
        is_pronoun = before in _BEFORE_PRONOUN or after is None or after.kind is not WORD
        if is_pronoun or (after is not None and after.text in FUNCTION_WORDS):
            return begin
    return end


def _counts(tokens: list[Token], position: int, begin: int) -> bool:
    token = tokens[position]
    if position == begin and token.kind is NUMBER:
        following = tokens[position + 1 : position + 2]
        return bool(following) and following[0].text in MULTIPLIERS
    if token.kind is not WORD:
        return False
    if token.text == "and":
        following = tokens[position + 1 : position + 2]
        is_within = tokens[position - 1].text in MULTIPLIERS
        return (
            position > begin and is_within and following[0].text in NUMBER_WORDS
            if following
            else False
        )
    if token.text in MULTIPLIERS:
        return position > begin or token.text not in ("k", "mn", "bn")
    return token.text in NUMBER_WORDS


def _value(tokens: list[Token]) -> str:
    words = [token.text for token in tokens if token.text != "and"]
    if tokens[0].kind is NUMBER:
        try:
            value = float(words[0])
        except ValueError:
            return "".join(words)
        for word in words[1:]:
            value *= MULTIPLIERS.get(word, 1)
        return str(int(value)) if value == int(value) else str(value)
    value_in_words = spoken_number(words)
    return " ".join(words) if value_in_words is None else str(value_in_words)


def _measure(token: Token, before: Token | None) -> Token:
    """Tells units and ordinals from other words; short unit names need a number before them."""
    after_number = before is not None and before.kind is NUMBER
    text = token.text.casefold()
    if text == "second" and not after_number:
        return Token(ORDINAL, "2")
    unit = UNITS.get(text)
    if unit and (after_number or len(text) > 2) and not token.is_name:
        return Token(UNIT, unit)
    if unit and after_number:
        return Token(UNIT, unit)
    if text in ("usd", "eur", "gbp", "jpy", "inr", "chf"):
        return Token(UNIT, UNITS[text])
    if text in ORDINAL_WORDS:
        return Token(ORDINAL, str(ORDINAL_WORDS[text]))
    return token


def _dated(tokens: list[Token]) -> list[Token]:
    """Makes the numbers beside a month part of the date, in one order."""
    result: list[Token] = []
    run: list[Token] = []
    tokens = _with_may(tokens)
    if all(token.kind is not DATE for token in tokens):
        return tokens
    for position, token in enumerate(tokens):
        is_part = token.kind is DATE or (
            _is_number(token)
            and any(near.text[:1] == "m" and near.kind is DATE for near in _near(tokens, position))
        )
        if is_part:
            run.append(Token(DATE, token.text))
        elif (
            run
            and token.text in (",", "of", "the")
            and position + 1 < len(tokens)
            and _is_dated(tokens[position + 1])
        ):
            continue
        else:
            result.extend(sorted(run, key=lambda part: part.text))
            run = []
            result.append(token)
    return [*result, *sorted(run, key=lambda part: part.text)]


def _with_may(tokens: list[Token]) -> list[Token]:
    """Takes "may" beside a number for the month."""
    return [
        Token(DATE, "m5")
        if token.text == "may"
        and any(
            map(_is_number, [*tokens[max(0, place - 1) : place], *tokens[place + 1 : place + 2]])
        )
        else token
        for place, token in enumerate(tokens)
    ]


def _near(tokens: list[Token], position: int) -> list[Token]:
    return [*tokens[max(0, position - 3) : position], *tokens[position + 1 : position + 3]]


def _is_number(token: Token) -> bool:
    return token.kind in (NUMBER, ORDINAL)


def _is_dated(token: Token) -> bool:
    return token.kind is DATE or _is_number(token)


def _with_phrasal_verbs(tokens: list[Token]) -> list[Token]:
    result = list(tokens)
    position = 0
    while position < len(result):
        if result[position].kind is WORD and result[position].text in PARTICLE_VERBS:
            at = _particle_of(result, position)
            if at:
                verb = f"{result[position].text}_{result[at].text}"
                result[position] = Token(WORD, verb)
                del result[at]
        position += 1
    return result


def _particle_of(tokens: list[Token], verb: int) -> int:
    """Where the particle of the verb stands; 0 where it has none."""
    for position in range(verb + 1, min(len(tokens), verb + 1 + _PARTICLE_REACH)):
        token = tokens[position]
        if token.kind is BORDER or (token.kind is WORD and token.text in PARTICLE_VERBS):
            return 0
        if token.kind is not WORD or token.text not in PARTICLES:
            continue
        is_phrasal = token.text not in _PREPOSITIONS_TOO or tokens[verb].text in _SWITCHING_VERBS
        if position == verb + 1 and is_phrasal:
            return position
        following = tokens[position + 1] if position + 1 < len(tokens) else None
        ends = following is None or following.kind is BORDER
        if ends or (following is not None and following.text in PREPOSITIONS):
            return position
    return 0


def _named(tokens: list[Token]) -> list[Token]:
    """Replaces phrases and words by what stands for their group."""
    result: list[Token] = []
    texts = tuple([token.text for token in tokens])
    position = 0
    while position < len(tokens):
        token = tokens[position]
        length, name = _phrase_at(texts, position)
        if length:
            result.append(Token(WORD, name))
            position += length
            continue
        if token.kind in (WORD, CODE):
            word = standing_for(_PARTED.get(token.text, token.text))
            if word != token.text:
                token = Token(token.kind, word, token.is_name)
        result.append(token)
        position += 1
    return result


def _phrase_at(texts: tuple[str, ...], position: int) -> tuple[int, str]:
    begin = position + 1
    for rest, name in PHRASES.get(texts[position], ()):
        if texts[begin : begin + len(rest)] == rest:
            return 1 + len(rest), name
    return 0, ""
