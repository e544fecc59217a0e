"""`pannier top`, against services whose reports are written down here, and on a terminal."""

import json
import signal
import threading
import tracemalloc

import grpc
import pytest
from rich.cells import cell_len

from pannier.balancer.v1 import balancer_service_pb2 as balancer_pb
from pannier.cache.v1 import statistics_pb2 as cache_pb
from pannier.commands.columns import Column, fit_columns
from pannier.commands.output import Output
from pannier.commands.top import Screen
from pannier.commands.top_state import Growth, TopState
from pannier.commands.top_view import FrameOptions, frame_lines, styled
from pannier.rag.v1 import rag_service_pb2 as rag_pb
from pannier.rag.v1 import usage_service_pb2 as usage_pb
from tests.kit.terminal import running_on_terminal


def rag_stats(count=100, **fields):
    modes = [
        rag_pb.ModeStats(mode=mode, query_count=count, failure_count=count // 10, **fields)
        for mode in (1, 2, 3, 4)
    ]
    for each in modes:
        each.answer_time_p95.FromMilliseconds(1250)
    return rag_pb.GetStatsResponse(modes=modes, in_flight_count=7)


def cache_stats():
    layers = []
    for layer in (1, 2, 3, 4):
        windows = [
            cache_pb.WindowStats(lookup_count=10, hit_ratio=0.25),
            cache_pb.WindowStats(lookup_count=40, hit_ratio=0.5),
        ]
        windows[0].window.FromSeconds(60)
        layers.append(cache_pb.LayerStats(layer=layer, local_entry_count=12, windows=windows))
    store = cache_pb.StoreStats(state=cache_pb.STORE_STATE_RECOVERING)
    return cache_pb.GetStatsResponse(layers=layers, store=store)


def balancer_stats(count=8, requests=50):
    backends = [
        balancer_pb.BackendStats(
            backend_id=f"10.0.0.{number}:11434",
            state=balancer_pb.BACKEND_STATE_HEALTHY,
            load_score_seconds=number / 10,
            in_flight_count=count - number,
            failure_count=number % 3,
            request_count=requests,
            models=[
                balancer_pb.LoadedModelStats(model="llama:latest", decode_tokens_per_second=42.0)
            ],
        )
        for number in range(1, count + 1)
    ]
    queue = balancer_pb.QueueStats(priority=balancer_pb.PRIORITY_INTERACTIVE, limit=256)
    fleet = balancer_pb.FleetStats(
        backend_count=count, healthy_backend_count=count, request_count=requests, queues=[queue]
    )
    return balancer_pb.GetStatsResponse(fleet=fleet, backends=backends)


def full_state(backends=8):
    state = TopState()
    for at, factor in ((100.0, 1), (110.0, 2)):
        state.note_report("rag", rag_stats(100 * factor), at)
        state.note_report("cache", cache_stats(), at)
        state.note_report("balancer", balancer_stats(backends, 50 * factor), at)
    return state


def frame(state, width=160, height=0, **options):
    return frame_lines(
        state,
        FrameOptions(width=width, height=height, now=112.0, clock=1_700_000_000.0, **options),
    )


def test_rates_and_shares_are_those_of_the_last_seconds():
    text = "\n".join(frame(full_state()))
    assert "40.0 answers/s, 7 under way; errors 10.0 %" in text
    assert "5.0 requests/s" in text
    assert "store recovering" in text
    assert "interactive 0/256" in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 20), (40, 24), (200, 60)])
@pytest.mark.parametrize("backends", [1, 8, 64])
def test_a_frame_fits_its_terminal(width, height, backends):
    lines = frame(full_state(backends), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_on_80_by_24_all_that_matters_is_there():
    text = "\n".join(frame(full_state(), 80, 24))
    for word in ("p95", "hits 1m", "queue", "backend", "load", "busy", "healthy", "semantic"):
        assert word in text
    assert sum(line.startswith("10.0.0.") for line in text.splitlines()) >= 6


HOSTILE = "\x1b[31m[red]a[/red]\n你好\u202e\x9b2J\u2028" + "b" * 70


@pytest.mark.parametrize(("width", "height"), [(200, 60), (80, 24), (40, 10), (12, 3)])
def test_no_name_steers_the_terminal_or_takes_more_than_its_line(width, height):
    state = full_state()
    stats = balancer_stats()
    for number, each in enumerate(stats.backends):
        each.backend_id, each.models[0].model = f"{HOSTILE}{number}", HOSTILE
    state.note_report("balancer", stats, 111.0)
    state.note_away("cache", HOSTILE, 105.0)
    lines = frame(state, width, height)
    assert len(lines) <= height
    text = styled(lines)
    assert text.plain.splitlines() == lines
    for line in lines:
        assert cell_len(line) <= width
        assert not {"\x1b", "\u202e", "\x9b"} & set(line)
    if height > 3:
        assert sum("[31m[red]a" in line for line in lines) >= 1
        assert any(" healthy" in line for line in lines)


def test_where_there_is_little_room_the_fleet_is_kept():
    lines = frame(full_state(), 40, 10)
    text = "\n".join(lines)
    assert lines[1] == "rag      40.0 answers/s; errors 10.0 %"
    assert "8 of 8 healthy" in lines[3]
    assert "hits 1m" not in text
    assert "p95" not in text
    assert lines[4].startswith("queue")
    assert sum(line.startswith("10.0.0.") for line in lines) >= 3
    assert lines[-1] == "… and 5 more"


def test_backends_that_do_not_fit_are_counted():
    lines = frame(full_state(64), 100, 24)
    shown = sum(line.startswith("10.0.0.") for line in lines)
    assert lines[-1] == f"… and {64 - shown} more"


@pytest.mark.parametrize(
    ("sort", "first"), [("name", "10.0.0.1"), ("load", "10.0.0.8"), ("in flight", "10.0.0.1")]
)
def test_backends_are_sorted(sort, first):
    lines = frame(full_state(), sort=sort)
    assert next(each for each in lines if each.startswith("10.")).startswith(first)


def test_a_service_that_is_away_is_shown_as_away_and_its_tables_are_not():
    state = full_state()
    state.note_away("cache", "not reachable at x:1", 105.0)
    state.note_away("cache", "not reachable at x:1", 111.0)
    text = "\n".join(frame(state))
    assert "cache    away for 7.00 s: not reachable at x:1" in text
    assert "hits 1m" not in text
    state.note_report("cache", cache_stats(), 113.0)
    assert "hits 1m" in "\n".join(frame(state))


def test_a_process_started_anew_is_no_negative_rate():
    growth = Growth()
    growth.note(1.0, {"query": 100})
    growth.note(2.0, {"query": 110})
    assert growth.per_second("query") == 10
    growth.note(3.0, {"query": 2})
    assert growth.per_second("query") is None
    growth.note(5.0, {"query": 8})
    assert growth.per_second("query") == 3


@pytest.mark.parametrize("interval", [0.1, 1.0, 7.0])
def test_growth_covers_about_ten_seconds_however_often_reports_come(interval):
    growth = Growth()
    for number in range(300):
        growth.note(number * interval, {"query": number * interval * 3})
    assert growth.per_second("query") == pytest.approx(3)
    assert 30 <= growth.increase("query") <= 30 + 3 * interval + 1.1


def test_reports_without_end_take_no_more_memory():
    state = TopState()

    def take_in(numbers):
        for number in numbers:
            state.note_report("rag", rag_stats(number), float(number))
            state.note_report("balancer", balancer_stats(8, number), float(number))
            if number % 20 == 0:
                frame(state)

    take_in(range(100))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        take_in(range(100, 500))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # Counts of a report take a kilobyte, and those of eleven are kept.
    assert grown < 100_000


def test_columns_are_left_out_by_rank_until_the_line_is_short_enough():
    columns = (
        Column("name", 0, ["a", "bb"], "left"),
        Column("first", 2, ["1", "2"]),
        Column("second", 1, ["3", "4"]),
    )
    assert fit_columns(columns, width=80)[1] == "a         1       3"
    assert fit_columns(columns, width=14) == ["name  second", "a          3", "bb         4"]
    assert fit_columns(columns, width=3) == ["nam", "a", "bb"]


def test_keys_sort_pause_and_end():
    screen = Screen(Output(), TopState())
    for key in "xsp":
        screen.press(key)
    assert (screen.sort, screen.paused, screen.ended) == ("load", True, False)
    for key in "sssPq":
        screen.press(key)
    assert (screen.sort, screen.paused, screen.ended) == ("name", False, True)


@pytest.fixture
def ready(services):
    """Services that report; they all live at one address."""
    services.counts = {"reports": 0}

    def stats(_request, context):
        # One method name serves three services; each asks for its own kind of answer.
        services.counts["reports"] += 1
        return rag_stats()

    services.answers |= {
        "GetStats": stats,
        "GetUsage": lambda _request, _context: usage_pb.GetUsageResponse(
            currency="EUR", total=usage_pb.UsageAmounts(cost_nanos=2_500_000_000)
        ),
    }
    return services


def test_once_shows_what_can_be_reached_and_says_what_cannot(ready):
    elsewhere = ("--cache-address", "127.0.0.1:1", "--balancer-address", "127.0.0.1:1")
    result = ready.run("top", "--once", *elsewhere)
    assert result.exit_code == 0
    assert "cost     2.50 EUR within a day" in result.stdout
    assert "cache    away for" in result.stdout
    assert "not reachable at 127.0.0.1:1" in result.stdout
    assert "balancer away for" in result.stdout
    assert "\x1b" not in result.stdout


def test_once_without_anybody_there_is_a_failure(ready, refuse):
    ready.answers["GetStats"] = lambda _request, context: refuse(
        context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "Going down."
    )
    result = ready.run("top", "--once", "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["rag"] is None
    assert document["away"]["rag"] == "Going down."


def test_broken_off_it_has_written_whole_documents(ready):
    with ready.start("top", "--json", "--interval", "100ms") as process:
        try:
            first = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    frames = [json.loads(each) for each in [first, *rest.splitlines()]]
    assert frames[-1].keys() == {"rag", "cache", "balancer", "away", "usage"}
    assert rest == "" or rest.endswith("\n")


@pytest.mark.parametrize("arguments", [("--sort", "colour"), ("--interval", "2h")])
def test_what_cannot_be_shown_is_refused(services, arguments):
    assert services.run("top", *arguments).exit_code == 2
    assert services.deadlines == []


def test_on_a_terminal_keys_work_a_service_comes_back_and_the_terminal_is_as_before(ready, refuse):
    away = threading.Event()

    def stats(_request, context):
        if away.is_set():
            refuse(context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "Going down.")
        return rag_stats()

    ready.answers["GetStats"] = stats
    elsewhere = ("--cache-address", "127.0.0.1:1", "--balancer-address", "127.0.0.1:1")
    command = ("top", "--interval", "100ms", *elsewhere, "--address", ready.address)
    with running_on_terminal(*command, rows=24, columns=80) as terminal:
        terminal.wait_for("answers/s")
        terminal.press("s")
        terminal.wait_for("sort: load")
        terminal.press("p")
        terminal.wait_for("PAUSED")
        terminal.press("p")
        away.set()
        terminal.wait_for("Going down.")
        away.clear()
        terminal.wait_for("answers/s")
        terminal.press("q")
        assert terminal.wait_for_end() == 0
        assert terminal.settings == terminal.before
        assert "Traceback" not in terminal.shown
