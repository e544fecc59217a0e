"""The record of what runs."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.processes import ProcessIdentity, identify, is_alive, resident_bytes
from deploy.local.state import (
    Addresses,
    FolderInUse,
    ProcessRecord,
    StackState,
    StateFile,
    home_folder,
)

ADDRESSES = Addresses(rag="r:1", cache="c:2", balancer="b:3", trace_url="http://t")


def record(identity: ProcessIdentity, name: str = "redis") -> ProcessRecord:
    return ProcessRecord(
        name=name, identity=identity, address="a", grpc_address="", log="l", needs=("x", "y")
    )


@pytest.fixture
def me() -> ProcessIdentity:
    return identify(os.getpid())


def test_a_record_is_read_as_it_was_written(tmp_path: Path, me: ProcessIdentity):
    state = StackState(
        addresses=ADDRESSES, processes=(record(me),), notes=("No model runs.",), ready=True
    )
    StateFile(tmp_path).write(state)
    assert StateFile(tmp_path).read() == state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_record_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, text: str):
    state_file = StateFile(tmp_path)
    state_file.path.write_text(text)
    assert state_file.read() is None


def test_without_a_record_there_is_no_stack(tmp_path: Path):
    assert StateFile(tmp_path).read() is None
    StateFile(tmp_path).remove()


def test_only_one_command_at_a_time_may_change_the_stack(tmp_path: Path):
    state_file = StateFile(tmp_path / "home")
    with (
        state_file.exclusive(),
        pytest.raises(FolderInUse),
        StateFile(tmp_path / "home").exclusive(),
    ):
        pytest.fail("two commands at a time")
    with state_file.exclusive():
        pass


def test_the_state_folder_is_the_one_named_else_one_in_the_current_folder():
    assert home_folder({"PANNIER_HOME": "/somewhere"}) == Path("/somewhere")
    assert home_folder({}) == Path.cwd() / ".pannier"
    assert home_folder({"PANNIER_HOME": ""}) == Path.cwd() / ".pannier"


def test_a_reused_process_id_is_not_the_recorded_process(me: ProcessIdentity):
    assert is_alive(me)
    assert not is_alive(replace(me, start_ticks=me.start_ticks - 1))
    assert not is_alive(replace(me, boot_id="another boot"))


def test_only_processes_that_run_are_alive(me: ProcessIdentity):
    gone = record(replace(me, start_ticks=0), "gone")
    state = StackState(addresses=ADDRESSES, processes=(gone, record(me, "here")))
    assert [each.name for each in state.alive()] == ["here"]


def test_memory_is_that_of_the_recorded_process_only(me: ProcessIdentity):
    assert resident_bytes(me) > 10_000_000
    assert resident_bytes(replace(me, start_ticks=0)) == 0
