"""CSV and its kin: each row as a line of column names and values."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from services.rag.core.parsing.limits import ParseLimits
from services.rag.core.parsing.parsed import BlockKind, Draft, shorten_heading
from services.rag.core.parsing.writing import BlockWriter

__all__ = ["find_delimiter", "parse_table"]

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_CHARACTERS = 64 * 1024
_SAMPLE_ROWS = 200
# Share of the sampled rows that must have the same number of fields.
_REGULAR_RATIO = 0.8
_NUMBER = re.compile(r"[-+]?[\d.,:/%€$£ -]*\d[\d.,:/%€$£ -]*\Z")
_MAX_INLINE_CHARACTERS = 400


def find_delimiter(text: str, *, minimum_rows: int = 1) -> str:
    """Returns the character between the fields, or an empty text if it is no table.

    Args:
        text: The whole document, or its beginning.
        minimum_rows: Rows of which a table must have at least as many.
    """
    sample = text[:_SAMPLE_CHARACTERS]
    if len(sample) < len(text):
        sample = sample[: sample.rfind("\n") + 1] or sample
    best, best_score = "", 0.0
    for delimiter in _DELIMITERS:
        try:
            rows = list(islice(_rows(sample, delimiter), _SAMPLE_ROWS))
        except csv.Error:
            continue
        widths = Counter(len(row) for row in rows)
        if len(rows) < minimum_rows:
            continue
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
        regular = count / len(rows)
        score = regular * min(width, 1000) ** 0.25
        if width > 1 and regular >= _REGULAR_RATIO and score > best_score:
            best, best_score = delimiter, score
    return best


def parse_table(text: str, *, delimiter: str, limits: ParseLimits) -> Draft | None:
    """Writes each row with the names of its columns, as one block.

    Args:
        text: The document.
        delimiter: What stands between fields; empty to find out, with one column if nothing does.
        limits: Bounds.

    Returns:
        None where the quotation marks are so broken that there are no rows.

    Raises:
        DocumentLimitExceeded: It has too many columns or fields.
    """
    delimiter = delimiter or find_delimiter(text) or ","
    writer = BlockWriter(limits)
    names: list[str] | None = None
    irregular = value_count = row_count = 0
    try:
        for row in _rows(text, delimiter):
            limits.check("column_count", len(row))
            value_count += len(row)
            limits.check("value_count", value_count)
            row_count += 1
            if names is None:
                names = _names(row)
                if names:
                    writer.begin(BlockKind.PARAGRAPH)
                    writer.line(" | ".join(names))
                    continue
            irregular += bool(names) and len(row) != len(names)
            _write_row(writer, names, row)
    except csv.Error:
        return None
    if irregular:
        warning = f"{irregular} of {row_count} rows have another number of fields than the header."
        return Draft(writer.text(), "", writer.marks, warnings=(warning,))
    return Draft(writer.text(), "", writer.marks)


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    lines = (line + "\n" for line in text.split("\n"))
    for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True):
        fields = [" ".join(field.split()) for field in row]
        if any(fields):
            yield fields


def _names(row: list[str]) -> list[str]:
    """Returns the names of the columns if the first row holds them."""
    filled = [field for field in row if field]
    is_header = len(set(filled)) == len(filled) and not any(map(_NUMBER.match, filled))
    return [shorten_heading(field) for field in row] if is_header and len(row) > 1 else []


def _write_row(writer: BlockWriter, names: list[str] | None, row: list[str]) -> None:
    cells: list[str] = []
    for index, field in enumerate(row):
        name = names[index] if names and index < len(names) else ""
        if field:
            cells.append(f"{name}: {field}" if name else field)
    if not cells:
        return
    line = "; ".join(cells) if names else " | ".join(cells)
    is_short = len(line) <= _MAX_INLINE_CHARACTERS
    writer.begin(BlockKind.ITEM if is_short else BlockKind.VERBATIM)
    writer.line(line if is_short else "\n".join(cells))
