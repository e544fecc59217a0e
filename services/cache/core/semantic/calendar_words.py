"""Names of days and months, and times of the day, in one way of writing."""

from __future__ import annotations

import re

from services.cache.core.semantic.inflection import base_form

__all__ = ["DATE_WORDS", "MONTHS", "WEEKDAYS", "time_of_day"]

_MONTHS = (
    "january jan|february feb|march mar|april apr|may|june jun|july jul|august aug"
    "|september sep sept|october oct|november nov|december dec"
)
MONTHS = {
    name: number for number, names in enumerate(_MONTHS.split("|"), 1) for name in names.split()
}
WEEKDAYS = {
    name: number
    for number, names in enumerate(
        [
            "monday mon",
            "tuesday tue tues",
            "wednesday",
            "thursday thu thurs",
            "friday fri",
            "saturday",
            "sunday",
        ],
        1,
    )
    for name in names.split()
}
# They say when; base forms.
DATE_WORDS = frozenset(
    base_form(word)
    for word in re.findall(
        r"\S+",
        """today tonight tomorrow yesterday weekend weekday noon midday midnight morning
        afternoon evening dawn dusk spring summer autumn winter christmas easter semester
        fortnight daily weekly monthly yearly annual annually hourly quarterly bc ad bce ce
        early late earlier later past future next last previous upcoming recent""",
    )
)
_TIME = re.compile(r"(\d{1,2})(?:[:.](\d{2}))?(?::\d{2})?\s*([ap])?\.?m?\.?", re.IGNORECASE)


def time_of_day(text: str) -> str | None:
    """Returns a time as "HH:MM" of 24 hours ("3 pm" is "15:00"), or None if it is none."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    hour, minute = int(match[1]), int(match[2] or 0)
    if match[3]:
        hour = hour % 12 + (12 if match[3].lower() == "p" else 0)
    return f"{hour:02}:{minute:02}" if hour < 25 and minute < 60 else None
