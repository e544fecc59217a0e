"""What holds for every test of what the services have in common."""

import pytest

from services.common import server_call


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells who has left in time apart with more room than a machine in order needs."""
    monkeypatch.setattr(server_call, "_DEADLINE_TOLERANCE_SECONDS", 0.1)
    monkeypatch.setattr(server_call, "_DEADLINE_TOLERANCE_RATIO", 0.4)
