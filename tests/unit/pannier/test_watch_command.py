"""`pannier stats ... --watch`, against services whose reports are written down here."""

import asyncio
import io
import json
import signal

import grpc
import pytest
from rich.console import Console

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.cache.v1 import statistics_pb2
from pannier.commands.balancer_stats import BALANCER_VIEW
from pannier.commands.output import Output
from pannier.commands.watch import Rate, watch_stats

RUN = ("stats", "balancer", "--watch")


def report(request_count: int, **fields) -> pb.WatchStatsResponse:
    fleet = pb.FleetStats(backend_count=2, request_count=request_count, **fields)
    backend = pb.BackendStats(backend_id="a:1", state=pb.BACKEND_STATE_RETURNING)
    stats = pb.GetStatsResponse(fleet=fleet, backends=[backend])
    return pb.WatchStatsResponse(stats=stats)


@pytest.mark.parametrize(
    ("options", "seconds"), [((), 1.0), (("--interval", "250ms"), 0.25), (("--interval", "5"), 5)]
)
def test_the_interval_is_asked_for(services, options, seconds):
    asked = []

    def answer(request, _context):
        asked.append(request.interval.ToNanoseconds() / 1e9)
        yield report(1)

    services.answers["WatchStats"] = answer
    services.run(*RUN, *options)
    assert asked == [seconds]


def test_the_cache_is_watched_as_the_balancer_is(services):
    def answer(request, _context):
        assert request.interval.ToNanoseconds() == 500_000_000
        for count in (3, 4):
            layer = statistics_pb2.LayerStats(
                layer=statistics_pb2.LAYER_INFERENCE,
                windows=[statistics_pb2.WindowStats(lookup_count=count)],
            )
            stats = statistics_pb2.GetStatsResponse(layers=[layer])
            yield statistics_pb2.WatchStatsResponse(stats=stats)

    services.answers["WatchStats"] = answer
    result = services.run("stats", "cache", "--watch", "--interval", "500ms")
    lookups = [line.split()[3] for line in result.stdout.splitlines() if "since start" in line]
    assert lookups == ["3", "4"]
    assert "The cache has ended its reports." in result.stderr


def test_reports_are_asked_for_without_an_end_in_sight(services):
    services.answers["WatchStats"] = lambda _request, _context: iter([report(1)])
    services.run(*RUN)
    assert services.deadlines[0] is not None
    assert services.deadlines[0] > 7 * 86400


def test_outside_of_a_terminal_each_report_follows_the_one_before(services):
    services.answers["WatchStats"] = lambda _request, _context: iter([report(1), report(2)])
    result = services.run(*RUN)
    first, second = result.stdout.split("\n\n")[:2]
    assert "1 requests" in first
    assert "a:1      returning" in first
    assert "2 requests" in second


def test_as_json_each_report_is_a_line(services):
    services.answers["WatchStats"] = lambda _request, _context: iter([report(1), report(2)])
    lines = services.run(*RUN, "--json").stdout.splitlines()
    assert [json.loads(line)["fleet"]["request_count"] for line in lines] == [1, 2]


def test_a_balancer_that_ends_its_reports_is_a_failure(services):
    services.answers["WatchStats"] = lambda _request, _context: iter([report(1)])
    result = services.run(*RUN)
    assert result.exit_code == 1
    assert result.stderr == "The balancer has ended its reports.\n"


def test_a_balancer_that_falls_silent_is_noticed(services):
    def answer(_request, context):
        context.add_callback(services.cancelled.set)
        yield report(1)
        services.cancelled.wait(20)

    services.answers["WatchStats"] = answer
    result = services.run(*RUN, "--interval", "100ms", "--timeout", "0.9")
    assert result.exit_code == 1
    assert result.stderr == "The balancer has sent no report for 1 s.\n"
    assert services.cancelled.wait(10)


def test_a_refused_watch_says_why(services, refuse):
    services.answers["WatchStats"] = lambda _request, context: refuse(
        context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "Going down."
    )
    result = services.run(*RUN)
    assert result.exit_code == 1
    assert "SHUTTING_DOWN (rag.pannier): Going down." in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("stats", "rag", "--watch"),
        ("stats", "toaster", "--watch"),
        ("stats", "balancer", "--interval", "1s"),
        (*RUN, "--interval", "2m"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_any_call(services, arguments):
    assert services.run(*arguments).exit_code == 2
    assert services.deadlines == []


def test_a_terminal_shows_a_live_table_with_the_rate_and_gets_its_cursor_back(services):
    reports = [report(1), report(5, round_robin_fallback=True)]
    services.answers["WatchStats"] = lambda _request, _context: iter(reports)
    screen, errors = io.StringIO(), io.StringIO()
    output = Output(
        console=Console(file=screen, force_terminal=True, width=160), errors=Console(file=errors)
    )
    watched = watch_stats(
        output,
        BALANCER_VIEW,
        tenant="default",
        address=services.address,
        interval_seconds=1.0,
        patience_seconds=10.0,
        as_json=False,
    )
    assert asyncio.run(watched) == 1
    shown = screen.getvalue()
    assert "5 requests" in shown
    assert "requests/s" in shown
    assert "No backend is healthy" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_rate_is_the_growth_per_second_since_the_report_before():
    rate = Rate()
    assert rate.update(10.0, 100) is None
    assert rate.update(12.0, 110) == 5.0
    assert rate.update(12.0, 111) is None


def test_ctrl_c_ends_the_call_and_leaves_no_traceback(services):
    def hang(_request, context):
        context.add_callback(services.cancelled.set)
        yield report(1)
        services.cancelled.wait(20)

    services.answers["WatchStats"] = hang
    with services.start(*RUN, "--json") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("{")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert services.cancelled.wait(10)
