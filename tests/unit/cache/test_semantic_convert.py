"""Names of the contract and names of the core are the same ones."""

from pannier.cache.v1 import semantic_pb2 as pb
from services.cache.core.semantic.guards import Guard
from services.cache.core.semantic.scope import QuestionScope
from services.cache.semantic_convert import GUARDS, SCOPES, where

PEPPER = b"a secret of the tests"


def test_every_guard_has_its_name_in_the_contract():
    assert set(GUARDS) == set(Guard)
    for guard, number in GUARDS.items():
        assert pb.SemanticGuard.Name(number) == f"SEMANTIC_GUARD_{guard.name}"


def test_every_scope_has_its_name_in_the_contract():
    assert set(SCOPES) == {None, *QuestionScope}
    for scope, number in SCOPES.items():
        name = "UNSPECIFIED" if scope is None else scope.name
        assert pb.SemanticScope.Name(number) == f"SEMANTIC_SCOPE_{name}"


def test_every_field_of_a_partition_decides_its_name():
    names = set()
    for descriptor in pb.SemanticPartition.DESCRIPTOR.fields:
        partition = pb.SemanticPartition(**{descriptor.name: "a"})
        names.add(where(partition, tenant_id="t", pepper=PEPPER).name.partition_id)
    names.add(where(pb.SemanticPartition(), tenant_id="t", pepper=PEPPER).name.partition_id)
    names.add(where(pb.SemanticPartition(), tenant_id="u", pepper=PEPPER).name.partition_id)
    assert len(names) == len(pb.SemanticPartition.DESCRIPTOR.fields) + 2
