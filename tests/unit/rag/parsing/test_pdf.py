import pytest
from fpdf import FPDF

from services.rag.core.document_errors import DocumentLimitExceeded, DocumentUnreadable
from services.rag.core.parsing import ParsedDocument, ParseLimits, parse_document

LAST_WORDS = ("red", "green", "blue", "grey")


class Report(FPDF):
    def header(self):
        self.set_font("Helvetica", size=9)
        self.cell(0, 5, "Annual report", new_x="LMARGIN", new_y="NEXT")

    def footer(self):
        self.set_y(-15)
        self.set_font("Helvetica", size=9)
        self.cell(0, 5, f"Page {self.page_no()} of 4")


def write(pdf: FPDF, text: str, size: int = 11) -> None:
    pdf.set_font("Helvetica", size=size)
    pdf.multi_cell(0, 6, text, new_x="LMARGIN", new_y="NEXT")


def report(*, outline: bool = False) -> bytes:
    pdf = Report()
    for number in range(1, 5):
        pdf.add_page()
        if outline:
            pdf.start_section(f"Chapter {number}", level=0)
        write(pdf, f"Chapter {number}", 11 if outline else 18)
        write(pdf, "The well-known fox is an exam-\nple of a well-\nknown animal.\n- one")
        write(pdf, f"- {LAST_WORDS[number - 1]}")
    return bytes(pdf.output())


def parse(content: bytes, **limits: int) -> ParsedDocument:
    return parse_document(content, file_name="a.pdf", limits=ParseLimits(**limits))


def page_texts(document: ParsedDocument) -> list[str]:
    return [document.text[page.char_start : page.char_end].strip() for page in document.pages]


def test_pages_are_told_running_heads_are_gone_and_divided_words_whole() -> None:
    document = parse(report())
    assert page_texts(document)[1] == (
        "Chapter 2\nThe well-known fox is an example\nof a well-known\nanimal.\n- one\n- green"
    )
    assert [page.number for page in document.pages] == [1, 2, 3, 4]


@pytest.mark.parametrize("outline", [False, True])
def test_headings_come_from_the_outline_or_from_large_type(outline: bool) -> None:
    document = parse_document(report(outline=outline), file_name="a.pdf", title="t")
    assert [section.heading_path for section in document.sections] == [
        (f"Chapter {number}",) for number in range(1, 5)
    ]


def test_a_running_head_may_name_the_chapter_beside_the_page() -> None:
    pdf = FPDF()
    for number, chapter in enumerate(("Fish", "Fish", "Bread", "Cheese", "Cheese"), start=7):
        pdf.add_page()
        write(pdf, f"{chapter} {number}")
        write(pdf, f"{chapter} costs {number * number} coins.")
    assert [text.partition(" ")[2] for text in page_texts(parse(bytes(pdf.output())))] == [
        f"costs {number * number} coins." for number in range(7, 12)
    ]


def test_a_document_without_a_text_layer_says_so() -> None:
    pdf = FPDF()
    pdf.add_page()
    with pytest.raises(DocumentUnreadable) as caught:
        parse(bytes(pdf.output()))
    assert caught.value.metadata["problem"] == "no text layer"


def test_a_page_without_text_is_an_empty_page_and_a_warning() -> None:
    pdf = FPDF()
    for words in ("first", "", "third"):
        pdf.add_page()
        if words:
            write(pdf, words)
    document = parse(bytes(pdf.output()))
    assert page_texts(document) == ["first", "", "third"]
    assert document.warnings == ("Page 2 without a text layer: empty, or pictures only.",)


@pytest.mark.parametrize(("password", "is_open"), [("", True), ("secret", False)])
def test_encryption_is_opened_by_the_empty_password_only(password: str, is_open: bool) -> None:
    pdf = FPDF()
    pdf.set_encryption(owner_password="owner", user_password=password)
    pdf.add_page()
    write(pdf, "content")
    content = bytes(pdf.output())
    if is_open:
        assert parse(content).text.strip() == "content"
    else:
        with pytest.raises(DocumentUnreadable) as caught:
            parse(content)
        assert caught.value.metadata["problem"] == "encrypted"


@pytest.mark.parametrize("content", [b"%PDF-1.7 nothing", b"%PDF-1.7\n" + b"1 0 obj <<" * 2000])
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(DocumentUnreadable):
        parse(content)


def test_a_page_that_cannot_be_read_costs_no_other() -> None:
    pdf = FPDF()
    pdf.set_compression(False)
    for words in ("first", "second", "third"):
        pdf.add_page()
        write(pdf, words)
    content = bytes(pdf.output())
    at = content.index(b"(second)")
    start = content.rindex(b"<<", 0, at)
    broken = content[:start] + content[start:at].replace(b"<<", b"<<\n/Filter /Nonsense", 1)
    document = parse(broken + content[at:])
    assert page_texts(document) == ["first", "", "third"]
    assert len(document.warnings) == 1


def test_pages_and_text_are_limited() -> None:
    with pytest.raises(DocumentLimitExceeded, match="page count of 4, the limit is 3"):
        parse(report(), page_count=3)
    with pytest.raises(DocumentLimitExceeded, match="character count"):
        parse(report(), character_count=100)
