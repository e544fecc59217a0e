from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.usage import (
    AMOUNTS,
    Amounts,
    UsageKey,
    UsageKind,
    UsageSums,
    hour_of,
    in_order,
)


def key(tenant="acme", user="ann", model="m", hour=3600, kind=UsageKind.GENERATION):
    return UsageKey(
        hour_seconds=hour, tenant_id=tenant, user_id=user, mode="rag", model=model, kind=kind
    )


entries = st.lists(
    st.tuples(
        st.builds(
            key,
            tenant=st.sampled_from(["acme", "other"]),
            user=st.sampled_from(["", "ann", "bob"]),
            model=st.sampled_from(["", "m", "n"]),
            kind=st.sampled_from(UsageKind),
        ),
        st.builds(Amounts, **{name: st.integers(0, 10**12) for name in AMOUNTS}),
    )
)


@given(entries, st.integers(0, 5))
def test_nothing_of_a_tenants_sums_is_lost_however_few_keys_there_may_be(entries, limit):
    sums = UsageSums(limit)
    for each, amounts in entries:
        sums.add(each, amounts)
    expected = {}
    for each, amounts in entries:
        expected[each.tenant_id] = expected.get(each.tenant_id, Amounts()) + amounts
    assert sums.by_tenant() == expected
    # Per tenant, mode, hour and kind one that is not told apart.
    assert len(sums) <= limit + 2 * len(UsageKind)


def test_beyond_the_bound_users_and_models_are_not_told_apart():
    sums = UsageSums(1)
    for user in ("ann", "bob", "eve"):
        sums.add(key(user=user), Amounts(call_count=1))
    assert sums.take() == {
        key(): Amounts(call_count=1),
        key(user="", model=""): Amounts(call_count=2),
    }
    assert len(sums) == 0


@given(entries)
def test_sums_are_written_in_one_order_whoever_writes_them(entries):
    def taken(listed):
        sums = UsageSums(100)
        for each, amounts in listed:
            sums.add(each, amounts)
        return in_order(sums.take())

    assert taken(entries) == taken(reversed(entries))


def test_an_hour_begins_at_its_full_hour():
    assert [hour_of(seconds) for seconds in (0, 3599.9, 3600, 7300.5)] == [0, 0, 3600, 7200]
