"""The cache service's own errors.

ServiceError
+-- LeaseLost         FAILED_PRECONDITION  LEASE_LOST
+-- TenantMismatch    PERMISSION_DENIED    TENANT_MISMATCH
+-- StoreUnavailable  UNAVAILABLE          STORE_UNAVAILABLE
"""

from services.common.errors import ServiceError, StatusCode

__all__ = ["LeaseLost", "StoreUnavailable", "TenantMismatch"]

# Longer than the breaker's first pause.
STORE_RETRY_DELAY_SECONDS = 2.0


class LeaseLost(ServiceError):
    """The lease is not held any more, or never was.

    Args:
        field: Path of the field that names it.
    """

    reason = "LEASE_LOST"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self, field: str = "lease_token") -> None:
        super().__init__(
            f"The lease named in {field} is not held: it has ended, or another caller has it now. "
            "Nothing was stored under it; an answer computed under it may be used all the same.",
            metadata={"field": field},
        )


class TenantMismatch(ServiceError):
    """The tenant named in the request is not the calling one.

    Args:
        tenant_id: The one named.
    """

    reason = "TENANT_MISMATCH"
    code = StatusCode.PERMISSION_DENIED

    def __init__(self, tenant_id: str) -> None:
        super().__init__(
            f"The request names the tenant {tenant_id}, but is not made by it. "
            "Leave the field empty, or call as that tenant.",
            metadata={"tenant_id": tenant_id},
        )


class StoreUnavailable(ServiceError):
    """The shared store, without which this cannot be done, cannot be asked.

    Args:
        cause: What happened, in a few words without addresses or secrets.
    """

    reason = "STORE_UNAVAILABLE"
    code = StatusCode.UNAVAILABLE

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"The shared store is unavailable ({cause}). Nothing is known to have changed; "
            "try again.",
            metadata={"cause": cause},
            retry_delay_seconds=STORE_RETRY_DELAY_SECONDS,
        )
