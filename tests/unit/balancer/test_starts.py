from services.balancer.core.starts import Start, Starts

NOW = 1000.0


def a_start(**fields):
    """One that came when another request had ended, with one of two slots in use."""
    defaults = {
        "slot_count": 2,
        "streaming_count": 1,
        "after_an_end": True,
        "seconds": 2.0,
        "predicted_seconds": 0.1,
        "limit_seconds": 8.0,
    }
    return Start(**(defaults | fields))


FULL = a_start(streaming_count=2, after_an_end=False, seconds=0.1)


def suspicions(starts, *noted, at=NOW):
    return [starts.note("b", "m", each, at) for each in noted]


def test_requests_that_wait_for_the_end_of_others_again_and_again_are_suspicious():
    assert suspicions(Starts(), *[a_start()] * 4) == [False, False, False, True]


def test_a_single_one_is_where_it_has_waited_for_long():
    assert suspicions(Starts(), a_start(seconds=4.1)) == [True]


def test_a_model_that_answers_in_all_slots_is_not():
    noted = [*[a_start()] * 3, FULL, *[a_start()] * 3]
    assert not any(suspicions(Starts(), *noted))


def test_neither_is_who_is_slow_without_having_waited_for_anybody():
    slow = a_start(after_an_end=False, seconds=7.9)
    in_time = a_start(seconds=3.0, predicted_seconds=2.0)
    full = a_start(streaming_count=2, seconds=7.9)
    assert not any(suspicions(Starts(), *[slow] * 9, *[in_time] * 9, *[full] * 9))


def test_each_model_of_each_backend_has_its_own_count():
    starts = Starts()
    for backend_id, model in (("b", "m"), ("b", "n"), ("c", "m"), ("c", "n")):
        assert not starts.note(backend_id, model, a_start(), NOW)


def test_what_was_suspected_is_left_alone_ever_longer_until_it_fills_its_slots():
    starts, long_wait = Starts(), a_start(seconds=4.1)
    assert suspicions(starts, long_wait) == [True]
    assert suspicions(starts, long_wait, at=NOW + 29.0) == [False]
    assert suspicions(starts, long_wait, at=NOW + 30.0) == [True]
    assert suspicions(starts, long_wait, at=NOW + 80.0) == [False]
    assert suspicions(starts, long_wait, at=NOW + 90.0) == [True]
    assert suspicions(starts, FULL, long_wait, at=NOW + 91.0) == [False, True]
