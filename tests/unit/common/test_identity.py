import pytest

from services.common.errors import InvalidIdentity
from services.common.identity import (
    TENANT_HEADER,
    USER_HEADER,
    Identity,
    identity_from_metadata,
    identity_metadata,
)


def test_a_call_without_a_tenant_belongs_to_the_default_tenant():
    assert identity_from_metadata([("user-agent", "x")]) == Identity("default", "")


def test_an_identity_survives_the_way_to_another_service():
    identity = Identity("acme", "jo@example")
    assert identity_from_metadata(identity_metadata(identity)) == identity


def test_a_call_cannot_belong_to_two_tenants():
    with pytest.raises(InvalidIdentity):
        identity_from_metadata([(TENANT_HEADER, "acme"), (TENANT_HEADER, "rival")])


@pytest.mark.parametrize("tenant", ["", "A", "-a", "a b", "a" * 65, "a/b", "a\n"])
def test_a_tenant_of_another_form_is_refused(tenant):
    with pytest.raises(InvalidIdentity) as raised:
        identity_from_metadata([(TENANT_HEADER, tenant)])
    assert raised.value.metadata == {"header": TENANT_HEADER}


@pytest.mark.parametrize("user", ["", "a b", "ü", "a" * 129])
def test_a_user_of_another_form_is_refused(user):
    with pytest.raises(InvalidIdentity):
        identity_from_metadata([(USER_HEADER, user)])
