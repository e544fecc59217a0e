"""Keys hold everything and give nothing away."""

import re

from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.keys import entry_key
from services.cache.core.layers import Layer

PEPPER = b"a secret of the tests"


def test_a_key_has_prefix_layer_and_160_bits() -> None:
    key = entry_key(Layer.EMBEDDING, tenant_id="acme", fields={"text": "hello"}, pepper=PEPPER)
    assert re.fullmatch(rb"pannier:1:e:[0-9a-f]{40}", key)


def test_tenant_layer_pepper_and_fields_each_change_the_key() -> None:
    keys = {
        entry_key(layer, tenant_id=tenant, fields=fields, pepper=pepper)[-40:]
        for layer in Layer
        for tenant in ("acme", "globex")
        for fields in ({"text": "a"}, {"text": "b"}, {"text": "a", "more": "b"})
        for pepper in (PEPPER, b"another secret!!")
    }
    assert len(keys) == 3 * 2 * 3 * 2


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_the_order_of_fields_never_matters(fields: dict[str, object]) -> None:
    backwards = dict(reversed(fields.items()))
    keys = {
        entry_key(Layer.CHUNK, tenant_id="acme", fields=each, pepper=PEPPER)
        for each in (fields, backwards)
    }
    assert len(keys) == 1


def test_keys_do_not_show_what_was_asked() -> None:
    key = entry_key(Layer.INFERENCE, tenant_id="acme", fields={"text": "hello"}, pepper=PEPPER)
    assert b"acme" not in key
    assert b"hello" not in key
