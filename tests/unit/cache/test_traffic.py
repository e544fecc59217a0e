"""Counts by tenant, in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.layers import Layer
from services.cache.core.savings import Savings
from services.cache.core.spans import HitKind
from services.cache.core.traffic import TenantTraffic

LOOKUPS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(Layer)), max_size=600)


def count(tenants: TenantTraffic, tenant_id: str, layer=Layer.INFERENCE, times: int = 1) -> None:
    tenants.of(tenant_id).traffic.add(layer, times, {HitKind.LOCAL: times})


def test_the_most_active_come_first_and_the_rest_is_one_entry() -> None:
    tenants = TenantTraffic()
    for number in range(5):
        count(tenants, f"t{number}", times=number + 1)
    top = tenants.top(2)
    assert [tenant_id for tenant_id, _ in top] == ["t4", "t3", ""]
    assert top[-1][1].traffic.lookups[Layer.INFERENCE] == 1 + 2 + 3


def test_there_is_no_rest_where_all_are_shown_and_nothing_where_none_is_asked_for() -> None:
    tenants = TenantTraffic()
    count(tenants, "a")
    assert [tenant_id for tenant_id, _ in tenants.top(10)] == ["a"]
    assert tenants.top(0) == []


@given(LOOKUPS)
def test_no_lookup_is_lost_whoever_is_folded(lookups) -> None:
    tenants = TenantTraffic()
    for number, layer in lookups:
        count(tenants, f"t{number}", layer)
    shown = tenants.top(50)
    assert len(shown) <= 51
    for layer in Layer:
        total = sum(tally.traffic.lookups[layer] for _, tally in shown)
        assert total == sum(each is layer for _, each in lookups)
        hits = sum(tally.traffic.hits_of(layer).get(HitKind.LOCAL, 0) for _, tally in shown)
        assert hits == total


def test_active_tenants_keep_their_entry_however_many_others_come() -> None:
    tenants = TenantTraffic()
    for number in range(50):
        count(tenants, f"busy{number}", times=100)
        tenants.of(f"busy{number}").saved += Savings(1, 2, 3.0)
    for number in range(10_000):
        count(tenants, f"once{number}")
    shown = tenants.top(50)
    assert {tenant_id for tenant_id, _ in shown[:50]} == {f"busy{each}" for each in range(50)}
    assert all(tally.saved == Savings(1, 2, 3.0) for _, tally in shown[:50])
    assert shown[50][0] == ""
    assert shown[50][1].traffic.lookups[Layer.INFERENCE] == 10_000
