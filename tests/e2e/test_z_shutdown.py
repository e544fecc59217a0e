"""The end of the suite: nothing is left. Runs last, by its name."""

from pathlib import Path


def is_running(pid):
    try:
        # The state follows the program's name in parentheses; Z has ended and waits to be reaped.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_down_leaves_no_process_behind(suite):
    pids = [each["identity"]["pid"] for each in suite.state()["processes"]]
    suite.pannier("down")
    assert [pid for pid in pids if is_running(pid)] == []
    assert "No stack runs" in suite.pannier("status", status=1)
