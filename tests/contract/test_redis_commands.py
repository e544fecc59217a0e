"""The cache needs no more of its store than the commands that Redis 6.2 and Valkey 7.2 share."""

import ast
import re
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / "services" / "cache"
SOURCES = sorted(CACHE.rglob("*.py"))
ADAPTERS = sorted((CACHE / "adapters").glob("redis_*.py"))

# What the adapter sends itself.
SENT = {
    "ASKING",
    "CLUSTER",
    "EVAL",
    "EVALSHA",
    "GET",
    "HSCAN",
    "MGET",
    "PING",
    "SENTINEL",
    "SET",
    "SUBSCRIBE",
    "XREAD",
}
# What scripts may call: in Redis 6.2 and in Valkey 7.2, of the core, and changing nothing but data.
# INFO alone is one that users with restricted rights may lack; docs/caching.md says so.
CALLABLE = {
    "DECR", "DEL", "EXISTS", "EXPIRE", "GET", "GETDEL", "GETEX", "GETRANGE", "HDEL", "HEXISTS",
    "HGET", "HGETALL", "HINCRBY", "HKEYS", "HLEN", "HMGET", "HSCAN", "HSET", "HSETNX", "HSTRLEN",
    "INCR", "INCRBY", "INFO", "LLEN", "LPOP", "LPUSH", "LRANGE", "MGET", "PEXPIRE", "PEXPIREAT",
    "PTTL", "PUBLISH", "RPUSH", "SADD", "SCARD", "SET", "SETNX", "SISMEMBER", "SMEMBERS", "SREM",
    "STRLEN", "TIME", "TTL", "TYPE", "UNLINK", "XADD", "XDEL", "XINFO", "XLEN", "XRANGE", "XREAD",
    "XREVRANGE", "XTRIM", "ZADD", "ZCARD", "ZCOUNT", "ZRANGE", "ZRANGEBYSCORE", "ZREM",
    "ZREMRANGEBYSCORE", "ZSCORE",
}  # fmt: skip
# Options that came after 6.2, or after Valkey parted from Redis.
LATER_OPTIONS = re.compile(r"'(?:FNX|FXX|IFEQ|IFNE|KEEPREF|DELREF|ACKED)'")
CALL = re.compile(r"redis\.p?call\(\s*(?:'(\w+)'|\"(\w+)\"|(.))")


def scripts() -> list[str]:
    """Returns all texts that call the store."""
    return [
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        if isinstance(node.value, str) and re.search(r"redis\.p?call\(", node.value)
    ]


def commands_in_scripts() -> set[str]:
    found = set()
    for script in scripts():
        for single, double, computed in CALL.findall(script):
            assert not computed, "a script computes the name of a command"
            found.add(single or double)
    return found


def commands_in_adapters() -> set[str]:
    return {
        node.elts[0].value
        for path in ADAPTERS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Tuple) and node.elts
        if isinstance(node.elts[0], ast.Constant) and isinstance(node.elts[0].value, str)
        if re.fullmatch(r"[A-Z]{3,}", node.elts[0].value)
        # Options begin like commands.
        if node.elts[0].value != "BLOCK"
    }


def test_the_adapter_sends_what_is_listed_here_and_nothing_else() -> None:
    assert commands_in_adapters() == SENT


def test_scripts_call_common_commands_only() -> None:
    called = commands_in_scripts()
    assert {"GET", "SET", "TIME", "PUBLISH"} <= called
    assert called <= CALLABLE


def test_no_option_is_used_that_came_later() -> None:
    for script in scripts():
        assert not LATER_OPTIONS.search(script)
        # PEXPIRE has had conditions since 7.0 only.
        assert not re.search(r"'P?EXPIRE'[^)]*'(?:NX|XX|GT|LT)'", script)


def test_the_rest_of_the_service_reaches_the_store_through_its_port_only() -> None:
    for path in SOURCES:
        if path not in ADAPTERS:
            assert not re.search(r"^(?:from|import) redis\b", path.read_text(), re.MULTILINE)
