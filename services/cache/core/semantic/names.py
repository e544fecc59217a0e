"""Where the semantic layer keeps what it shares."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.cache.core.keys import KEY_PREFIX, EntryKey, entry_key
from services.cache.core.layers import Layer
from services.cache.core.model import Scope

__all__ = ["CHANNEL", "PartitionName", "answer_key", "calibration_key", "partition_name"]

CHANNEL = KEY_PREFIX + b"sem"
"""Where replicas tell each other of changes."""


@dataclass(frozen=True, slots=True)
class PartitionName:
    """Name of a partition; in the store nothing of what decides it can be read from it.

    Attributes:
        scope: What its answers belong to.
        partition_id: Keyed digest of the owner and of all that must be equal within it.
    """

    scope: Scope
    partition_id: str

    @property
    def entries_key(self) -> bytes:
        """Key of the hash that holds its entries."""
        return b"%bsem:{%b}" % (KEY_PREFIX, self.partition_id.encode())

    @property
    def changes_key(self) -> bytes:
        """Key of the stream of changes, in the same hash slot."""
        return self.entries_key + b":f"

    def signed_place(self, form: str) -> bytes:
        """Returns what the signature of an entry binds it to, besides its content."""
        return self.entries_key + b":" + form.encode()


def partition_name(fields: Mapping[str, object], *, scope: Scope, pepper: bytes) -> PartitionName:
    """Names a partition.

    Args:
        fields: What must be equal within it besides owner and namespace, as JSON values.
        scope: What its answers belong to.
        pepper: Secret of the installation, at most 64 bytes.
    """
    key = _key(scope.tenant_id, scope.namespace, {"partition": fields}, pepper)
    return PartitionName(scope, key.digest.decode())


def answer_key(name: PartitionName, entry_id: str, *, pepper: bytes) -> EntryKey:
    """Returns where the answer of an entry is; every answer has a place of its own."""
    fields = {"answer": entry_id, "of": name.partition_id}
    return _key(name.scope.tenant_id, "", fields, pepper)


def calibration_key(tenant_id: str, *, pepper: bytes) -> bytes:
    """Returns the key of the hash that counts a tenant's verdicts."""
    # Under "calibration" alone earlier releases counted verdicts that prove nothing.
    digest = _key(tenant_id, "", {"calibration": "answers"}, pepper).digest
    return b"%bcal:{%b}" % (KEY_PREFIX, digest)


def _key(tenant_id: str, namespace: str, fields: Mapping[str, object], pepper: bytes) -> EntryKey:
    return entry_key(
        Layer.SEMANTIC, tenant_id=tenant_id, namespace=namespace, fields=fields, pepper=pepper
    )
