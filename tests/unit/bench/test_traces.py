"""Traces are the same for all contenders, and hold what they say."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.balancer.prompts import Prompts
from tests.bench.balancer.reference import CHAT_A, EMBED, REFERENCE_HOSTS, LogNormal, capacity
from tests.bench.balancer.scenarios.workloads import MIXED, PREFIXES
from tests.bench.balancer.traces import (
    Bursts,
    RequestClass,
    Source,
    class_work_seconds,
    make_trace,
    offered_rate,
    read_trace,
    write_trace,
)


def a_source(**changes) -> Source:
    return Source(
        **{
            "classes": MIXED,
            "rate_per_second": 2.0,
            "begin_seconds": 0.0,
            "end_seconds": 2000.0,
            **changes,
        }
    )


@given(st.integers(0, 10**6))
def test_equal_seeds_give_equal_traces(seed):
    source = a_source(end_seconds=50.0)
    assert make_trace([source], seed) == make_trace([source], seed)


def test_other_seeds_give_other_traces():
    assert make_trace([a_source()], 1) != make_trace([a_source()], 2)


def test_a_trace_is_numbered_in_order_of_time():
    trace = make_trace([a_source(), a_source(tenant="other")], 1)
    assert [each.index for each in trace] == list(range(len(trace)))
    assert [each.at_seconds for each in trace] == sorted(each.at_seconds for each in trace)


def test_a_second_source_does_not_change_the_requests_of_the_first():
    quiet, flooding = a_source(tenant="quiet"), a_source(tenant="flooding", rate_per_second=9.0)

    def of_quiet(sources):
        return [
            (each.at_seconds, each.prompt_tokens, each.output_tokens)
            for each in make_trace(sources, 3)
            if each.tenant == "quiet"
        ]

    assert of_quiet([quiet, flooding]) == of_quiet([quiet])


@pytest.mark.parametrize("bursts", [None, Bursts(on_seconds=10.0, off_seconds=20.0)])
def test_the_mean_rate_is_kept_with_and_without_bursts(bursts):
    trace = make_trace([a_source(bursts=bursts, end_seconds=20_000.0)], 1)
    assert len(trace) / 20_000 == pytest.approx(2.0, rel=0.1)


def test_bursts_come_thicker_than_a_poisson_process():
    def dispersion(bursts):
        counts = [0] * 200
        for each in make_trace([a_source(bursts=bursts)], 1):
            counts[int(each.at_seconds // 10)] += 1
        mean = fmean(counts)
        return fmean((count - mean) ** 2 for count in counts) / mean

    assert dispersion(None) < 2 < dispersion(Bursts(on_seconds=10.0, off_seconds=20.0))


def test_classes_come_in_their_shares():
    trace = make_trace([a_source(end_seconds=5000.0)], 1)
    share = sum(each.model == EMBED.name for each in trace) / len(trace)
    assert share == pytest.approx(0.35, abs=0.02)


def test_the_offered_rate_asks_for_that_share_of_the_capacity():
    rate = offered_rate(MIXED, 0.6, capacity(REFERENCE_HOSTS))
    trace = make_trace([a_source(rate_per_second=rate, end_seconds=20_000.0)], 1)
    models = {each.model.name: each.model for each in MIXED}
    work = sum(
        each.prompt_tokens / models[each.model].prefill_tokens_per_second
        + each.output_tokens / models[each.model].decode_tokens_per_second
        for each in trace
    )
    assert work / 20_000 / capacity(REFERENCE_HOSTS) == pytest.approx(0.6, rel=0.05)


def test_a_log_normal_mean_takes_the_cut_into_account():
    assert LogNormal(median=100, sigma=0.5, maximum=10**9).mean == pytest.approx(113.3, rel=1e-3)
    assert LogNormal(median=100, sigma=0.5, maximum=1).mean == pytest.approx(1.0, rel=1e-3)


def test_prefixes_lie_between_the_shortest_and_the_longest():
    lengths = [PREFIXES[0].prefix_length(number) for number in range(PREFIXES[0].prefix_count)]
    assert (lengths[0], lengths[-1]) == (1000, 8000)
    assert lengths == sorted(lengths)


def test_work_without_prefix_and_answer_is_the_prompt_alone():
    each = RequestClass(share=1.0, model=CHAT_A, prompt=LogNormal(2500, 1e-6, 10**6))
    assert class_work_seconds(each) == pytest.approx(1.0, rel=1e-3)


def test_a_trace_is_read_as_it_was_written(tmp_path):
    trace = make_trace([a_source(end_seconds=20.0, classes=PREFIXES)], 1)
    write_trace(tmp_path / "trace.jsonl", trace)
    assert read_trace(tmp_path / "trace.jsonl") == trace


def test_prompts_have_the_length_and_order_the_answer_that_the_trace_names():
    prompts = Prompts(1)
    for request in make_trace([a_source(end_seconds=100.0, classes=PREFIXES)], 1):
        whole = prompts.prefix(request) + prompts.own(request)
        assert len(whole) == pytest.approx(4 * request.prompt_tokens, abs=40)
        assert whole.endswith(f"<<tokens={request.output_tokens}>>")


def test_prompts_share_exactly_the_prefix_of_their_number():
    prompts = Prompts(1)
    trace = make_trace([a_source(end_seconds=100.0, classes=PREFIXES)], 1)
    by_number = {}
    for request in trace:
        text = by_number.setdefault(request.prefix, prompts.prefix(request))
        assert prompts.prefix(request) == text
    assert len(set(by_number.values())) == len(by_number) > 8
