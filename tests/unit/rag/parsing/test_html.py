import pytest

from services.rag.core.document_errors import DocumentEmpty
from services.rag.core.parsing import ParsedDocument, parse_document
from services.rag.core.parsing.html_depth import limit_depth

PAGE = """<!doctype html><html><head><title>Page &amp; title</title>
<style>p { color: red }</style><script>alert(1)</script></head><body>
<nav><a href=/>Home</a> menu</nav>
<main>
<h1>Big <b>head</b></h1>
<p>Hello <b>bold</b>, <i>it</i>alic &amp;
   more.<br>Next line</p>
<p hidden>secret</p><p style="Display : none">secret</p><div aria-hidden=true>secret</div>
<!-- a comment -->
<ul><li>one<li><p>two</p><p>still two</p></ul>
<h2>Sub</h2>
<table><tr><th>a<th>b</tr><tr><td>1<td>2</tr></table>
<pre>def f():
    return  1
</pre>
</main><footer>imprint</footer></body></html>"""


def parse(source: str) -> ParsedDocument:
    return parse_document(source.encode(), file_name="page.html")


def test_the_stored_text_is_what_a_reader_sees() -> None:
    assert parse(PAGE).text.strip() == (
        "Big head\n\nHello bold, italic & more.\nNext line\n\n- one\n- two\nstill two\n\nSub\n\n"
        "a | b\n1 | 2\n\ndef f():\n    return  1"
    )


@pytest.mark.parametrize("hidden", ["secret", "alert", "color", "menu", "imprint", "comment"])
def test_hidden_parts_scripts_and_navigation_are_dropped(hidden: str) -> None:
    assert hidden not in parse(PAGE).text


def test_headings_make_sections() -> None:
    document = parse(PAGE)
    assert document.title == "Page & title"
    assert [section.heading_path for section in document.sections] == [
        ("Big head",),
        ("Big head", "Sub"),
    ]


def test_without_a_title_the_first_heading_is_one() -> None:
    assert parse("<html><body><h1>Head</h1>text").title == "Head"


def test_a_page_without_visible_text_is_refused() -> None:
    with pytest.raises(DocumentEmpty):
        parse("<html><body><script>x</script><nav>menu</nav></body></html>")


def test_what_nests_too_deeply_loses_its_tags_and_keeps_its_text() -> None:
    depth = 20_000
    document = parse(
        "<html><body><h1>Top</h1>" + "<div>" * depth + "core" + "</div>" * depth + "<h2>Sub</h2>end"
    )
    assert document.text.split() == ["Top", "core", "Sub", "end"]
    assert [section.heading_path for section in document.sections] == [(), ("Sub",)]


def test_ordinary_pages_are_left_alone_by_the_limit_of_depth() -> None:
    page = PAGE + "<p>old style<p>" * 2000 + "<ul>" + "<li>item" * 2000
    assert limit_depth(page) is page
