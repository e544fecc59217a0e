"""Every span is counted once, as exported or as dropped, whatever becomes of the receiver."""

import threading
import time
from asyncio import CancelledError

import pytest
from opentelemetry.sdk.resources import Resource

from services.common.metrics import Metrics
from services.common.span_queue import SpanQueue
from services.common.spans import LeanTracerProvider


class Receiver:
    """Takes spans, once it is let."""

    def __init__(self, *, takes=len, blocked=False):
        self.takes = takes
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches = []
        self.hurried = threading.Event()
        self.closed = False
        if not blocked:
            self.open.set()

    def send(self, spans):
        self.entered.release()
        self.open.wait()
        self.batches.append([span.name for span in spans])
        return self.takes(spans)

    def hurry(self):
        self.hurried.set()

    def close(self):
        self.closed = True


def make(receiver, *, limit=8192, **options):
    metrics = Metrics((), version="1")
    queue = SpanQueue(receiver, metrics=metrics, limit=limit, **options)
    provider = LeanTracerProvider(resource=Resource({}))
    provider.add_span_processor(queue)
    return queue, provider.get_tracer("test"), metrics


def end(tracer, count, first=0):
    for number in range(first, first + count):
        tracer.start_span(str(number)).end()


def counted(metrics):
    return tuple(
        int(metrics.registry.get_sample_value(f"telemetry_spans_{fate}_total"))
        for fate in ("exported", "dropped")
    )


def test_all_spans_arrive_in_order():
    receiver = Receiver()
    queue, tracer, metrics = make(receiver)
    end(tracer, 2000)
    queue.shutdown()
    assert [int(name) for batch in receiver.batches for name in batch] == list(range(2000))
    assert max(map(len, receiver.batches)) <= 1024
    assert counted(metrics) == (2000, 0)
    assert receiver.closed


def test_a_full_queue_drops_exactly_what_has_no_room_and_never_blocks():
    receiver = Receiver(blocked=True)
    queue, tracer, metrics = make(receiver, limit=8)
    end(tracer, 8)
    # The thread has taken those, and is stuck with them.
    assert receiver.entered.acquire(timeout=5)
    started = time.monotonic()
    end(tracer, 100, first=8)
    assert time.monotonic() - started < 1
    assert counted(metrics) == (0, 92)
    receiver.open.set()
    queue.shutdown()
    assert counted(metrics) == (16, 92)
    assert [name for batch in receiver.batches for name in batch] == [str(n) for n in range(16)]


def test_where_many_wait_many_are_sent_at_once():
    receiver = Receiver(blocked=True)
    queue, tracer, metrics = make(receiver)
    end(tracer, 1024)
    assert receiver.entered.acquire(timeout=5)
    end(tracer, 7168, first=1024)
    receiver.open.set()
    queue.shutdown()
    assert list(map(len, receiver.batches))[1:-1] == [1024] * (len(receiver.batches) - 2)
    assert counted(metrics) == (8192, 0)


def test_what_ends_during_a_request_waits_for_more_of_its_kind():
    receiver = Receiver(blocked=True)
    queue, tracer, metrics = make(receiver, patience_seconds=60)
    end(tracer, 1024)
    assert receiver.entered.acquire(timeout=5)
    end(tracer, 10, first=1024)
    receiver.open.set()
    assert not receiver.entered.acquire(timeout=0.2)
    end(tracer, 1014, first=1034)
    assert receiver.entered.acquire(timeout=5)
    queue.shutdown()
    assert list(map(len, receiver.batches)) == [1024, 1024]
    assert counted(metrics) == (2048, 0)


@pytest.mark.parametrize("failure", ["some", "all", RuntimeError, SystemExit, CancelledError])
def test_what_the_receiver_does_not_take_is_dropped(failure, caplog):
    def takes(spans):
        if isinstance(failure, type):
            raise failure
        return len(spans) // 2 if failure == "some" else 0

    receiver = Receiver(takes=takes)
    queue, tracer, metrics = make(receiver)
    end(tracer, 100)
    assert queue.force_flush()
    queue.shutdown()
    exported, dropped = counted(metrics)
    assert exported + dropped == 100
    assert exported == (sum(len(b) // 2 for b in receiver.batches) if failure == "some" else 0)
    assert ("not sent" in caplog.text) == isinstance(failure, type)


def test_a_receiver_that_hangs_holds_the_end_for_a_limited_time_only(caplog):
    receiver = Receiver(blocked=True)
    queue, tracer, metrics = make(receiver, shutdown_seconds=0.2)
    end(tracer, 200)
    assert receiver.entered.acquire(timeout=5)
    assert not queue.force_flush(timeout_millis=10)
    started = time.monotonic()
    queue.shutdown()
    assert time.monotonic() - started < 2
    assert counted(metrics) == (0, 200)
    assert receiver.closed
    # It comes back too late: those spans have been given up, and are not counted again.
    receiver.open.set()
    queue._thread.join(5)
    assert counted(metrics) == (0, 200)
    assert "spans lost" in caplog.text


def test_what_ends_after_the_end_is_dropped():
    queue, tracer, metrics = make(Receiver())
    queue.shutdown()
    queue.shutdown()
    end(tracer, 3)
    assert counted(metrics) == (0, 3)


def test_at_the_end_the_receiver_is_told_to_hurry_while_it_is_still_at_work():
    receiver = Receiver(blocked=True)
    queue, tracer, metrics = make(receiver)
    end(tracer, 100)
    assert receiver.entered.acquire(timeout=5)
    ending = threading.Thread(target=queue.shutdown)
    ending.start()
    assert receiver.hurried.wait(timeout=5)
    receiver.open.set()
    ending.join()
    assert counted(metrics) == (100, 0)


def test_nothing_is_counted_twice_or_forgotten_under_many_threads():
    receiver = Receiver()
    queue, tracer, metrics = make(receiver, limit=50)
    threads = [threading.Thread(target=end, args=(tracer, 2000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.shutdown()
    exported, dropped = counted(metrics)
    assert exported + dropped == 8000
    assert exported == sum(map(len, receiver.batches))


def test_spans_without_company_are_sent_soon():
    receiver = Receiver()
    queue, tracer, _ = make(receiver)
    end(tracer, 1)
    assert receiver.entered.acquire(timeout=5)
    queue.shutdown()


def test_nothing_is_counted_twice_or_forgotten_while_it_ends():
    for _ in range(20):
        receiver = Receiver()
        queue, tracer, metrics = make(receiver, limit=50)
        threads = [threading.Thread(target=end, args=(tracer, 300)) for _ in range(4)]
        for thread in threads:
            thread.start()
        queue.shutdown()
        for thread in threads:
            thread.join()
        exported, dropped = counted(metrics)
        assert exported + dropped == 1200
        assert exported == sum(map(len, receiver.batches))


def test_a_span_that_ends_while_the_queue_is_at_work_on_the_same_thread_stops_nothing():
    """As the garbage collector does it, which runs wherever memory is asked for."""
    receiver = Receiver(blocked=True)
    queue, tracer, metrics = make(receiver)
    count = metrics.count

    def count_and_collect(name, **amount):
        if threading.current_thread().name == "spans" and not collected:
            collected.append(name)
            end(tracer, 1)
        count(name, **amount)

    collected = []
    metrics.count = count_and_collect
    end(tracer, 1)
    receiver.open.set()
    flushing = threading.Thread(target=queue.force_flush, args=(2000,), daemon=True)
    flushing.start()
    flushing.join(5)
    assert not flushing.is_alive()
    queue.shutdown()
    assert collected
    assert counted(metrics) == (2, 0)
