"""Why the web cannot be searched.

ServiceError
+-- WebSearchUnavailable        UNAVAILABLE           PEER_UNAVAILABLE
"""

from services.common.errors import ServiceError, StatusCode

__all__ = ["WebSearchUnavailable"]


class WebSearchUnavailable(ServiceError):
    """The web was wanted and cannot be searched.

    Args:
        detail: What happened and what to do about it.
    """

    reason = "PEER_UNAVAILABLE"
    code = StatusCode.UNAVAILABLE

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"The web cannot be searched: {detail}",
            metadata={"peer": "web"},
            retry_delay_seconds=1.0,
        )
