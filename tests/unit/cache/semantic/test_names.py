"""Names of partitions: everything that must be equal decides them."""

from services.cache.core.model import Scope
from services.cache.core.semantic.names import answer_key, calibration_key, partition_name

PEPPER = b"a secret of the tests"
FIELDS = {"embedding_model_digest": "a" * 64, "language": "en"}


def name(fields=FIELDS, *, tenant: str = "acme", namespace: str = "", pepper: bytes = PEPPER):
    return partition_name(fields, scope=Scope(tenant, namespace), pepper=pepper)


def test_everything_decides_the_name():
    names = {
        name().partition_id,
        name(tenant="other").partition_id,
        name(namespace="legal").partition_id,
        name(FIELDS | {"language": "de"}).partition_id,
        name(FIELDS | {"access_fingerprint": "x"}).partition_id,
        name(pepper=b"another secret of it").partition_id,
    }
    assert len(names) == 6
    assert name(dict(reversed(FIELDS.items()))) == name()


def test_entries_and_changes_share_a_slot():
    one = name()
    tag = b"{%b}" % one.partition_id.encode()
    assert one.entries_key == b"pannier:2:sem:" + tag
    assert one.changes_key == one.entries_key + b":f"
    assert one.entries_key.count(b"{") == one.changes_key.count(b"{") == 1


def test_every_answer_has_a_place_of_its_own():
    places = {
        answer_key(name(), "e1", pepper=PEPPER).value,
        answer_key(name(), "e2", pepper=PEPPER).value,
        answer_key(name(namespace="legal"), "e1", pepper=PEPPER).value,
        answer_key(name(tenant="other"), "e1", pepper=PEPPER).value,
    }
    assert len(places) == 4


def test_tenants_do_not_share_verdicts():
    one, other = (calibration_key(tenant, pepper=PEPPER) for tenant in ("acme", "other"))
    assert one != other
    assert one.startswith(b"pannier:2:cal:{")
