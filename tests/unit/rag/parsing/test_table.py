import pytest

from services.rag.core.document_errors import DocumentLimitExceeded
from services.rag.core.parsing import ParsedDocument, ParseLimits, parse_document


def parse(source: str, name: str = "a.csv", **limits: int) -> ParsedDocument:
    return parse_document(source.encode(), file_name=name, limits=ParseLimits(**limits))


def blocks(document: ParsedDocument) -> list[str]:
    return [
        document.text[block.char_start : block.char_end]
        for section in document.sections
        for block in section.blocks
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rows_carry_the_names_of_their_columns(delimiter: str) -> None:
    rows = [["Name", "Age", "Town"], ["Ann", "30", '"New\nYork"'], ["Bob", "", "Ulm"]]
    document = parse("\n".join(delimiter.join(row) for row in rows))
    assert document.media_type == "text/csv"
    assert blocks(document) == [
        "Name | Age | Town",
        "Name: Ann; Age: 30; Town: New York",
        "Name: Bob; Town: Ulm",
    ]


def test_a_first_row_of_numbers_is_no_header() -> None:
    assert blocks(parse("1,2\n3,4\n")) == ["1 | 2", "3 | 4"]


def test_rows_of_another_length_are_kept_with_a_warning() -> None:
    document = parse("a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert blocks(document)[2:4] == ["a: 3", "a: 4; b: 5; 6"]
    assert "2 of 5 rows" in document.warnings[0]


def test_a_long_row_is_cut_between_cells_only() -> None:
    row = ["x" * 90] * 10
    names = [f"c{index}" for index in range(10)]
    assert blocks(parse(f"{','.join(names)}\n{','.join(row)}\n"))[1].count("\n") == 9


def test_columns_and_fields_are_limited() -> None:
    wide = ",".join(f"c{index}" for index in range(10_000)) + "\n"
    assert len(blocks(parse(wide * 3))) == 3
    with pytest.raises(DocumentLimitExceeded, match="column count of 20001"):
        parse("a," * 20_000)
    with pytest.raises(DocumentLimitExceeded, match="value count"):
        parse(wide * 3, value_count=15_000)


def test_broken_quotation_marks_make_it_plain_text() -> None:
    document = parse('a,b\n"' + "x,y\n" * 50_000)
    assert document.media_type == "text/plain"
    assert "quotation marks" in document.warnings[0]
