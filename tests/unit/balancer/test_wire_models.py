import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.adapters import wire_models
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import PullProgress


def load(**arguments):
    arguments = {"embedding": False, "keep_alive": None, "context_token_count": None} | arguments
    return orjson.loads(wire_models.load_body("m:latest", **arguments))


def load_seconds(body):
    return wire_models.load_seconds(body, "m:latest")


def check_completed(body):
    wire_models.check_completed(body, "m:latest")


def test_a_load_asks_for_nothing_but_the_model():
    assert load() == {"model": "m:latest", "prompt": "", "stream": False}
    assert load(embedding=True) == {"model": "m:latest", "input": []}


@pytest.mark.parametrize("embedding", [False, True])
def test_a_load_says_how_long_and_with_which_window(embedding):
    sent = load(embedding=embedding, keep_alive="-1s", context_token_count=8192)
    assert (sent["keep_alive"], sent["options"]) == ("-1s", {"num_ctx": 8192})


def test_a_reply_that_does_not_tell_how_long_a_load_took_counts_as_0():
    assert load_seconds(b'{"done":true,"load_duration":1500000000}') == 1.5
    assert load_seconds(b'{"model":"m","done":true,"done_reason":"load"}') == 0.0
    with pytest.raises(AttemptFailed):
        load_seconds(b"loaded")


def test_what_another_model_says_of_itself_is_broken():
    for read in (load_seconds, check_completed):
        with pytest.raises(AttemptFailed, match="another model") as caught:
            read(b'{"model":"n:latest","done":true}')
        assert caught.value.kind is FailureKind.BROKEN_REPLY


def test_an_unload_keeps_the_model_for_no_time_and_asks_for_nothing():
    sent = orjson.loads(wire_models.unload_body("m:latest"))
    assert sent == {"model": "m:latest", "prompt": "", "stream": False, "keep_alive": 0}


def test_a_probe_asks_for_one_token_in_the_window_that_is_loaded_and_for_no_stream():
    sent = orjson.loads(wire_models.probe_body("m:latest", context_token_count=4096))
    assert sent["options"] == {"num_predict": 1, "num_ctx": 4096}
    assert sent["stream"] is False
    assert sent["prompt"]
    assert "keep_alive" not in sent
    sent = orjson.loads(wire_models.probe_body("m:latest", context_token_count=None))
    assert sent["options"] == {"num_predict": 1}


@pytest.mark.parametrize("reply", [b'{"done":false}', b'{"response":"a"}', b"[]", b'{"done":1}'])
def test_a_reply_that_is_not_done_is_broken(reply):
    with pytest.raises(AttemptFailed) as caught:
        check_completed(reply)
    assert caught.value.kind is FailureKind.BROKEN_REPLY
    check_completed(b'{"done":true}')
    check_completed(b'{"model":"m:latest","done":true}')


def test_a_download_is_told_step_by_step():
    data = (
        b'{"status":"pulling manifest"}\n'
        b'{"status":"pulling abc","digest":"sha256:abc","total":70,"completed":7}\n'
        b'{"status":"success"}\n'
    )
    reader = wire_models.PullReader()
    steps = [*reader.feed(data[:40]), *reader.feed(data[40:-1]), *reader.end()]
    assert steps == [
        PullProgress(status="pulling manifest"),
        PullProgress(status="pulling abc", digest="sha256:abc", completed_bytes=7, total_bytes=70),
        PullProgress(status="success"),
    ]
    assert [step.succeeded for step in steps] == [False, False, True]


def test_steps_before_a_failure_are_told_before_it():
    steps = wire_models.PullReader().feed(b'{"status":"a"}\n{"error":"no such model"}\n')
    assert next(steps).status == "a"
    with pytest.raises(AttemptFailed, match="no such model"):
        next(steps)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_steps_or_a_failure_and_nothing_else(data):
    reader = wire_models.PullReader()
    try:
        list(reader.feed(data))
        list(reader.end())
    except AttemptFailed:
        pass
