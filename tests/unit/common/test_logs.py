import json
import logging
import os
import signal
import threading
import time

import pytest
from opentelemetry.sdk.resources import Resource

from services.common.baggage import Baggage, current_baggage
from services.common.identity import Identity, current_identity
from services.common.logs import LogQueue, logging_to_standard_error
from services.common.spans import LeanTracerProvider
from services.common.tracing import remote_parent


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        os.close(descriptor)


@pytest.fixture
def make_logger():
    logger = logging.getLogger("pannier.test")

    def make(descriptor, *, limit=1000):
        handler = LogQueue(descriptor, service_name="rag", limit=limit)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(handler)
        return logger, handler

    yield make
    logger.handlers.clear()
    logger.propagate = True


def lines_of(descriptor):
    data = b""
    while not data.endswith(b"\n"):
        data += os.read(descriptor, 1 << 20)
    return [json.loads(line) for line in data.splitlines()]


def test_a_line_tells_what_where_when_and_for_whom(pipe, make_logger):
    logger, handler = make_logger(pipe[1])
    tracer = LeanTracerProvider(resource=Resource({})).get_tracer("x")
    identity = current_identity.set(Identity("acme"))
    baggage = current_baggage.set(Baggage("deep", "q1"))
    with tracer.start_as_current_span("a") as span:
        logger.warning("it %s", "happened", extra={"code": "OK", "duration_seconds": 0.5})
    current_identity.reset(identity)
    current_baggage.reset(baggage)
    handler.close()
    (line,) = lines_of(pipe[0])
    context = span.get_span_context()
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "service": "rag",
        "logger": "pannier.test",
        "message": "it happened",
        "code": "OK",
        "duration_seconds": 0.5,
        "trace_id": format(context.trace_id, "032x"),
        "span_id": format(context.span_id, "016x"),
        "query_id": "q1",
        "tenant": "acme",
    }


def test_outside_of_calls_there_is_no_trace_question_or_tenant(pipe, make_logger):
    logger, handler = make_logger(pipe[1])
    logger.info("x")
    handler.close()
    assert not {"trace_id", "query_id", "tenant"} & set(lines_of(pipe[0])[0])


def test_an_exception_stands_in_its_line(pipe, make_logger):
    logger, handler = make_logger(pipe[1])
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("failed")
    handler.close()
    (line,) = lines_of(pipe[0])
    assert line["exception"].endswith("ValueError: why")
    assert "Traceback" in line["exception"]


class Odd:
    """Cannot be written."""

    def __str__(self):
        raise RuntimeError


def test_anything_can_be_logged(pipe, make_logger):
    logger, handler = make_logger(pipe[1])
    logger.info("a", extra={"big": 1 << 80, "half": "\ud800", "thing": {1, 2}})
    logger.info("b", extra={"odd": Odd()})
    logger.info("c")
    logger.info("d", extra={"half": "\ud800", "seconds": 0.5, "count": 3, "good": True, "no": None})
    handler.close()
    lines = lines_of(pipe[0])
    assert [line["message"] for line in lines] == ["a", "b", "c", "d"]
    assert (lines[0]["big"], lines[0]["half"]) == (str(1 << 80), "?")
    assert lines[1]["odd"] == "<Odd>"
    # One odd value does not make texts of all others.
    assert lines[3].items() >= {"seconds": 0.5, "count": 3, "good": True, "no": None}.items()


@pytest.mark.parametrize("record", [("%d", "x"), ("%s %s", 1), ("a", 1), ("%s", Odd())])
def test_a_record_whose_arguments_do_not_fit_is_told_all_the_same(
    record, pipe, make_logger, capsys
):
    logger, handler = make_logger(pipe[1])
    logger.info(*record)
    handler.close()
    (line,) = lines_of(pipe[0])
    assert line["message"] == f"{record[0]} (arguments do not fit)"
    # Standard error, which this would wait for, is for whole lines only.
    assert capsys.readouterr().err == ""


def test_a_record_that_cannot_become_a_line_is_counted_as_lost(pipe, make_logger, capsys):
    logger, handler = make_logger(pipe[1])
    logger.info("a", exc_info=("no", "such", "thing"))
    logger.info("b")
    handler.close()
    lost, line = lines_of(pipe[0])
    assert (lost["message"], lost["record_count"]) == ("log records lost", 1)
    assert line["message"] == "b"
    assert capsys.readouterr().err == ""


def test_what_a_record_brings_along_does_not_replace_what_every_line_has(pipe, make_logger):
    logger, handler = make_logger(pipe[1])
    logger.info("a", extra={"time": 5, "level": "x", "service": "x", "logger": "x"})
    handler.close()
    (line,) = lines_of(pipe[0])
    assert (line["level"], line["service"], line["logger"]) == ("info", "rag", "pannier.test")
    assert line["time"].endswith("+00:00")


def test_of_long_texts_the_ends_are_kept(pipe, make_logger):
    logger, handler = make_logger(pipe[1])
    long = "a" * 1_000_000
    try:
        raise ValueError(long + "z")
    except ValueError:
        logger.exception("b%sc", long, extra={"text": f"d{long}e"})
    handler.close()
    (line,) = lines_of(pipe[0])
    assert line["message"].startswith("ba")
    assert line["message"].endswith("ac")
    assert line["text"].endswith("ae")
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("az")
    assert max(len(text) for text in line.values()) < 20_000


def test_a_signal_handler_may_log_at_any_moment(pipe, make_logger):
    logger, handler = make_logger(pipe[1], limit=100_000)
    count = 0

    def log(number, frame):
        nonlocal count
        count += 1
        logger.info("signal", extra={"number": count})

    before = signal.signal(signal.SIGALRM, log)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for number in range(300):
            logger.info("x", extra={"number": number})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    logger.info("last")
    lines = []
    with os.fdopen(os.dup(pipe[0]), "rb") as reader:
        while not lines or b'"last"' not in lines[-1]:
            lines.append(reader.readline())
    handler.close()
    kinds = [json.loads(line)["message"] for line in lines]
    assert kinds.count("x") == 300
    assert kinds.count("signal") == count > 0


def test_a_reader_that_stands_still_blocks_nobody_and_learns_what_it_missed(pipe, make_logger):
    read, write = pipe
    logger, handler = make_logger(write, limit=50)
    text = "x" * 1000
    started = time.monotonic()
    for number in range(1000):
        logger.info(text, extra={"number": number})
    assert time.monotonic() - started < 2
    lines = []

    def read_until_the_end():
        with os.fdopen(os.dup(read), "rb") as stream:
            while not lines or lines[-1]["message"] != "after":
                lines.append(json.loads(stream.readline()))

    reader = threading.Thread(target=read_until_the_end)
    reader.start()
    deadline = time.monotonic() + 5
    while handler._lines.qsize() and time.monotonic() < deadline:
        time.sleep(0.001)
    logger.info("after")
    handler.close()
    reader.join(5)
    # Every record is there, in order, or counted at its place.
    expected, lost_count = 0, 0
    for line in lines[:-1]:
        if "number" in line:
            assert line["number"] == expected
            expected += 1
        else:
            assert (line["message"], line["level"]) == ("log records lost", "warning")
            expected += line["record_count"]
            lost_count += line["record_count"]
    assert expected == 1000
    assert lost_count > 500
    assert lines[-1]["message"] == "after"


def test_the_end_waits_for_a_dead_reader_for_a_limited_time(pipe, make_logger, monkeypatch):
    monkeypatch.setattr("services.common.logs._LAST_SECONDS", 0.1)
    logger, handler = make_logger(pipe[1])
    for _ in range(200):
        logger.info("x" * 1000)
    started = time.monotonic()
    handler.close()
    assert time.monotonic() - started < 1
    # Lets the thread go.
    while handler._thread.is_alive():
        os.read(pipe[0], 1 << 16)
        handler._thread.join(0.01)


def test_a_reader_that_is_gone_is_no_failure(make_logger):
    read, write = os.pipe()
    os.close(read)
    logger, handler = make_logger(write)
    for _ in range(3):
        logger.info("x")
        time.sleep(0.01)
    handler.close()
    os.close(write)


def test_a_descriptor_that_does_not_wait_gets_all(pipe, make_logger):
    read, write = pipe
    os.set_blocking(write, False)
    logger, handler = make_logger(write)
    for number in range(300):
        logger.info("x" * 1000, extra={"number": number})
    lines = []
    with os.fdopen(os.dup(read), "rb") as reader:
        while len(lines) < 300:
            lines.append(json.loads(reader.readline()))
    handler.close()
    assert [line["number"] for line in lines] == list(range(300))


def test_at_the_end_everything_is_written(pipe, make_logger):
    logger, handler = make_logger(pipe[1])
    for number in range(100):
        logger.info("x", extra={"number": number})
    handler.close()
    assert [line["number"] for line in lines_of(pipe[0])] == list(range(100))


def test_what_strangers_write_into_headers_is_not_quoted(capfd):
    root = logging.getLogger()
    level = root.level
    with logging_to_standard_error("rag", level="info", limit=10):
        remote_parent(["00-" + "1" * 32 + "-" + "2" * 16 + "-01"], ["buy my pills"])
        remote_parent(
            ["00-" + "1" * 32 + "-" + "2" * 16 + "-01"], [",".join(f"k{n}=v" for n in range(50))]
        )
        logging.getLogger("pannier.test").warning("x")
    root.setLevel(level)
    lines = capfd.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["x"]
