"""`pannier backends`, against a balancer whose answers are written down here."""

import json
import signal
import threading
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.balancer.v1 import balancer_service_pb2 as pb

HEALTHY = pb.BackendHealth(
    backend_id="10.0.0.1:11434",
    state=pb.BACKEND_STATE_HEALTHY,
    load_score_seconds=0.25,
    version="0.33.0",
    loaded_models=["llama3.2:latest", "all-minilm:latest"],
    average_response_time=Duration(seconds=1, nanos=250_000_000),
)


def fleet(services, *backends: pb.BackendHealth, in_flight: int = 3) -> None:
    """Lets the fleet have some backends, of which the first has something to do."""
    health = pb.GetHealthResponse(
        backends=backends,
        healthy_backend_count=sum(each.state == pb.BACKEND_STATE_HEALTHY for each in backends),
    )
    stats = pb.GetStatsResponse(
        backends=[pb.BackendStats(backend_id=backends[0].backend_id, in_flight_count=in_flight)]
    )
    services.answers["GetHealth"] = lambda _request, _context: health
    services.answers["GetStats"] = lambda _request, _context: stats


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_no_command_lists_and_so_does_list(services):
    fleet(services, HEALTHY)
    named, unnamed = services.run("backends", "list"), services.run("backends")
    assert named.exit_code == unnamed.exit_code == 0
    assert named.stdout == unnamed.stdout
    assert rows(named.stdout)[1] == [
        *("10.0.0.1:11434", "healthy", "0.250", "s", "3", "1.25", "s"),
        *("llama3.2:latest,", "all-minilm:latest", "0.33.0", "-"),
    ]
    assert "1 of 1 backends take requests" in named.stdout


def test_a_backend_in_trouble_says_when_it_is_tried_again_and_why(services):
    retry_time = Timestamp()
    retry_time.FromNanoseconds(round((time.time() + 30) * 1e9))
    ill = pb.BackendHealth(
        backend_id="10.0.0.2:11434",
        state=pb.BACKEND_STATE_UNHEALTHY,
        retry_time=retry_time,
        consecutive_failure_count=4,
        last_failure="connection refused",
    )
    fleet(services, HEALTHY, ill)
    result = services.run("backends")
    row = rows(result.stdout)[2]
    assert row[:5] == ["10.0.0.2:11434", "unhealthy", "0.000", "s", "-"]
    assert row[-3] == "in"
    assert 20 <= int(row[-2]) <= 30
    assert "10.0.0.2:11434 has failed, 4 in a row; last: connection refused" in result.stderr


def test_a_retry_that_is_due_is_now_and_a_backend_not_checked_is_not_known(services):
    due = pb.BackendHealth(backend_id="b:1", retry_time=Timestamp(seconds=1))
    fleet(services, due)
    assert rows(services.run("backends").stdout)[1] == [
        *("b:1", "not", "known", "yet", "0.000", "s", "3", "-", "-", "-", "now")
    ]


def test_drift_is_said_plainly(services):
    drifted = pb.BackendHealth(backend_id="b:1", drifted_models=["llama3.2:latest"])
    fleet(services, drifted)
    assert "b:1 has other digests than most backends, or than in memory, of: llama3.2:latest" in (
        services.run("backends").stderr
    )


@pytest.mark.parametrize("check", [False, True])
def test_backends_are_checked_now_where_asked_for(services, check):
    asked = []
    fleet(services, HEALTHY)
    health = services.answers["GetHealth"]

    def answer(request, context):
        asked.append(request.check_now)
        return health(request, context)

    services.answers["GetHealth"] = answer
    services.run("backends", *(["--check"] if check else []))
    assert asked == [check]


def test_json_has_health_and_what_is_in_flight(services):
    fleet(services, HEALTHY, pb.BackendHealth(backend_id="b:1"))
    listed = json.loads(services.run("backends", "--json").stdout)
    assert [(each["backend_id"], each["in_flight_count"]) for each in listed] == [
        ("10.0.0.1:11434", 3),
        ("b:1", None),
    ]
    assert listed[0]["state"] == "BACKEND_STATE_HEALTHY"
    assert listed[0]["average_response_time_seconds"] == 1.25


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("http://10.0.0.7:11434?slots=4", "http://10.0.0.7:11434?slots=4"),
        ("10.0.0.7:11434", "http://10.0.0.7:11434"),
    ],
)
def test_a_backend_is_added_by_its_address(services, given, sent):
    received = []

    def answer(request, _context):
        received.append(request.endpoint)
        return pb.AddBackendResponse(backend=HEALTHY)

    services.answers["AddBackend"] = answer
    result = services.run("backends", "add", given)
    assert received == [sent]
    assert result.stdout == (
        "10.0.0.1:11434 is in the fleet.\n"
        "healthy · Ollama 0.33.0 · in memory: llama3.2:latest, all-minilm:latest\n"
    )


@pytest.mark.parametrize(
    ("options", "grace_seconds", "limit_seconds"),
    [((), None, 70), (("--grace", "5s"), 5, 15), (("--grace", "0s", "--timeout", "30"), 0, 30)],
)
def test_a_removal_may_take_its_grace_and_a_little_more(
    services, options, grace_seconds, limit_seconds
):
    received = []

    def answer(request, _context):
        received.append(request.grace.ToSeconds() if request.HasField("grace") else None)
        return pb.RemoveBackendResponse()

    services.answers["RemoveBackend"] = answer
    result = services.run("backends", "remove", "b:1", *options)
    assert (result.stdout, result.stderr) == ("b:1 is out of the fleet.\n", "")
    assert received == [grace_seconds]
    assert services.deadlines == [pytest.approx(limit_seconds, rel=0.1)]


def test_requests_that_a_removal_left_behind_are_counted(services):
    response = pb.RemoveBackendResponse(abandoned_count=2)
    services.answers["RemoveBackend"] = lambda _request, _context: response
    assert "2 requests were still under way" in services.run("backends", "remove", "b:1").stderr


def test_a_grace_out_of_range_is_refused_before_any_call(services):
    result = services.run("backends", "remove", "b:1", "--grace", "2h")
    assert result.exit_code == 2
    assert services.deadlines == []


def test_an_interrupted_removal_says_how_the_backend_is_left(services):
    arrived = threading.Event()

    def hang(_request, context):
        context.add_callback(services.cancelled.set)
        arrived.set()
        services.cancelled.wait(20)
        return pb.RemoveBackendResponse()

    services.answers["RemoveBackend"] = hang
    with services.start("backends", "remove", "b:1") as process:
        try:
            assert arrived.wait(20)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "`pannier backends resume b:1` takes that back" in errors
    assert errors.endswith("interrupted\n")
    assert services.cancelled.wait(10)


def test_a_drained_backend_says_what_is_still_under_way(services):
    response = pb.DrainBackendResponse(in_flight_count=3)
    services.answers["DrainBackend"] = lambda _request, _context: response
    assert services.run("backends", "drain", "b:1").stdout == (
        "b:1 gets no more requests; 3 under way there.\n"
    )


def test_a_resumed_backend_shows_its_health(services):
    response = pb.ResumeBackendResponse(backend=HEALTHY)
    services.answers["ResumeBackend"] = lambda _request, _context: response
    result = services.run("backends", "resume", "10.0.0.1:11434")
    assert result.stdout.startswith("10.0.0.1:11434 is drained no more.\nhealthy · ")


@pytest.mark.parametrize(
    ("command", "method", "response", "document"),
    [
        ("add", "AddBackend", pb.AddBackendResponse(backend=HEALTHY), "backend"),
        ("remove", "RemoveBackend", pb.RemoveBackendResponse(), "abandoned_count"),
        ("drain", "DrainBackend", pb.DrainBackendResponse(), "in_flight_count"),
        ("resume", "ResumeBackend", pb.ResumeBackendResponse(backend=HEALTHY), "backend"),
    ],
)
def test_every_change_can_be_told_as_json(services, command, method, response, document):
    services.answers[method] = lambda _request, _context: response
    result = services.run("backends", command, "b:1", "--json")
    assert list(json.loads(result.stdout)) == [document]


def test_a_backend_that_is_not_there_is_named_with_those_that_are(services, refuse):
    services.answers["DrainBackend"] = lambda _request, context: refuse(
        context,
        grpc.StatusCode.NOT_FOUND,
        "BACKEND_NOT_FOUND",
        "The fleet has no backend b:2. It has b:1.",
    )
    result = services.run("backends", "drain", "b:2")
    assert result.exit_code == 1
    assert "The fleet has no backend b:2. It has b:1." in result.stderr
    assert "`pannier backends` lists those there are." in result.stderr


def test_a_balancer_that_is_away_is_named_with_what_to_do(services):
    services.address = "127.0.0.1:1"
    result = services.run("backends")
    assert result.exit_code == 2
    assert result.stderr == (
        "balancer is not reachable at 127.0.0.1:1; start it with `pannier up`\n"
    )


def test_a_command_that_does_not_exist_is_refused(services):
    assert services.run("backends", "drian", "b:1").exit_code == 2
    assert services.deadlines == []
