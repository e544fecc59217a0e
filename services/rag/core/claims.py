"""The parts of a statement that are either in a source or made up: numbers, quotes and names.

Numbers are compared by value and unit, so that `1,000 ms`, `1 s` and `one second` are the same, and
`5 MB` and `5 GB` are not. Dates and versions are compared as such.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Facts", "Name", "Quantity", "facts_of", "fold", "quantities_of"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of a text.

    Attributes:
        text: As it is written.
        values: What it may mean, in the base unit of its dimension; a date or version is a text.
        bare_values: What it may mean without its unit.
        dimension: What it measures, such as `time`; empty where no unit is known.
        char_start: Where it begins.
        char_end: Where it ends, with its unit.
        is_rough: Whether it is said to be approximate.
    """

    text: str
    values: frozenset[float | str]
    dimension: str
    char_start: int
    char_end: int
    is_rough: bool = False
    bare_values: frozenset[float | str] = frozenset()

    def is_comparable(self, other: "Quantity") -> bool:
        """Says whether another number may measure the same."""
        kinds = {_KINDS.get(each.dimension, each.dimension) for each in (self, other)}
        return len(kinds) == 1 or "" in kinds

    def agrees(self, other: "Quantity") -> bool:
        """Says whether another number may be the same one."""
        if self.dimension and other.dimension:
            if self.dimension != other.dimension:
                return False
        elif self.bare_values & other.bare_values:
            return True
        if self.values & other.values:
            return True
        if "date" in (self.dimension, other.dimension):
            return _same_date(self, other) or _same_date(other, self)
        first = [each for each in self.values if isinstance(each, float)]
        second = [each for each in other.values if isinstance(each, float)]
        tolerance = _ROUGH_RATIO if self.is_rough else _ROUNDING_RATIO
        return any(
            abs(each - given) <= tolerance * max(abs(each), abs(given))
            for each in first
            for given in second
        )


@dataclass(frozen=True, slots=True)
class Name:
    """A name or an identifier of a text."""

    text: str
    char_start: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a statement must be found in its sources."""

    quantities: tuple[Quantity, ...]
    quotes: tuple[str, ...]
    names: tuple[Name, ...]


_ROUGH_RATIO = 0.05
# Values of one and the same number, written with different units.
_ROUNDING_RATIO = 1e-9

# Dimensions that answer the same question.
_KINDS = {"months": "time", "date": "", "euro": "money", "dollar": "money", "pound": "money"}

_UNITS: dict[str, tuple[str, float]] = {}


def _add(dimension: str, factor: float, names: str) -> None:
    for name in names.split():
        _UNITS[name] = (dimension, factor)


_add("time", 1e-9, "ns nanosecond nanoseconds")
_add("time", 1e-6, "us \u00b5s \u03bcs microsecond microseconds")
_add("time", 1e-3, "ms msec millisecond milliseconds millisekunden millisecondes milisegundos")
_add("time", 1.0, "s sec secs second seconds sekunde sekunden seconde secondes segundo segundos")
_add("time", 60.0, "min mins minute minutes minuten minuto minutos")
_add("time", 3600.0, "h hr hrs hour hours stunde stunden heure heures hora horas")
_add("time", 86400.0, "d day days tag tage tagen jour jours d\u00eda d\u00edas dia dias")
_add("time", 604800.0, "week weeks woche wochen semaine semaines semana semanas")
_add("months", 1.0, "month months monat monate monaten mois mes meses")
_add(
    "months",
    12.0,
    "year years jahr jahre jahren an ans ann\u00e9e ann\u00e9es a\u00f1o a\u00f1os ano anos",
)
_add("bytes", 1.0, "b byte bytes")
_add("bytes", 1e3, "kb kilobyte kilobytes")
_add("bytes", 1e6, "mb megabyte megabytes")
_add("bytes", 1e9, "gb gigabyte gigabytes")
_add("bytes", 1e12, "tb terabyte terabytes")
_add("bytes", 2.0**10, "kib kibibyte kibibytes")
_add("bytes", 2.0**20, "mib mebibyte mebibytes")
_add("bytes", 2.0**30, "gib gibibyte gibibytes")
_add("bytes", 2.0**40, "tib tebibyte tebibytes")
_add("bits", 1.0, "bit bits")
_add("ratio", 0.01, "% percent percentage prozent pourcent porcentaje")
_add("ratio", 0.001, "\u2030")
_add("length", 1e-3, "mm millimetre millimetres millimeter millimeters")
_add("length", 1e-2, "cm centimetre centimetres centimeter centimeters")
_add("length", 1.0, "m metre metres meter meters mètre mètres metro metros")
_add("length", 1e3, "km kilometre kilometres kilometer kilometers")
_add("length", 0.0254, "inch inches")
_add("length", 0.3048, "foot feet ft")
_add("length", 1609.344, "mile miles")
_add("mass", 1e-6, "mg milligram milligrams")
_add("mass", 1e-3, "g gram grams gramm")
_add("mass", 1.0, "kg kilogram kilograms kilogramm")
_add("mass", 1e3, "t ton tons tonne tonnes")
_add("celsius", 1.0, "\u00b0c celsius")
_add("fahrenheit", 1.0, "\u00b0f fahrenheit")
_UNITS["degrees celsius"] = _UNITS["degree celsius"] = ("celsius", 1.0)
_UNITS["degrees fahrenheit"] = _UNITS["degree fahrenheit"] = ("fahrenheit", 1.0)
_add("volume", 1.0, "l litre litres liter liters")
_add("volume", 1e-3, "ml millilitre millilitres milliliter milliliters")
_add("frequency", 1.0, "hz hertz")
_add("frequency", 1e3, "khz")
_add("frequency", 1e6, "mhz")
_add("frequency", 1e9, "ghz")
_add("power", 1.0, "w watt watts")
_add("power", 1e3, "kw kilowatt kilowatts")
_add("power", 1e6, "mw megawatt megawatts")
_add("voltage", 1.0, "v volt volts")
_add("dollar", 1.0, "$ usd dollar dollars")
_add("euro", 1.0, "\u20ac eur euro euros")
_add("pound", 1.0, "\u00a3 gbp")
_add("tokens", 1.0, "token tokens")
_add("pixels", 1.0, "px pixel pixels")

_SCALES = {
    **dict.fromkeys(("k", "thousand", "tausend", "mille", "mil"), 1e3),
    **dict.fromkeys(("million", "millions", "millionen", "mio", "millones"), 1e6),
    **dict.fromkeys(("billion", "billions", "milliarden", "milliards", "bn"), 1e9),
    **dict.fromkeys(("trillion", "trillions"), 1e12),
}
_WORDS: dict[str, float] = {
    "zero": 0, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80,
    "ninety": 90, "hundred": 100, "dozen": 12,
    "zwei": 2, "drei": 3, "vier": 4, "f\u00fcnf": 5, "sechs": 6, "sieben": 7, "acht": 8,
    "neun": 9, "zehn": 10, "zw\u00f6lf": 12,
    "deux": 2, "trois": 3, "quatre": 4, "cinq": 5, "huit": 8, "neuf": 9, "dix": 10,
    "dos": 2, "tres": 3, "cuatro": 4, "cinco": 5, "seis": 6, "siete": 7, "ocho": 8,
    "nueve": 9, "diez": 10,
}  # fmt: skip
# Read where a source says them, but too common to be asked for.
_WEAK_WORDS: dict[str, float] = {
    "one": 1, "once": 1, "single": 1, "first": 1, "both": 2, "twice": 2, "double": 2,
    "second": 2, "third": 3, "half": 0.5, "quarter": 0.25, "none": 0, "ein": 1, "eine": 1,
    "einen": 1, "un": 1, "une": 1, "uno": 1, "una": 1,
}  # fmt: skip

_MONTH_NAMES = (
    ("jan", "january", "januar", "janvier", "enero"),
    ("feb", "february", "februar", "f\u00e9vrier", "febrero"),
    ("mar", "march", "m\u00e4rz", "mars", "marzo"),
    ("apr", "april", "avril", "abril"),
    ("may", "mai", "mayo"),
    ("jun", "june", "juni", "juin", "junio"),
    ("jul", "july", "juli", "juillet", "julio"),
    ("aug", "august", "ao\u00fbt", "agosto"),
    ("sep", "sept", "september", "septembre", "septiembre"),
    ("oct", "october", "okt", "oktober", "octobre", "octubre"),
    ("nov", "november", "novembre", "noviembre"),
    ("dec", "december", "dez", "dezember", "d\u00e9cembre", "diciembre"),
)
_MONTHS = {name: number for number, names in enumerate(_MONTH_NAMES, 1) for name in names}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))

_ISO_DATE = r"(?P<iso>\b\d{4}-\d{2}-\d{2}\b)"
_DAY_FIRST = (
    rf"(?P<day_first>\b\d{{1,2}}(?:st|nd|rd|th|\.)?\s+(?:de\s+|of\s+)?(?:{_MONTH})\b\.?,?"
    rf"(?:\s+(?:de\s+)?\d{{4}}\b)?)"
)
_MONTH_FIRST = (
    rf"(?P<month_first>\b(?:{_MONTH})\b\.?\s+\d{{1,2}}(?:st|nd|rd|th)?\b(?!:)(?:,?\s+\d{{4}}\b)?)"
)
_VERSION = r"(?P<version>\bv?\d+(?:\.\d+){2,}(?:[-+.]?(?:a|b|rc|alpha|beta|dev|post)\.?\d*)?\b)"
_PLAIN = (
    r"(?P<sign>[$\u20ac\u00a3]\s?)?"
    r"(?P<plain>(?<![\w.,])[-\u2212]?(?:\d{1,3}(?:[,.'\u2019\u00a0\u202f]\d{3})+(?:[.,]\d+)?|\d+(?:[.,:]\d+)?|\.\d+)"
    r"(?:e[+-]?\d+)?)"
    r"(?P<scale>\s?(?:k|thousand|tausend|millions?|millionen|mio|billions?|milliarden|milliards|bn|"
    r"trillions?)\b)?"
    r"(?P<unit>[\s-]?(?:%|\u2030|[$\u20ac\u00a3]|\u00b0[CFcf]|degrees?\s(?:celsius|fahrenheit)|[^\W\d_]+)(?![\w(]))?"
)
_ORDINAL = r"(?P<ordinal>\b\d+(?:st|nd|rd|th)\b)"
_NUMBER_WORDS = "|".join(sorted({**_WORDS, **_WEAK_WORDS}, key=len, reverse=True))
_WORD_NUMBER = (
    rf"(?P<word>\b(?:{_NUMBER_WORDS})\b)"
    r"(?P<word_scale>\s(?:hundred|thousand|million|billion|dozen)s?\b)?"
    r"(?P<word_unit>[\s-][^\W\d_]+)?"
)
_QUANTITY = re.compile(
    "|".join((_ISO_DATE, _DAY_FIRST, _MONTH_FIRST, _VERSION, _ORDINAL, _PLAIN, _WORD_NUMBER)),
    re.IGNORECASE,
)
_ROUGH = re.compile(
    r"(?:\b(?:about|approximately|approx\.?|roughly|around|nearly|almost|circa|ca\.?|some|rund|etwa|"
    r"environ|unos|casi)|~|\u2248)\s*[$\u20ac\u00a3]?$",
    re.IGNORECASE,
)
_GROUPED = re.compile(r"\d{1,3}(?:[,.'\u2019\u00a0\u202f]\d{3})+")
_DIGITS = re.compile(r"\d+")

_QUOTED = re.compile(
    r"\"([^\"\n]{2,300})\"|\u201c([^\u201d\n]{2,300})\u201d|\u201e([^\u201c\u201d\n]{2,300})"
    r"[\u201c\u201d]|\u00ab\s?([^\u00bb\n]{2,300}?)\s?\u00bb|`([^`\n]{1,300})`"
)
_CAPITAL = r"[A-Z\u00c0-\u00d6\u00d8-\u00de]"
_NAME_WORD = rf"{_CAPITAL}[\w'\u2019&-]*\.?"
_NAMES = re.compile(
    rf"\b{_NAME_WORD}(?:\s+(?:(?:of|the|de|da|del|der|von|van|la|le|for|and)\s+)?{_NAME_WORD})*"
)
_IDENTIFIER = re.compile(
    r"\b[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+(?:\(\))?"  # dotted
    r"|\b\w+_\w+(?:\(\))?"  # snake_case
    r"|\b[a-z]+[A-Z]\w*\b|\b[A-Z][a-z0-9]+[A-Z]\w*\b|\b[A-Z]{2,}[a-z]{2,}\w*\b"  # camelCase
    r"|\b[A-Za-z_]\w*\(\)"
    r"|(?<![\w-])--?[a-zA-Z][\w-]+"
    r"|\b[A-Z]{2,}[A-Z0-9]*\b"
)
_LEADING_WORDS = """
The A An In On At By For From To With Of And Or But If When While Since After Before As This That
These Those It Its Their His Her He She They We You I All Each Every Some Any No Not However
Therefore Thus Also Both Use Using According Der Die Das Ein Eine Im Am Bei Mit Von Le La Les Un Une
En El Los Las Una Il Lo Gli Yes Note Unlike Like Because Although There Here Where What Which Who
How Why Then Once Only Instead During Under Over Such Additionally Furthermore Moreover Finally
First Second Third Next
"""
_LEADING = frozenset(_LEADING_WORDS.split())
_SENTENCE_START = re.compile(r"(?:^|[.!?:;]\s+|[\"'(\u201c\u201e*_-]\s*)$")


def fold(text: str) -> str:
    """Returns a text as it is compared: one case, one kind of space, no marks of emphasis."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return " ".join(plain.replace("*", "").split())


@lru_cache(maxsize=512)
def quantities_of(text: str) -> tuple[Quantity, ...]:
    """Returns the numbers of a text, those in words as well, in order."""
    return tuple(_quantities(text))


def facts_of(statement: str) -> Facts:
    """Returns what of a statement, without its citation markers, must be found in its sources."""
    quotes = tuple(
        next(filter(None, match.groups())).strip() for match in _QUOTED.finditer(statement)
    )
    return Facts(
        quantities=tuple(
            each
            for each in quantities_of(statement)
            if each.text.casefold().split()[0].split("-")[0] not in _WEAK_WORDS
        ),
        quotes=tuple(each for each in quotes if any(map(str.isalnum, each))),
        names=tuple(_names(statement)),
    )


def _quantities(text: str) -> Iterator[Quantity]:
    for match in _QUANTITY.finditer(text):
        kind = match.lastgroup
        if match["plain"] is not None:
            yield _plain(match, text)
        elif match["word"] is not None:
            yield from _word(match)
        elif match["ordinal"] is not None:
            number = float(_DIGITS.findall(match[0])[0])
            yield _quantity(match, frozenset((number,)), "")
        elif match["version"] is not None:
            yield _quantity(match, frozenset((match[0].casefold().lstrip("v"),)), "version")
        elif kind == "iso":
            yield _quantity(match, _dates(*map(int, match[0].split("-"))), "date")
        else:
            yield _quantity(match, _named_date(match[0]), "date")


def _quantity(match: re.Match[str], values: frozenset[float | str], dimension: str) -> Quantity:
    return Quantity(
        match[0].strip(), values, dimension, match.start(), match.end(), bare_values=values
    )


def _same_date(part: Quantity, whole: Quantity) -> bool:
    """Says whether a year, or a day without one, is that of a date."""
    dates = [each for each in whole.values if isinstance(each, str)]
    return any(
        date.startswith(f"{value:.0f}-") if isinstance(value, float) else date.endswith(f"-{value}")
        for value in part.values
        for date in dates
    )


def _dates(year: int, month: int, day: int) -> frozenset[float | str]:
    return frozenset((f"{year}-{month}-{day}",))


def _named_date(text: str) -> frozenset[float | str]:
    words = re.findall(r"[^\W\d_]+|\d+", text.casefold())
    month = next(_MONTHS[word] for word in words if word in _MONTHS)
    numbers = [int(word) for word in words if word.isdecimal()]
    day = numbers[0]
    if len(numbers) > 1:
        return frozenset((f"{numbers[1]}-{month}-{day}",))
    return frozenset((f"{month}-{day}",))


def _plain(match: re.Match[str], text: str) -> Quantity:
    start, end = match.span()
    values = _readings(match["plain"])
    if match["scale"]:
        factor = _SCALES[match["scale"].strip().casefold()]
        values = frozenset(each * factor for each in values)
    unit = match["unit"]
    bare_values = values
    dimension = ""
    name = unit.lstrip(" -\t\n\u00a0").casefold() if unit else ""
    if match["sign"]:
        dimension, _ = _UNITS[match["sign"].strip()]
        end = match.end("scale") if match["scale"] else match.end("plain")
    elif name in _UNITS:
        dimension, factor = _UNITS[name]
        values = frozenset(each * factor for each in values)
    elif unit:
        end = match.start("unit")
    return Quantity(
        text[start:end].strip(),
        frozenset[float | str](values),
        dimension,
        start,
        end,
        is_rough=_ROUGH.search(text[max(0, start - 16) : start]) is not None,
        bare_values=frozenset[float | str](bare_values),
    )


def _readings(number: str) -> frozenset[float]:
    """Returns what a number may mean: a comma or a point may group digits or begin a fraction."""
    plain = number.replace("\u2212", "-").replace(":", ".")
    exact: set[float] = set()
    if _GROUPED.match(plain.lstrip("-")):
        head, mark, tail = plain, "", ""
        separators = [each for each in plain if not each.isdigit() and each not in "-e+"]
        if len(set(separators)) > 1 and separators[-1] in ".,":
            head, mark, tail = plain.rpartition(separators[-1])
        grouped = re.sub(r"[^\d-]", "", head if mark else plain)
        exact.add(float(f"{grouped}.{tail}" if mark else grouped))
        if len(separators) == 1 and separators[0] == ".":
            exact.add(float(plain))
    else:
        exact.add(float(plain.replace(",", ".")))
    return frozenset(exact)


def _word(match: re.Match[str]) -> Iterator[Quantity]:
    name = match["word"].casefold()
    value = {**_WORDS, **_WEAK_WORDS}[name]
    scale = (match["word_scale"] or "").strip().casefold().rstrip("s")
    if scale:
        value *= {"hundred": 100.0, "dozen": 12.0}.get(scale) or _SCALES[scale]
    unit = (match["word_unit"] or "").lstrip(" -\t\n").casefold()
    end = match.end("word_scale") if scale else match.end("word")
    dimension = ""
    bare_values: frozenset[float | str] = frozenset((float(value),))
    values = bare_values
    if unit in _UNITS and len(unit) > 1 and unit not in ("an", "ans", "mes"):
        dimension, factor = _UNITS[unit]
        values, end = frozenset((value * factor,)), match.end()
    text = match[0][: end - match.start()].strip()
    yield Quantity(text, values, dimension, match.start(), end, bare_values=bare_values)


def _names(statement: str) -> Iterator[Name]:
    taken: set[int] = set()
    for match in _IDENTIFIER.finditer(statement):
        taken.update(range(*match.span()))
        if match[0].casefold() not in _UNITS:
            yield Name(match[0], match.start())
    for match in _NAMES.finditer(statement):
        start, text = match.start(), match[0].rstrip(".")
        words = text.split()
        initial = _SENTENCE_START.search(statement[:start]) is not None
        while words and words[0] in _LEADING:
            start += len(words[0]) + 1
            words, initial = words[1:], False
        if not words or (initial and len(words) == 1) or start in taken:
            continue
        if len(words) == 1 and (len(words[0]) < 3 or words[0].casefold() in _MONTHS):
            continue
        yield Name(" ".join(words), start)
