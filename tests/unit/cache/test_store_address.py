"""One URL says where the store is and of which shape."""

import pytest

from services.cache.core.store_address import StoreAddress, Topology, parse_store_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "redis://cache.example",
            StoreAddress(topology=Topology.SINGLE, endpoints=(("cache.example", 6379),)),
        ),
        (
            "rediss://user:pass@cache.example:6380/",
            StoreAddress(
                topology=Topology.SINGLE,
                endpoints=(("cache.example", 6380),),
                username="user",
                password="pass",
                tls=True,
            ),
        ),
        (
            "redis://:a%3Ab%40c%2Fd@[::1]:1",
            StoreAddress(topology=Topology.SINGLE, endpoints=(("::1", 1),), password="a:b@c/d"),
        ),
        ("unix:///run/redis.sock", StoreAddress(topology=Topology.SINGLE, path="/run/redis.sock")),
        (
            "redis+sentinel://user:pass@a:1,b,[fd00::1]:3/main",
            StoreAddress(
                topology=Topology.SENTINEL,
                endpoints=(("a", 1), ("b", 26379), ("fd00::1", 3)),
                service="main",
                username="user",
                password="pass",
            ),
        ),
        (
            "rediss+cluster://:pass@a:1,b",
            StoreAddress(
                topology=Topology.CLUSTER,
                endpoints=(("a", 1), ("b", 6379)),
                password="pass",
                tls=True,
            ),
        ),
    ],
)
def test_every_part_is_read(url: str, address: StoreAddress) -> None:
    assert parse_store_url(url) == address


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "must be a URL"),
        ("127.0.0.1:6379", "must be a URL"),
        ("http://hush", "must be a URL"),
        ("redis+proxy://hush", "must be a URL"),
        ("sentinel://hush/main", "must be a URL"),
        ("redis://", "must name a host"),
        ("redis://:hush@", "must name a host"),
        ("redis+cluster://hush,,other", "must name a host"),
        ("redis://hush:0", "port"),
        ("redis://hush:65536", "port"),
        ("redis://hush:many", "port"),
        ("redis://hush,other", "must name one server"),
        ("redis://hush/3", "must not name a database"),
        ("redis+cluster://hush/0", "must not name a database"),
        ("redis://hush?db=3", "must not name options"),
        ("redis://hush#3", "must not name options"),
        ("redis+sentinel://hush:26379", "must name the service"),
        ("redis+sentinel://hush:26379/", "must name the service"),
        ("redis+sentinel://hush:26379/main/0", "must name the service"),
        ("unix://", "unix:///path"),
        ("unix://hush/run/redis.sock", "unix:///path"),
    ],
)
def test_what_names_no_store_is_refused_without_being_shown(url: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        parse_store_url(url)
    assert "hush" not in str(caught.value)


def test_the_password_is_not_printed() -> None:
    assert "hush" not in repr(parse_store_url("redis+cluster://user:hush@example"))


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("redis://127.0.0.1:6379", True),
        ("redis://localhost", True),
        ("redis://[::1]:6379", True),
        ("unix:///run/redis.sock", True),
        ("redis+cluster://127.0.0.1:1,127.0.0.1:2", True),
        ("redis+cluster://127.0.0.1:1,10.0.0.5:2", False),
        ("redis://10.0.0.5", False),
        ("redis://user:127.0.0.1@example.com", False),
    ],
)
def test_it_is_known_whether_only_this_machine_reaches_it(url: str, local: bool) -> None:
    assert parse_store_url(url).local is local
