import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage as otel_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator

from services.common.baggage import Baggage, baggage_entries, carry, current_baggage
from services.common.tracing import PROPAGATOR

MODES = st.from_regex(r"[a-z][a-z_]{0,15}", fullmatch=True)
IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@given(MODES | st.just(""), IDS | st.just(""))
def test_what_is_written_is_read_back(mode, query_id):
    carried = Baggage(mode, query_id)
    assert baggage_entries([carried.header()]) == carried


@given(MODES, IDS)
def test_others_understand_the_header(mode, query_id):
    header = Baggage(mode, query_id).header()
    read = otel_baggage.get_all(W3CBaggagePropagator().extract({"baggage": header}))
    assert read == {"mode": mode, "query_id": query_id}


@given(st.text(max_size=200))
def test_whatever_comes_in_is_either_of_the_expected_form_or_nothing(header):
    read = baggage_entries([header])
    assert baggage_entries([read.header()]) == read


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["user=alice,mode=deep,secret=x"], Baggage("deep")),
        (["mode=deep;ttl=5 , query_id = q1"], Baggage("deep", "q1")),
        (["mode=deep", "query_id=q1"], Baggage("deep", "q1")),
        (["mode=deep,mode=rag"], Baggage("deep")),
        (["mode=Deep"], Baggage()),
        (["mode=deep%0aevil"], Baggage()),
        (["query_id=" + "x" * 65], Baggage()),
        (["query_id=a b"], Baggage()),
        (["MODE=deep"], Baggage()),
        (["tenant=acme"], Baggage()),
        (["x=" + "y" * 8192 + ",mode=deep"], Baggage()),
        (["mode=", "=", ",,,", "mode"], Baggage()),
        ([], Baggage()),
    ],
)
def test_only_known_entries_of_the_expected_form_are_read(headers, expected):
    assert baggage_entries(headers) == expected


async def test_what_is_said_holds_for_the_task_and_those_it_starts():
    async def within():
        carry(mode="deep")
        carry(query_id="q1")
        return await asyncio.create_task(read())

    async def read():
        return current_baggage.get()

    assert await asyncio.create_task(within()) == Baggage("deep", "q1")
    assert current_baggage.get() == Baggage()


@pytest.mark.parametrize("given", [{"mode": "a,b"}, {"query_id": "a=b"}, {"mode": "x" * 17}])
async def test_what_others_would_not_read_cannot_be_said(given):
    with pytest.raises(ValueError, match="cannot be carried"):
        carry(**given)
    assert current_baggage.get() == Baggage()


async def test_the_propagator_for_strangers_writes_no_baggage():
    async def within():
        carry(mode="deep", query_id="q1")
        headers = {}
        PROPAGATOR.inject(headers)
        W3CBaggagePropagator().inject(headers)
        return headers

    assert "baggage" not in await asyncio.create_task(within())
