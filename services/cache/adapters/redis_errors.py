"""What goes wrong with Redis, told without addresses or secrets.

The library's own texts may hold both, and scripts wrap what they ran into in a text of their own;
so a cause is made of the code alone that the server begins its errors with.
"""

import os
import re
import ssl
from collections.abc import Mapping
from types import MappingProxyType

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.cache.ports import StoreFailure, StoreRefusal, StoreTimeout

__all__ = ["NOT_THE_MASTER", "failure_of"]

_READ_ONLY = "server is a read-only replica"
_UNBLOCKED = "server is no longer the master"
_CLUSTER_DOWN = "cluster is down"
NOT_THE_MASTER = frozenset({_READ_ONLY, _UNBLOCKED, _CLUSTER_DOWN})
"""Causes after which another server may be the one to ask."""

_AUTHENTICATION = "authentication failed"
_LOADING = "server is loading its data"

_CAUSES: Mapping[str, str] = MappingProxyType(
    {
        "READONLY": _READ_ONLY,
        "OOM": "server is out of memory",
        "MISCONF": "server cannot save its data",
        "NOREPLICAS": "server has too few replicas",
        "MASTERDOWN": "replica has lost its master",
        "CLUSTERDOWN": _CLUSTER_DOWN,
        "LOADING": _LOADING,
        "BUSY": "server is busy with a script",
        "NOPERM": "user may not do this",
        "NOAUTH": _AUTHENTICATION,
        "WRONGPASS": _AUTHENTICATION,
        "WRONGTYPE": "key holds something else",
        "UNBLOCKED": _UNBLOCKED,
        "TRYAGAIN": "keys are on their way to another node",
        "MOVED": "slots are on their way to another node",
        "ASK": "slots are on their way to another node",
    }
)
# At the beginning, or where a script's error quotes what it ran into.
_CODE = re.compile(rf"(?:^|\s-)({'|'.join(_CAUSES)})\b")
# The library cuts the codes off that it has classes for; subclasses come first.
_TYPES: tuple[tuple[type[Exception], str], ...] = (
    (ReadOnlyError, "READONLY"),
    (OutOfMemoryError, "OOM"),
    (NoPermissionError, "NOPERM"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
)


def failure_of(error: Exception) -> StoreFailure:
    """Turns an error of the library, or of the network, into one of ours."""
    if isinstance(error, StoreFailure):
        return error
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return StoreTimeout("no answer in time")
    if isinstance(error, AuthenticationError | AuthorizationError):
        return StoreFailure(_AUTHENTICATION)
    if isinstance(error, BusyLoadingError):
        return StoreRefusal(_LOADING)
    if isinstance(error, ResponseError):
        return StoreRefusal(_refusal(error))
    if isinstance(error, RedisConnectionError) and isinstance(error.__cause__, TimeoutError):
        return StoreTimeout("no connection free in time")
    if isinstance(error, RedisConnectionError | OSError):
        # Its number is none of the operating system's.
        if isinstance(error.__context__, ssl.SSLCertVerificationError):
            return StoreFailure("certificate is not trusted")
        if isinstance(error.__context__, ssl.SSLError):
            return StoreFailure("no encrypted connection")
        number = getattr(error.__context__, "errno", None) or getattr(error, "errno", None)
        return StoreFailure(
            os.strerror(number).lower() if isinstance(number, int) else "connection lost"
        )
    # Not the library's errors only: a connection that breaks at the wrong moment shows as a
    # RuntimeError of the event loop.
    return StoreFailure(f"failed: {type(error).__name__}")


def _refusal(error: ResponseError) -> str:
    for kind, code in _TYPES:
        if isinstance(error, kind):
            return _CAUSES[code]
    if "DB index" in str(error):
        return "database does not exist"
    found = _CODE.search(str(error))
    return _CAUSES[found[1]] if found else f"refused: {type(error).__name__}"
