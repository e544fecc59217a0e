"""Evaluates arithmetic exactly, within bounds of size and so of time.

Numbers are fractions, so that `0.1 + 0.2` is 0.3. What has no exact value, such as `sqrt(2)`, is
computed to 50 digits and marked as rounded. The precedence is that of Python; `%` after a value is
a percentage where no operand follows it, and `of` multiplies: `15% of 80` is 12.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, DecimalException
from fractions import Fraction
from math import isqrt

__all__ = ["LONGEST_EXPRESSION", "CalculationError", "Number", "calculate", "written"]

LONGEST_EXPRESSION = 500
_MOST_TOKENS = 250
_MOST_DEPTH = 40
_MOST_BITS = 10_000
_MOST_DIGITS = 1_000
_PRECISION = 50
_SHOWN_DIGITS = 15
_LONGEST_EXACT = 40

_CONTEXT = Context(prec=_PRECISION, Emin=-_MOST_DIGITS * 4, Emax=_MOST_DIGITS * 4)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<operator>\*\*|//|<=|>=|==|!=|[-+*/%()<>,^]))"
)
_OPENING = ("(",)
_SAME = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})  # noqa: RUF001


class CalculationError(ValueError):
    """An expression has no value; the text says why, for whoever wrote it."""


@dataclass(frozen=True, slots=True)
class Number:
    """A value; where it is not `exact`, it was rounded to 50 digits on the way."""

    value: Fraction
    exact: bool = True


def calculate(expression: str) -> Number | bool:
    """Returns the value of an expression.

    Args:
        expression: Numbers, `+ - * / // % **`, parentheses, one comparison, percentages, `of`, `pi`
            and the functions min, max, sum, avg, round, abs, floor, ceil, sqrt, log (natural, or to
            the base given second), log10, exp.

    Raises:
        CalculationError: It is no expression, too large, or has no real value.
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise CalculationError(f"the expression is longer than {LONGEST_EXPRESSION} characters")
    parser = _Parser(_tokens(expression.translate(_SAME)))
    value = parser.comparison()
    parser.expect_end()
    return value


def written(value: Number | bool) -> str:  # noqa: FBT001 - a value, not a switch
    """Writes a value: exactly where that is short, else to 15 digits with a sign that says so."""
    if isinstance(value, bool):
        return "true" if value else "false"
    number = value.value
    if value.exact:
        exact = _exact_text(number)
        if exact is not None:
            return exact
        rounded = f"≈ {_rounded_text(number)}"
        short = f"{number.numerator}/{number.denominator}"
        return f"{short} {rounded}" if len(short) <= _SHOWN_DIGITS else rounded
    return f"≈ {_rounded_text(number)}"


def _exact_text(number: Fraction) -> str | None:
    """Writes a number with a short decimal form; None where it has none."""
    denominator, twos, fives = number.denominator, 0, 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    places = max(twos, fives)
    if denominator != 1 or places > _LONGEST_EXACT:
        return None
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    if len(digits) > _LONGEST_EXACT:
        return None
    sign = "-" if number < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def _rounded_text(number: Fraction) -> str:
    decimal = Context(prec=_SHOWN_DIGITS).create_decimal(_decimal(number)).normalize()
    plain = -_SHOWN_DIGITS <= decimal.adjusted() < _SHOWN_DIGITS
    return f"{decimal:f}" if plain else str(decimal)


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    position, text = 0, expression.rstrip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise CalculationError(f"{text[position:].strip()[:20]!r} is not understood")
        tokens.append(found[0].strip())
        position = found.end()
    if len(tokens) > _MOST_TOKENS:
        raise CalculationError(f"the expression has more than {_MOST_TOKENS} parts")
    return tokens


class _Parser:
    """Reads and evaluates at the same time, from the loosest operator to the tightest."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0

    def comparison(self) -> Number | bool:
        left = self._sum()
        if self._next() not in _COMPARISONS:
            return left
        compare = _COMPARISONS[self._take()]
        right = self._sum()
        if self._next() in _COMPARISONS:
            raise CalculationError("only two values can be compared")
        return compare(left.value, right.value)

    def expect_end(self) -> None:
        if self._next():
            raise CalculationError(f"{self._next()!r} is not expected here")

    def _sum(self) -> Number:
        value = self._product()
        while self._next() in ("+", "-"):
            operator = self._take()
            value = _applied(_OPERATORS[operator], value, self._product())
        return value

    def _product(self) -> Number:
        value = self._signed()
        while self._next() in ("*", "/", "//", "%", "of"):
            operator = self._take()
            value = _applied(_OPERATORS[operator], value, self._signed())
        return value

    def _signed(self) -> Number:
        signs = 0
        while self._next() in ("+", "-"):
            signs += self._take() == "-"
        value = self._power()
        return Number(-value.value, value.exact) if signs % 2 else value

    def _power(self) -> Number:
        base = self._percentage()
        if self._next() not in ("**", "^"):
            return base
        self._take()
        self._deepen()
        exponent = self._signed()
        self._depth -= 1
        return _power(base, exponent)

    def _percentage(self) -> Number:
        value = self._value()
        while self._next() == "%" and not self._is_operand(self._next(1)):
            self._take()
            value = Number(value.value / 100, value.exact)
        return value

    def _value(self) -> Number:
        token = self._take()
        if not token:
            raise CalculationError("the expression ends too early")
        if token[0].isdigit() or token[0] == ".":
            return _bounded(Number(_literal(token)))
        if token in _OPENING:
            self._deepen()
            value = self._sum()
            self._close()
            return value
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token in _FUNCTIONS and self._next() == "(":
            return _bounded(_FUNCTIONS[token](self._arguments()))
        if token[0].isalpha():
            known = ", ".join(sorted(_FUNCTIONS))
            raise CalculationError(f"{token[:30]!r} is no known function; there are {known}")
        raise CalculationError(f"{token!r} is not expected here")

    def _arguments(self) -> list[Number]:
        self._take()
        self._deepen()
        values = [self._sum()] if self._next() != ")" else []
        while self._next() == ",":
            self._take()
            values.append(self._sum())
        self._close()
        if not values:
            raise CalculationError("a function has no argument")
        return values

    def _deepen(self) -> None:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise CalculationError(f"the expression is nested deeper than {_MOST_DEPTH} levels")

    def _close(self) -> None:
        if self._take() != ")":
            raise CalculationError("a parenthesis is not closed")
        self._depth -= 1

    def _is_operand(self, token: str) -> bool:
        return bool(token) and token not in _OPERATORS and (token[0].isalnum() or token[0] in "._(")

    def _next(self, ahead: int = 0) -> str:
        position = self._position + ahead
        return self._tokens[position] if position < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._next()
        self._position += 1
        return token


def _literal(token: str) -> Fraction:
    _, _, exponent = token.lower().partition("e")
    if exponent and abs(int(exponent)) > _MOST_DIGITS:
        raise CalculationError("a number is too large or too small")
    return Fraction(token)


def _bounded(number: Number) -> Number:
    if not number.exact:
        number = Number(Fraction(_decimal(number.value)), exact=False)
    size = max(number.value.numerator.bit_length(), number.value.denominator.bit_length())
    if size > _MOST_BITS:
        raise CalculationError("the result is too large or too small")
    return number


def _applied(
    operation: Callable[[Fraction, Fraction], Fraction], left: Number, right: Number
) -> Number:
    try:
        value = operation(left.value, right.value)
    except ZeroDivisionError:
        raise CalculationError("division by zero") from None
    return _bounded(Number(value, left.exact and right.exact))


def _power(base: Number, exponent: Number) -> Number:
    if exponent.value.denominator == 1 and base.exact and exponent.exact:
        return _bounded(Number(_whole_power(base.value, exponent.value.numerator)))
    if base.value < 0 and exponent.value.denominator != 1:
        raise CalculationError("a negative number has no real power with a fraction")
    if base.value == 0:
        if exponent.value <= 0:
            raise CalculationError("division by zero")
        return base
    if base.exact and exponent.exact and exponent.value == Fraction(1, 2):
        return _square_root([base])
    value = _rounded(lambda: _CONTEXT.power(_decimal(base.value), _decimal(exponent.value)))
    return _bounded(value)


def _whole_power(base: Fraction, exponent: int) -> Fraction:
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base.numerator not in (-1, 0, 1) or base.denominator != 1:
        if abs(exponent) > _MOST_BITS or (size - 1) * abs(exponent) > _MOST_BITS:
            raise CalculationError("the result is too large or too small")
    elif abs(exponent) > 1:
        # Of 0, 1 and -1 only whether the exponent is even matters.
        exponent = (2 + exponent % 2) * (1 if exponent > 0 else -1)
    try:
        return base**exponent
    except ZeroDivisionError:
        raise CalculationError("division by zero") from None


def _decimal(value: Fraction) -> Decimal:
    return _CONTEXT.divide(Decimal(value.numerator), Decimal(value.denominator))


def _rounded(compute: Callable[[], Decimal]) -> Number:
    try:
        decimal = compute()
    except DecimalException:
        raise CalculationError("it has no real value, or one too large or too small") from None
    if not decimal.is_finite():
        raise CalculationError("it has no real value, or one too large or too small")
    return Number(Fraction(decimal), exact=False)


def _one(name: str, arguments: Sequence[Number]) -> Number:
    if len(arguments) != 1:
        raise CalculationError(f"{name} takes one argument")
    return arguments[0]


def _square_root(arguments: Sequence[Number]) -> Number:
    number = _one("sqrt", arguments)
    value = number.value
    if value < 0:
        raise CalculationError("a negative number has no real square root")
    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    if number.exact and top**2 == value.numerator and bottom**2 == value.denominator:
        return Number(Fraction(top, bottom))
    return _rounded(lambda: _CONTEXT.sqrt(_decimal(value)))


def _logarithm(arguments: Sequence[Number]) -> Number:
    if len(arguments) > 2:
        raise CalculationError("log takes a number, and a base where it is not e")
    if any(each.value <= 0 for each in arguments):
        raise CalculationError("only numbers above 0 have a logarithm")
    number = arguments[0]
    if number.exact and number.value == 1:
        return Number(Fraction(0))
    if len(arguments) == 1:
        return _rounded(lambda: _CONTEXT.ln(_decimal(number.value)))
    base = arguments[1]
    if base.value == 1:
        raise CalculationError("there is no logarithm to the base 1")
    return _rounded(
        lambda: _CONTEXT.divide(
            _CONTEXT.ln(_decimal(number.value)), _CONTEXT.ln(_decimal(base.value))
        )
    )


def _common_logarithm(arguments: Sequence[Number]) -> Number:
    number = _one("log10", arguments)
    if number.value <= 0:
        raise CalculationError("only numbers above 0 have a logarithm")
    value = _rounded(lambda: _CONTEXT.log10(_decimal(number.value)))
    whole = number.exact and value.value.denominator == 1
    is_exact = whole and Fraction(10) ** value.value.numerator == number.value
    return Number(value.value, exact=is_exact)


def _exponential(arguments: Sequence[Number]) -> Number:
    number = _one("exp", arguments)
    if number.exact and number.value == 0:
        return Number(Fraction(1))
    return _rounded(lambda: _CONTEXT.exp(_decimal(number.value)))


def _round(arguments: Sequence[Number]) -> Number:
    if len(arguments) > 2:
        raise CalculationError("round takes a number and how many places")
    number = arguments[0]
    places = arguments[1].value if len(arguments) == 2 else Fraction(0)
    if places.denominator != 1 or abs(places) > _PRECISION:
        raise CalculationError(f"round takes up to {_PRECISION} whole places")
    return Number(Fraction(round(number.value, int(places))), number.exact)


def _sum(arguments: Sequence[Number]) -> Number:
    exact = all(each.exact for each in arguments)
    return Number(sum((each.value for each in arguments), Fraction(0)), exact)


def _mean(arguments: Sequence[Number]) -> Number:
    total = _sum(arguments)
    return Number(total.value / len(arguments), total.exact)


_PI = Fraction("3.14159265358979323846264338327950288419716939937511")
_CONSTANTS: Mapping[str, Number] = {"pi": Number(_PI, exact=False)}
_FUNCTIONS: Mapping[str, Callable[[Sequence[Number]], Number]] = {
    "min": lambda arguments: min(arguments, key=lambda each: each.value),
    "max": lambda arguments: max(arguments, key=lambda each: each.value),
    "sum": _sum,
    "avg": _mean,
    "round": _round,
    "abs": lambda arguments: Number(abs(_one("abs", arguments).value), arguments[0].exact),
    "floor": lambda arguments: Number(Fraction(_one("floor", arguments).value.__floor__())),
    "ceil": lambda arguments: Number(Fraction(_one("ceil", arguments).value.__ceil__())),
    "sqrt": _square_root,
    "log": _logarithm,
    "log10": _common_logarithm,
    "exp": _exponential,
}
_OPERATORS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "of": lambda left, right: left * right,
    "/": lambda left, right: left / right,
    "//": lambda left, right: Fraction(left // right),
    "%": lambda left, right: left % right,
}
_COMPARISONS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
}
