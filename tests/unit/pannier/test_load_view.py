"""What `pannier load` shows fits any terminal, whatever names services and users have."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pannier.commands.columns import Column, fit_columns, fit_parts
from pannier.commands.formatting import clean
from pannier.commands.load_view import live_view, progress_line, show_summary
from pannier.commands.output import Output
from pannier.load.outcome import Outcome
from pannier.load.tally import Tally

HOSTILE = "\x1b[31m[red]bad[/red]\n你好世界\u202eevil\x9b2J\u2028" + "long" * 30


def busy_tally():
    tally = Tally()
    for number in range(40):
        mode, tenant = ("rag", "deep", "direct")[number % 3], f"tenant-{number % 4}"
        outcome = Outcome(error=HOSTILE) if number % 5 == 0 else Outcome(cached=number % 2 == 0)
        tally.note_sent(mode=mode, tenant=tenant, kind="new", due=99.0, now=99.01)
        tally.note_ended(mode=mode, tenant=tenant, due=99.0, now=99.9, outcome=outcome)
    return tally


def shown(width, height, elapsed=10.0):
    view = live_view(
        busy_tally(),
        title=f"a run, {HOSTILE}",
        planned_rate=4.0,
        elapsed=elapsed,
        now=100.5,
        width=width,
        height=height,
    )
    return view.plain.splitlines()


def assert_harmless(lines, width):
    for line in lines:
        assert cell_len(line) <= width
        assert all(unicodedata.category(each) not in ("Cc", "Zl", "Zp") for each in line)
        assert "\u202e" not in line


@pytest.mark.parametrize(("width", "height"), [(160, 60), (80, 23), (40, 9), (15, 3), (1, 1)])
def test_the_live_view_fits_a_terminal(width, height):
    lines = shown(width, height)
    assert 1 <= len(lines) <= height
    assert_harmless(lines, width)


def test_eighty_by_twenty_four_have_room_for_times_errors_modes_and_tenants():
    lines = shown(80, 23)
    headings = [each.split()[0] for each in lines if each]
    for expected in ("time", "error", "mode", "tenant", "tenant-3"):
        assert expected in headings
    (mode,) = (each for each in lines if each.startswith("mode"))
    assert "answered" in mode
    assert "failed" in mode


def headings(name, width):
    (line,) = (each for each in shown(width, 60) if each.split()[:1] == [name])
    return line.split()


def test_on_a_narrower_terminal_columns_go_one_after_the_other_the_least_wanted_first():
    columns = ["mode", "sent", "answered", "failed", "cached", "degraded", "p50", "p95", "p99"]
    assert headings("mode", 120) == columns
    gone = []
    for width in range(119, 14, -1):
        left = headings("mode", width)
        gone += [each for each in columns if each not in left and each not in gone]
        assert left == [each for each in columns if each not in gone]
    assert gone[:5] == ["sent", "degraded", "cached", "p50", "p99"]
    assert set(gone) == set(columns) - {"mode", "p95"}


@pytest.mark.parametrize(("elapsed", "rate"), [(0.1, 32), (2.0, 16), (8.0, 4), (3600.0, 3.2)])
def test_rates_are_those_of_the_time_that_has_passed_at_most_of_ten_seconds(elapsed, rate):
    assert f"{rate:.1f}/s answered" in shown(120, 30, elapsed)[1]


def test_a_small_terminal_shows_rates_and_times_first():
    lines = shown(40, 9)
    assert lines[1] == "4.0/s planned · 3.2/s answered"
    assert lines[3].split() == ["time", "span", "p95"]


def test_the_count_of_an_error_is_shown_however_long_its_name_is():
    for width in (160, 80, 40, 20):
        (line,) = (each for each in shown(width, 60) if each.startswith("[31m"))
        assert line.endswith(" 8")


def test_neither_the_log_nor_the_summary_lets_a_name_steer_a_terminal():
    tally = busy_tally()
    line = progress_line(tally, title=HOSTILE, elapsed=10.0, now=100.5)
    assert "\n" not in line
    assert "\x1b" not in line
    written = io.StringIO()
    output = Output(console=Console(file=written, width=80), errors=Console(file=io.StringIO()))
    show_summary(output, tally, elapsed=10.0, answering=20.0, seed=1)
    assert "32 answered (1.60/s)" in written.getvalue()
    assert "\x1b" not in written.getvalue()
    assert "[red]bad[/red]" in written.getvalue()


def test_an_empty_run_has_a_summary_too():
    written = io.StringIO()
    output = Output(console=Console(file=written, width=80), errors=Console(file=io.StringIO()))
    show_summary(output, Tally(), elapsed=0.0, answering=0.0, seed=1)
    assert "0 questions were due in 0 ms" in written.getvalue()
    view = live_view(Tally(), title="t", planned_rate=0, elapsed=0.0, now=0.0, width=80, height=24)
    assert "0.0/s planned" in view.plain


@given(
    st.lists(st.text(max_size=30), min_size=1, max_size=4),
    st.lists(st.text(max_size=12), min_size=4, max_size=4),
    st.integers(1, 60),
)
def test_a_table_is_never_wider_than_its_terminal(names, cells, width):
    columns = (
        Column("name", 0, names, "left"),
        *(
            Column(cell[:3].strip() or "x", rank, [cell] * len(names))
            for rank, cell in enumerate(cells)
        ),
    )
    lines = fit_columns(columns, width=width)
    assert len(lines) == 1 + len(names)
    assert all(cell_len(each) <= width for each in lines)


def test_wide_characters_do_not_shift_the_columns_after_them():
    columns = (
        Column("name", 0, ["你好", "ab"], "left"),
        Column("n", 0, ["1", "2"]),
    )
    assert fit_columns(columns, width=20) == ["name  n", "你好  1", "ab    2"]


def test_the_least_wanted_parts_of_a_line_go_first():
    parts = [("up 3 s", 4), (", 5 requests/s", 1), ("; 8 of 8 healthy", 0)]
    assert fit_parts(parts, width=80) == "up 3 s, 5 requests/s; 8 of 8 healthy"
    assert fit_parts(parts, width=32) == "5 requests/s; 8 of 8 healthy"
    assert fit_parts(parts, width=3) == "8 of 8 healthy"


def test_marks_that_turn_the_direction_of_a_text_are_removed():
    assert clean("user\u202egnp.exe\u2066\u2028\x85") == "usergnp.exe"
    assert clean("ab\tc\nd é 你") == "ab\tc\nd é 你"
