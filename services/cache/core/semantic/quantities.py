"""Numbers, ordinals, units and currencies in one way of writing."""

from __future__ import annotations

import re

from services.cache.core.semantic.inflection import base_form

__all__ = [
    "MULTIPLIERS",
    "NUMBER_WORDS",
    "ORDINAL_WORDS",
    "UNITS",
    "spoken_number",
    "written_number",
]

_SMALL = re.findall(
    r"\S+",
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen""",
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = {base_form(word): value for value, word in enumerate(_SMALL)} | {
    base_form(word): 10 * ten for ten, word in enumerate(_TENS, 2)
}
MULTIPLIERS = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 1_000_000,
    "billion": 1_000_000_000,
    "trillion": 1_000_000_000_000,
    "k": 1_000,
    "mn": 1_000_000,
    "bn": 1_000_000_000,
}
ORDINAL_WORDS = {
    base_form(word): place
    for place, word in enumerate(
        re.findall(
            r"\S+",
            """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
            thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth
            twentieth""",
        ),
        1,
    )
}
# Abbreviations of one or two letters are units after a number only.
UNITS = {
    spelling: name
    for line in """
    percent % pct|dollar $ usd buck|euro € eur|pound £ gbp quid lb|yen ¥ jpy|rupee ₹ inr|franc chf
    cent ct|penny pence p|meter m metr|kilometer km|centimeter cm|millimeter mm|mile mi|foot ft
    inch|yard yd|kilogram kg kilo|gram g gramm|milligram mg|microgram mcg µg|ounce oz|tonne ton t
    liter l ltr|milliliter ml|gallon gal|pint pt|cup|tablespoon tbsp|teaspoon tsp
    second s sec|minute min|hour h hr|day d|week wk|month mo|year yr y|decad|century
    millisecond ms|microsecond µs us|nanosecond ns|byte b|kilobyte kb|megabyte mb|gigabyte gb
    terabyte tb|kibibyte kib|mebibyte mib|gibibyte gib|bit|kilobit kbit|megabit mbit|gigabit gbit
    mbps|gbps|kbps|watt w|kilowatt kw|volt v|ampere amp|hertz hz|kilohertz khz|megahertz mhz
    gigahertz ghz|degree °|celsius °c centigrad|fahrenheit °f|kelvin|calory kcal cal calori
    joule j|mph|kmh kph|acre|hectar ha|psi|bar|pascal pa|dpi|px pixel|knot|night|quarter|piece pc
    """.strip()
    .replace("\n", "|")
    .split("|")
    for name, *aliases in [line.split()]
    for alias in (name, *aliases)
    for spelling in (alias, base_form(alias))
}
_PLAIN = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")


def written_number(digits: str, *, is_amount: bool) -> str:
    """Returns one way of writing a number; of what is no plain number, the text itself.

    Args:
        digits: As found, for example "1,000", "2.50" or "3.11.4".
        is_amount: Whether trailing zeros mean nothing, as in "5.00 dollars"; in a version they do.
    """
    if not _PLAIN.fullmatch(digits):
        return digits
    number = digits.replace(",", "")
    if "." in number:
        return number.rstrip("0").rstrip(".") if is_amount else number
    return str(int(number))


def spoken_number(words: list[str]) -> int | None:
    """Returns the value of a run of number words ("two hundred fifty"), or None."""
    total = current = 0
    for word in words:
        if word in NUMBER_WORDS:
            current += NUMBER_WORDS[word]
        elif word in ("hundred", "dozen"):
            current = (current or 1) * MULTIPLIERS[word]
        elif word in MULTIPLIERS:
            total += (current or 1) * MULTIPLIERS[word]
            current = 0
        else:
            return None
    return total + current
