import zipfile
from io import BytesIO
from random import Random

import docx
import pytest

from services.rag.core.document_errors import (
    DocumentEmpty,
    DocumentLimitExceeded,
    DocumentUnreadable,
)
from services.rag.core.parsing import BlockKind, ParseLimits, parse_document

BODY = (
    '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
    "<w:body>{}</w:body></w:document>"
)
PARAGRAPH = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"


def saved(document) -> bytes:
    buffer = BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def with_body(xml: str | bytes, **others: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as container:
        container.writestr("word/document.xml", xml)
        for name, content in others.items():
            container.writestr(name, content)
    return buffer.getvalue()


def test_headings_lists_and_tables_come_in_order() -> None:
    source = docx.Document()
    source.core_properties.title = "Handbook"
    source.add_heading("The handbook", 0)
    source.add_heading("Start", 1)
    source.add_paragraph("First words.")
    source.add_paragraph("one", style="List Bullet")
    source.add_paragraph("two", style="List Number")
    source.add_heading("Figures", 2)
    table = source.add_table(2, 2)
    for index, words in enumerate(("Name", "Age", "Ann", "30")):
        table.cell(index // 2, index % 2).text = words
    source.add_paragraph("Last words.")
    document = parse_document(saved(source), file_name="h.docx")
    assert document.title == "Handbook"
    found = [
        (section.heading_path, block.kind, document.text[block.char_start : block.char_end])
        for section in document.sections
        for block in section.blocks
    ]
    assert found == [
        ((), BlockKind.HEADING, "The handbook"),
        (("Start",), BlockKind.HEADING, "Start"),
        (("Start",), BlockKind.PARAGRAPH, "First words."),
        (("Start",), BlockKind.ITEM, "- one"),
        (("Start",), BlockKind.ITEM, "- two"),
        (("Start", "Figures"), BlockKind.HEADING, "Figures"),
        (("Start", "Figures"), BlockKind.VERBATIM, "Name | Age\nAnn | 30"),
        (("Start", "Figures"), BlockKind.PARAGRAPH, "Last words."),
    ]


def test_hidden_white_and_deleted_text_is_left_out() -> None:
    source = docx.Document()
    paragraph = source.add_paragraph("seen ")
    paragraph.add_run("vanished ").font.hidden = True
    paragraph.add_run("white").font.color.rgb = docx.shared.RGBColor(255, 255, 255)
    assert parse_document(saved(source), file_name="a.docx").text.strip() == "seen"
    deleted = BODY.format(
        "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:r><w:t>kept</w:t></w:r></w:p>"
    )
    assert parse_document(with_body(deleted), file_name="a.docx").text.strip() == "kept"


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (with_body(b"\0" * 2_000_000), "compression_ratio"),
        (with_body(BODY.format(""), **{f"f{index}": b"" for index in range(30)}), "member_count"),
        (with_body(Random(1).randbytes(3_000_000)), "uncompressed_bytes"),
        (with_body(BODY.format("<w:tbl><w:tr><w:tc>" * 300)), "nesting_depth"),
    ],
)
def test_bombs_are_refused_with_the_limit_they_break(content: bytes, limit: str) -> None:
    limits = ParseLimits(member_count=20, uncompressed_bytes=2_500_000)
    with pytest.raises(DocumentLimitExceeded) as caught:
        parse_document(content, file_name="a.docx", limits=limits)
    assert caught.value.metadata["limit"] == limit
    assert int(caught.value.metadata["actual"]) > int(caught.value.metadata["allowed"])


def test_a_directory_that_lies_about_sizes_does_not_get_more() -> None:
    content = bytearray(with_body(b"\0" * 2_000_000))
    at = content.rfind(b"PK\x01\x02") + 24
    content[at : at + 4] = (1000).to_bytes(4, "little")
    with pytest.raises((DocumentLimitExceeded, DocumentUnreadable)):
        parse_document(bytes(content), file_name="a.docx")


@pytest.mark.parametrize(
    "xml",
    [
        '<!DOCTYPE x [<!ENTITY a "b">]>' + BODY.format(PARAGRAPH.format("&a;")),
        BODY.format("<w:p>"),
        "no xml",
    ],
)
def test_entities_and_broken_xml_are_refused(xml: str) -> None:
    with pytest.raises(DocumentUnreadable):
        parse_document(with_body(xml), file_name="a.docx")


def test_a_hundred_thousand_empty_paragraphs_are_an_empty_document() -> None:
    content = with_body(BODY.format("<w:p/>" * 100_000))
    with pytest.raises(DocumentEmpty):
        parse_document(content, file_name="a.docx")
