import random
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.balancer.core.demand import Demand, Kind, Priority
from services.balancer.core.fairness import AGEING, Ageing, FairShares, service_order

SYSTEM, INTERACTIVE, BATCH = Priority
NEVER = Ageing(batch_seconds=1e9, interactive_seconds=1e9, system_seconds=1e9)


def demand(number, tenant="a", priority=INTERACTIVE, **fields):
    defaults = {
        "model_key": "m",
        "kind": Kind.CHAT,
        "arrived_at": 0.0,
        "prompt_token_count": 100,
        "output_token_count": 50.0,
    }
    return Demand(id=number, tenant=tenant, priority=priority, **(defaults | fields))


def ids(order):
    return [each.id for each in order]


@st.composite
def queues(draw, max_size=80):
    count = draw(st.integers(0, max_size))
    return [
        demand(
            number,
            tenant=draw(st.sampled_from("abcd")),
            priority=draw(st.sampled_from(Priority)),
            model_key=draw(st.sampled_from("xyz")),
            arrived_at=draw(st.floats(0, 1000)),
            deadline=draw(st.none() | st.floats(1000, 5000)),
            prompt_token_count=draw(st.integers(0, 5000)),
            output_token_count=draw(st.floats(0, 500)),
        )
        for number in range(count)
    ]


# The order.


@given(queues(), st.integers(1, 100), st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_order_holds_each_demand_once_up_to_the_limit_and_does_not_depend_on_the_queues(
    queue, limit, model_limit, rng
):
    order = service_order(queue, FairShares(), 1000.0, limit=limit, model_limit=model_limit)
    assert len(order) == min(limit, len(queue)) == len(set(ids(order)))
    assert set(ids(order)) <= set(ids(queue))
    shuffled = rng.sample(queue, len(queue))
    again = service_order(shuffled, FairShares(), 1000.0, limit=limit, model_limit=model_limit)
    assert ids(again) == ids(order)


@settings(max_examples=50)
@given(queues(max_size=60))
def test_classes_come_in_order_while_nobody_has_waited_long(queue):
    order = service_order(queue, FairShares(), 1000.0, ageing=NEVER, model_limit=100)
    assert [each.priority for each in order] == sorted(each.priority for each in queue)[:64]


@settings(max_examples=50)
@given(queues(max_size=60))
def test_inside_a_tenant_and_class_the_earliest_deadline_goes_first(queue):
    queue = [replace(each, arrived_at=1000.0, deadline=1000.0 + each.id % 7) for each in queue]
    order = service_order(queue, FairShares(), 1000.0, limit=100, model_limit=100)
    for tenant in "abcd":
        for priority in Priority:
            deadlines = [
                (each.deadline, each.id)
                for each in order
                if each.tenant == tenant and each.priority is priority
            ]
            assert deadlines == sorted(deadlines)


def test_a_remote_deadline_is_worth_no_more_than_none():
    queue = [
        demand(0, arrived_at=0.0, deadline=9000.0),
        demand(1, arrived_at=20.0, deadline=310.0),
        demand(2, arrived_at=20.0),
    ]
    assert ids(service_order(queue, FairShares(), 20.0, ageing=NEVER)) == [0, 1, 2]


def test_tenants_that_have_had_the_same_take_turns():
    queue = [demand(number, "a") for number in range(3)]
    queue += [demand(number, "b") for number in range(3, 6)]
    assert ids(service_order(queue, FairShares(), 1.0)) == [0, 3, 1, 4, 2, 5]


def test_a_tenant_with_large_requests_gets_fewer_turns():
    queue = [demand(number, "large", prompt_token_count=2900) for number in range(10)]
    queue += [demand(number, "small", prompt_token_count=200) for number in range(10, 30)]
    first = service_order(queue, FairShares(), 1.0)[:12]
    assert Counter(each.tenant for each in first) == {"small": 10, "large": 2}


def test_a_newcomer_goes_before_the_backlog_of_a_tenant_that_has_had_as_much():
    shares = FairShares()
    flood = [demand(number, "flood") for number in range(20)]
    shares.charge("flood", output_token_count=5000, now=0.0)
    shares.activate("light", {"flood"}, 10.0)
    order = service_order([*flood, demand(99, "light", arrived_at=10.0)], shares, 10.0)
    assert ids(order)[:2] == [99, 0]


def test_who_was_served_a_moment_ago_is_owed_what_it_is_behind():
    shares = FairShares()
    shares.charge("flood", output_token_count=5000, now=0.0)
    shares.serve(demand(1, "light"), 1.0)
    own = shares.counter("light", 10.9)
    shares.activate("light", {"flood"}, 10.9)
    assert shares.counter("light", 10.9) == own
    shares.activate("light", {"flood"}, 11.1)
    assert shares.counter("light", 11.1) == shares.counter("flood", 11.1)


def test_a_queue_for_one_model_leaves_half_of_the_places_to_others():
    loading = [demand(number, "a", model_key="loading") for number in range(200)]
    ready = [demand(number, "a", BATCH, model_key="ready") for number in range(200, 220)]
    order = service_order([*loading, *ready], FairShares(), 1.0)
    assert len(order) == 64
    assert Counter(each.model_key for each in order) == {"loading": 44, "ready": 20}
    assert [each.model_key for each in order] == ["loading"] * 44 + ["ready"] * 20


# Ageing.


@pytest.mark.parametrize(
    ("priority", "waited", "level"),
    [
        (SYSTEM, 29, 0),
        (SYSTEM, 30, -1),
        (INTERACTIVE, 29, 1),
        (INTERACTIVE, 30, 0),
        (INTERACTIVE, 60, -1),
        (BATCH, 119, 2),
        (BATCH, 120, 1),
        (BATCH, 150, 0),
        (BATCH, 180, -1),
        (BATCH, 1e9, -1),
    ],
)
def test_demands_rise_class_by_class(priority, waited, level):
    assert AGEING.level(priority, waited) == level


def test_an_old_batch_demand_competes_with_interactive_ones():
    shares = FairShares()
    shares.charge("b", output_token_count=100, now=130.0)
    queue = [demand(0, "a", BATCH, arrived_at=0.0), demand(1, "b", arrived_at=129.0)]
    assert ids(service_order(queue, shares, 119.0)) == [1, 0]
    assert ids(service_order(queue, shares, 130.0)) == [0, 1]


def test_the_age_of_a_backlog_does_not_put_it_before_what_others_ask_in_the_same_class():
    shares = FairShares()
    flood = [demand(number, "flood", arrived_at=0.0) for number in range(100)]
    shares.serve(demand(1000, "flood"), 99.0)
    shares.charge("flood", output_token_count=5000, now=99.0)
    shares.activate("light", {"flood"}, 100.0)
    order = service_order([*flood, demand(200, "light", arrived_at=100.0)], shares, 100.0)
    assert order[0].tenant == "light"


def test_what_has_waited_longest_goes_first_of_all_that_is_overdue():
    shares = FairShares()
    shares.charge("c", output_token_count=100_000, now=1000.0)
    queue = [
        demand(0, "a", SYSTEM, arrived_at=999.0),
        demand(1, "b", SYSTEM, arrived_at=900.0),
        demand(2, "c", BATCH, arrived_at=500.0),
    ]
    assert ids(service_order(queue, shares, 1000.0)) == [2, 1, 0]


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from([("a", SYSTEM), ("b", INTERACTIVE)]), min_size=1, max_size=4),
    st.sampled_from(Priority),
    st.booleans(),
)
def test_no_demand_starves_however_much_comes_before_it(rivals, priority, fresh_names):
    """One demand is served each second, while more than that comes, of old names or new ones."""
    shares, now, number = FairShares(), 0.0, 1
    victim = demand(0, "victim", priority, arrived_at=0.0)
    shares.charge("victim", output_token_count=10_000, now=0.0)
    queue = [victim]
    while victim in queue:
        for tenant, rank in rivals:
            name = f"{tenant}{number}" if fresh_names else tenant
            queue.append(demand(number, name, rank, arrived_at=now, deadline=now + 40))
            number += 1
        served = service_order(queue, shares, now)[0]
        shares.serve(served, now)
        shares.charge(served.tenant, output_token_count=50, now=now)
        queue = [each for each in queue if each is not served and (each.deadline or 1e9) > now]
        now += 1.0
        # By then it is overdue, and has been so for longer than any other.
        assert now <= 182


@settings(max_examples=25)
@given(st.integers(1, 20), st.integers(1, 3))
def test_a_demand_without_deadline_is_not_kept_waiting_by_urgent_ones_of_its_tenant(
    deadline, per_second
):
    shares, now, number = FairShares(), 0.0, 1
    patient = demand(0, arrived_at=0.0)
    queue = [patient]
    while patient in queue:
        for _ in range(per_second):
            queue.append(demand(number, arrived_at=now, deadline=now + deadline))
            number += 1
        served = service_order(queue, shares, now)[0]
        shares.serve(served, now)
        queue = [each for each in queue if each is not served and (each.deadline or 1e9) > now]
        now += 1.0
        assert now <= 302


# Shares.


@given(
    st.lists(
        st.tuples(st.integers(1, 4000), st.integers(0, 1000), st.floats(0, 5)),
        min_size=1,
        max_size=120,
    ),
    st.integers(1, 4000),
    st.integers(0, 1000),
)
def test_neither_of_two_tenants_that_always_wait_gets_ahead_by_more_than_a_request(
    sizes, other_prompt, other_output
):
    shares, now = FairShares(), 0.0
    largest = max(prompt + 2 * output for prompt, output, _ in sizes)
    largest = max(largest, other_prompt + 2 * other_output)
    for number, (prompt, output, pause) in enumerate(sizes):
        now += pause
        queue = [
            demand(2 * number, "a", prompt_token_count=prompt, output_token_count=output),
            demand(
                2 * number + 1,
                "b",
                prompt_token_count=other_prompt,
                output_token_count=other_output,
            ),
        ]
        served = service_order(queue, shares, now, ageing=NEVER)[0]
        shares.serve(served, now)
        shares.charge(served.tenant, output_token_count=int(served.output_token_count), now=now)
        assert abs(shares.counter("a", now) - shares.counter("b", now)) <= largest + 0.01


@given(st.floats(0, 1e6), st.floats(0, 1000))
def test_half_of_a_counter_is_forgotten_in_a_minute(began_at, later):
    shares = FairShares()
    shares.charge("a", input_token_count=100, output_token_count=50, now=began_at)
    assert shares.counter("a", began_at) == 200.0
    expected = 200.0 * 0.5 ** (later / 60.0)
    assert shares.counter("a", began_at + later) == pytest.approx(expected, rel=1e-6)


def test_activation_lifts_to_the_least_of_the_others_and_never_lowers():
    shares = FairShares()
    for tenant, tokens in (("a", 500), ("b", 300), ("new", 0), ("rich", 900)):
        shares.charge(tenant, input_token_count=tokens, now=0.0)
    shares.activate("new", {"a", "b", "new"}, 0.0)
    shares.activate("rich", {"a", "b"}, 0.0)
    shares.activate("alone", {"alone"}, 0.0)
    assert [shares.counter(each, 0.0) for each in ("new", "rich", "alone")] == [300, 900, 0]


@given(st.lists(st.integers(0, 50), max_size=300))
def test_no_more_tenants_are_remembered_than_allowed_and_those_with_most_stay(names):
    shares = FairShares(maximum_tenant_count=10)
    shares.charge("heavy", output_token_count=1_000_000, now=0.0)
    for now, name in enumerate(names):
        shares.charge(f"tenant{name}", input_token_count=name + 1, now=now * 0.01)
        assert len(shares) <= 10
    assert shares.counter("heavy", 0.0) == 2_000_000


def test_service_notes_who_was_served_when_in_which_class():
    shares = FairShares()
    shares.serve(demand(0, "a", BATCH, prompt_token_count=70), 5.0)
    assert shares.counter("a", 5.0) == 70
    assert shares.served_at("a", BATCH) == 5.0
    assert shares.served_at("a", SYSTEM) < 0
    assert shares.served_at("b", BATCH) < 0


def test_the_order_of_a_long_queue_takes_about_as_long_for_each_as_that_of_a_short_one():
    rng = random.Random(1)

    def least_seconds(length):
        queue = [
            demand(number, f"tenant{rng.randrange(50)}", rng.choice(list(Priority)))
            for number in range(length)
        ]
        shares, seconds = FairShares(), []
        for _ in range(20):
            # Processor time, and the best of many: others may use the machine meanwhile.
            began_at = time.thread_time()
            service_order(queue, shares, 1.0)
            seconds.append(time.thread_time() - began_at)
        return min(seconds)

    # What takes quadratic time takes 64 times as long.
    assert least_seconds(2_400) < 24 * least_seconds(300)
