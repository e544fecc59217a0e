"""What goes wrong with Redis is named, without what the library's texts may hold."""

import errno
import ssl

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.cache.adapters.redis_errors import NOT_THE_MASTER, failure_of
from services.cache.ports import StoreFailure, StoreRefusal, StoreTimeout


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ("READONLY You can't write against a read only replica.", "server is a read-only replica"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "server is out of memory"),
        ("MISCONF Redis is configured to save RDB snapshots", "server cannot save its data"),
        ("NOREPLICAS Not enough good replicas to write.", "server has too few replicas"),
        ("MASTERDOWN Link with MASTER is down", "replica has lost its master"),
        ("CLUSTERDOWN The cluster is down", "cluster is down"),
        ("LOADING Redis is loading the dataset in memory", "server is loading its data"),
        ("BUSY Redis is busy running a script.", "server is busy with a script"),
        ("NOPERM this user has no permissions to run the 'set' command", "user may not do this"),
        ("WRONGTYPE Operation against a key holding", "key holds something else"),
        ("UNBLOCKED force unblock from blocking operation", "server is no longer the master"),
        (
            "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: "
            "-READONLY You can't write against a read only replica.",
            "server is a read-only replica",
        ),
        (
            "ERR Error running script (call to f_1): @user_script:1: "
            "-OOM command not allowed when used memory > 'maxmemory'.",
            "server is out of memory",
        ),
        ("ERR DB index is out of range", "database does not exist"),
        ("ERR something about hush:6379", "refused: ResponseError"),
    ],
)
def test_refusals_of_the_server_are_named_by_their_codes(reply: str, cause: str) -> None:
    failure = failure_of(BaseParser.parse_error(reply))
    assert isinstance(failure, StoreRefusal)
    assert failure.cause == cause


@pytest.mark.parametrize(
    "reply",
    [
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "ERR invalid password",
    ],
)
def test_a_wrong_password_is_a_failure_since_nothing_can_be_read(reply: str) -> None:
    failure = failure_of(BaseParser.parse_error(reply))
    assert not isinstance(failure, StoreRefusal)
    assert failure.cause == "authentication failed"


def test_after_some_refusals_another_server_may_be_the_one_to_ask() -> None:
    for reply in ("READONLY x", "UNBLOCKED x", "CLUSTERDOWN x"):
        assert failure_of(BaseParser.parse_error(reply)).cause in NOT_THE_MASTER
    assert failure_of(BaseParser.parse_error("OOM x")).cause not in NOT_THE_MASTER


@pytest.mark.parametrize("error", [TimeoutError(), RedisTimeoutError("Timeout reading from hush")])
def test_lateness_is_told_from_everything_else(error: Exception) -> None:
    failure = failure_of(error)
    assert isinstance(failure, StoreTimeout)
    assert failure.cause == "no answer in time"


def test_an_error_of_the_network_is_told_by_its_number() -> None:
    try:
        try:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "hush")
        except OSError:
            raise RedisConnectionError("Error connecting to hush:6379") from None
    except RedisConnectionError as error:
        failure = failure_of(error)
    assert failure.cause == "connection refused"
    assert failure_of(RedisConnectionError("Connection to hush closed")).cause == "connection lost"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ssl.SSLCertVerificationError(1, "hush"), "certificate is not trusted"),
        (ssl.SSLError(1, "hush"), "no encrypted connection"),
    ],
)
def test_an_error_of_tls_is_not_told_by_its_number(error: ssl.SSLError, cause: str) -> None:
    """The operating system's 1 means that something is not permitted."""
    try:
        try:
            raise error
        except OSError:
            raise RedisConnectionError("hush") from None
    except RedisConnectionError as wrapped:
        failure = failure_of(wrapped)
    assert failure.cause == cause


def test_a_lack_of_connections_is_lateness() -> None:
    error = RedisConnectionError("No connection available.")
    error.__cause__ = TimeoutError()
    assert isinstance(failure_of(error), StoreTimeout)


def test_an_error_of_ours_stays_what_it_is() -> None:
    failure = StoreFailure("no node serves the slot")
    assert failure_of(failure) is failure


def test_anything_else_is_named_by_its_kind_only() -> None:
    assert failure_of(RuntimeError("hush")).cause == "failed: RuntimeError"
