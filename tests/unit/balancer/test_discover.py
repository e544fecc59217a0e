"""Backends in a file and behind a name, with a fleet that only keeps account."""

import asyncio
import logging
import os

import pytest

from services.balancer.core.errors import BackendNotFound
from services.balancer.discover import Discovery, look_up
from services.common.clock import SystemClock

A, B, C = "http://10.0.0.1:11434", "http://10.0.0.2:11434", "http://10.0.0.3:11434"


def ids(*urls):
    return {url.removeprefix("http://") for url in urls}


class AccountKeeper:
    """A membership that takes no time to add, and the whole grace to remove."""

    def __init__(self, *urls):
        self.fleet = ids(*urls)
        self.drained = set()
        self.limit = 64
        self.added = []
        self.graces = []
        self.proceed = asyncio.Event()
        self.proceed.set()

    def has(self, backend_id):
        return backend_id in self.fleet

    async def add(self, endpoint):
        await asyncio.sleep(0)
        if len(self.fleet) >= self.limit:
            raise ValueError("full")
        self.fleet.add(endpoint.backend_id)
        self.added.append(endpoint)

    def resume(self, backend_id):
        if backend_id not in self.fleet:
            raise BackendNotFound(backend_id, [])
        self.drained.discard(backend_id)

    async def remove(self, backend_id, grace_seconds):
        if backend_id not in self.fleet:
            raise BackendNotFound(backend_id, [])
        self.drained.add(backend_id)
        self.graces.append(grace_seconds)
        await self.proceed.wait()
        self.drained.discard(backend_id)
        self.fleet.discard(backend_id)


class Names:
    """A name server."""

    def __init__(self, *addresses):
        self.addresses = list(addresses)
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append((host, port))
        if not self.addresses:
            raise OSError("no such name")
        return self.addresses


def discovery(membership, *, path="", dns_name="", resolve=look_up):
    return Discovery(
        membership, clock=SystemClock(), path=str(path), dns_name=dns_name, resolve=resolve
    )


def write(path, *lines):
    """Replaces a file at once, as it should be."""
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines))
    new.replace(path)


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "backends"


# The file.


async def test_the_file_is_followed(path):
    membership = AccountKeeper()
    write(path, A, "# nothing", "", f"  {B}?slots=2  # the big one")
    found = discovery(membership, path=path)
    await found.look()
    assert membership.fleet == ids(A, B)
    assert {each.slot_count for each in membership.added} == {None, 2}
    write(path, B, C)
    await found.look()
    await settle()
    assert membership.fleet == ids(B, C)


async def test_a_file_that_has_not_changed_is_not_read_again(path):
    membership = AccountKeeper()
    write(path, A)
    found = discovery(membership, path=path)
    await found.look()
    # An operator has taken it out, and the file is no reason to bring it back.
    membership.fleet.clear()
    await found.look()
    assert membership.fleet == set()


async def test_a_change_that_leaves_size_and_second_as_they_were_is_seen(path):
    membership = AccountKeeper()
    write(path, A)
    found = discovery(membership, path=path)
    await found.look()
    stat = path.stat()
    write(path, B)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    await found.look()
    await settle()
    assert membership.fleet == ids(B)


@pytest.mark.parametrize("content", ["", "\n\n", "# all of them are away\n", "garbage\n", "\xff"])
async def test_a_file_that_names_nobody_changes_nothing(path, content):
    membership = AccountKeeper()
    write(path, A, B)
    found = discovery(membership, path=path)
    await found.look()
    path.write_text(content, encoding="latin-1")
    await found.look()
    await settle()
    assert membership.fleet == ids(A, B)


async def test_a_file_that_is_gone_changes_nothing_and_is_followed_when_it_is_back(path):
    membership = AccountKeeper()
    write(path, A)
    found = discovery(membership, path=path)
    await found.look()
    path.unlink()
    await found.look()
    assert membership.fleet == ids(A)
    write(path, B)
    await found.look()
    await settle()
    assert membership.fleet == ids(B)


async def test_a_line_of_garbage_keeps_nobody_out_and_puts_nobody_out(path, caplog):
    membership = AccountKeeper()
    write(path, A, B)
    found = discovery(membership, path=path)
    await found.look()
    write(path, A, "http://10.0.0.2", C)
    with caplog.at_level(logging.WARNING):
        await found.look()
    await settle()
    # The second line may well be what was B.
    assert membership.fleet == ids(A, B, C)
    (record,) = caplog.records
    assert record.line == 2


async def test_a_backend_listed_twice_is_one(path):
    membership = AccountKeeper()
    write(path, A, A, A + "/")
    await discovery(membership, path=path).look()
    assert len(membership.added) == 1


async def test_a_backend_that_was_there_before_is_not_taken_out_by_the_file(path):
    membership = AccountKeeper(A)
    write(path, A, B)
    found = discovery(membership, path=path)
    await found.look()
    write(path, C)
    await found.look()
    await settle()
    assert membership.fleet == ids(A, C)


async def test_a_backend_that_comes_back_while_it_leaves_stays(path):
    membership = AccountKeeper()
    membership.proceed.clear()
    write(path, A, B)
    found = discovery(membership, path=path)
    await found.look()
    write(path, A)
    await found.look()
    await settle()
    assert membership.drained == ids(B)
    write(path, A, B)
    await found.look()
    membership.proceed.set()
    await settle()
    assert membership.fleet == ids(A, B)
    assert membership.drained == set()
    # And leaves as any other does.
    write(path, A)
    await found.look()
    await settle()
    assert membership.fleet == ids(A)


async def test_a_full_fleet_takes_nobody_in_and_goes_on(path, caplog):
    membership = AccountKeeper()
    membership.limit = 2
    write(path, A, B, C)
    with caplog.at_level(logging.WARNING):
        await discovery(membership, path=path).look()
    assert len(membership.fleet) == 2
    assert "full" in caplog.records[-1].failure


# The name.


async def test_each_address_of_the_name_is_a_backend():
    membership = AccountKeeper()
    names = Names("10.0.0.1", "::1", "10.0.0.1", "fe80::1%eth0")
    await discovery(membership, dns_name="ollama.internal:11434", resolve=names).look()
    assert names.asked == [("ollama.internal", 11434)]
    assert membership.fleet == {"10.0.0.1:11434", "[::1]:11434"}


async def test_an_address_that_is_missing_once_or_twice_stays():
    membership = AccountKeeper()
    names = Names("10.0.0.1", "10.0.0.2")
    found = discovery(membership, dns_name="ollama:11434", resolve=names)
    await found.look()
    names.addresses = ["10.0.0.1"]
    for _ in range(2):
        await found.look()
        await settle()
        assert len(membership.fleet) == 2
    names.addresses = ["10.0.0.1", "10.0.0.2"]
    await found.look()
    names.addresses = ["10.0.0.1"]
    for _ in range(3):
        await found.look()
    await settle()
    assert membership.fleet == {"10.0.0.1:11434"}


@pytest.mark.parametrize("error", [OSError("no such name"), TimeoutError(), ValueError("label")])
async def test_a_look_up_that_fails_changes_nothing(error):
    membership = AccountKeeper()
    names = Names("10.0.0.1")
    found = discovery(membership, dns_name="ollama:11434", resolve=names)
    await found.look()

    async def fail(host, port):
        raise error

    failing = discovery(membership, dns_name="ollama:11434", resolve=fail)
    await failing.look()
    names.addresses = []
    for _ in range(5):
        await found.look()
    await settle()
    assert membership.fleet == {"10.0.0.1:11434"}


async def test_a_backend_named_by_both_goes_when_neither_names_it(path):
    membership = AccountKeeper()
    write(path, A, B)
    names = Names("10.0.0.1")
    found = discovery(membership, path=path, dns_name="ollama:11434", resolve=names)
    await found.look()
    write(path, B)
    await found.look()
    await settle()
    assert membership.fleet == ids(A, B)
    names.addresses = ["10.0.0.3"]
    for _ in range(3):
        await found.look()
    await settle()
    assert membership.fleet == ids(B, C)


async def test_the_end_does_not_wait_for_those_who_leave(path):
    membership = AccountKeeper()
    membership.proceed.clear()
    write(path, A, B)
    found = discovery(membership, path=path)
    running = asyncio.create_task(found.run())
    await found.look()
    write(path, A)
    await found.look()
    await settle()
    running.cancel()
    await asyncio.wait([running])
    assert asyncio.all_tasks() == {asyncio.current_task()}
