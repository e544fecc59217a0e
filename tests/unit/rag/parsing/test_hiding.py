import pytest

from services.rag.core.parsing import parse_document
from services.rag.core.parsing.hiding import drop_hidden_markup

HIDING = [
    "display:none",
    "DISPLAY : NONE !important",
    "visibility:hidden",
    "font-size:0",
    "font-size: 0.0px; color: red",
    "opacity:0",
    "color:transparent",
    "color:#fff",
    "color: white; background: #FFFFFF",
    "color: rgb(254, 254, 254)",
    "color:#123456;background-color:#123456",
    "position:absolute; left:-9999px",
    "display/* */:none",
]
SHOWING = [
    "font-size:0.8em",
    "opacity:0.5",
    "color:#333",
    "color:white;background:#000",
    "left:-5px",
]


@pytest.mark.parametrize("style", HIDING)
def test_text_hidden_by_its_style_is_dropped_from_pages_and_markdown(style: str) -> None:
    element = f'before <span style="{style}">secret <b>words</b></span> after'
    page = parse_document(f"<html><body><p>{element}</p>".encode(), file_name="a.html")
    assert page.text.split() == ["before", "after"]
    notes = parse_document(element.encode(), file_name="a.md")
    assert notes.text.split() == ["before", "after"]


@pytest.mark.parametrize("style", SHOWING)
def test_text_with_other_styles_stays(style: str) -> None:
    page = parse_document(f'<html><p style="{style}">words</p>'.encode(), file_name="a.html")
    assert page.text.strip() == "words"


def test_the_background_of_an_outer_element_counts() -> None:
    source = (
        '<html><body><div style="background:#000"><p style="color:#fff">shown</p>'
        '<p style="color:black">hidden</p></div><p style="color:black">also shown</p>'
    )
    assert parse_document(source.encode(), file_name="a.html").text.split() == [
        "shown",
        "also",
        "shown",
    ]


def test_white_text_stays_where_a_style_sheet_may_set_the_background() -> None:
    source = "<html><head><style>p {background: navy}</style></head><p style='color:white'>shown"
    assert parse_document(source.encode(), file_name="a.html").text.strip() == "shown"


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("a <!-- b\n\nc --> d", "a  d"),
        ("a <!-- never closed\nb\n\nc", "a \n\nc"),
        ("a <div hidden><div>b</div>c</div> d", "a  d"),
        ("a <script>b</script> c", "a  c"),
        ("a <p style='display&#58;none'>b</p> c", "a  c"),
        ("a <b hidden>b\n\nc", "a \n\nc"),
        ("[//]: # (a note)\nb", "\nb"),
        ("`<!-- shown -->` and `<b hidden>`", "`<!-- shown -->` and `<b hidden>`"),
        ("```html\n<!-- shown -->\n```\n", "```html\n<!-- shown -->\n```\n"),
        ("a < b and c > d, List<Object> x", "a < b and c > d, List<Object> x"),
        ('<img alt="the hidden one" src=x> y', '<img alt="the hidden one" src=x> y'),
    ],
)
def test_markdown_loses_hidden_html_and_keeps_code(source: str, kept: str) -> None:
    assert drop_hidden_markup(source) == kept
