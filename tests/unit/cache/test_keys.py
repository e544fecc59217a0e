"""Keys hold everything and give nothing away."""

import re

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.keys import EntryKey, entry_key
from services.cache.core.layers import Layer

PEPPER = b"a secret of the tests"


def key_of(
    layer: Layer = Layer.INFERENCE,
    *,
    tenant_id: str = "acme",
    namespace: str = "",
    fields: dict[str, object] | None = None,
    pepper: bytes = PEPPER,
) -> EntryKey:
    fields = {"text": "hello"} if fields is None else fields
    return entry_key(layer, tenant_id=tenant_id, namespace=namespace, fields=fields, pepper=pepper)


def test_the_names_of_an_entry_share_its_hash_tag_of_160_bits() -> None:
    key = key_of()
    names = [key.value, key.lease, key.stream, key.failures]
    for name, purpose in zip(names, b"vlsn", strict=True):
        assert re.fullmatch(rb"pannier:2:\{[A-Za-z0-9_-]{27}\}:" + bytes([purpose]), name)
    assert {re.search(rb"\{(.*)\}", name)[1] for name in names} == {key.digest}


def test_tenant_namespace_layer_pepper_and_fields_each_change_the_key() -> None:
    keys = {
        key_of(layer, tenant_id=tenant, namespace=namespace, fields=fields, pepper=pepper)
        for layer in Layer
        for tenant in ("acme", "globex")
        for namespace in ("", "acme", "x")
        for fields in ({"text": "a"}, {"text": "b"}, {"text": "a", "more": "b"})
        for pepper in (PEPPER, b"another secret!!")
    }
    assert len(keys) == len(Layer) * 2 * 3 * 3 * 2


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_nothing_slips_from_tenant_to_namespace(one, other) -> None:
    keys = [key_of(tenant_id=tenant, namespace=namespace) for tenant, namespace in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_the_order_of_fields_never_matters(fields: dict[str, object]) -> None:
    assert key_of(fields=fields) == key_of(fields=dict(reversed(fields.items())))


def test_keys_do_not_show_what_was_asked() -> None:
    for name in (b"acme", b"hello"):
        assert name not in key_of().value
