"""The scripts of `services.cache.epoch_scripts` on notes in memory, for tests that set the time.

`tests/integration/cache/test_epoch_scripts.py` holds them against the real ones.
"""

from collections.abc import Callable, Sequence

__all__ = ["EpochNotes"]

Reply = list[bytes | list[bytes]]


class EpochNotes:
    """The notes of all tenants.

    Args:
        now: Tells the store's time, seconds since the Unix epoch.

    Attributes:
        history: Replication id of the server that has them.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.history = b"0"
        self.tables: dict[bytes, dict[bytes, bytes]] = {}
        self.notices: list[bytes] = []

    def run(self, name: str, key: bytes, arguments: Sequence[bytes | int]) -> Reply:
        """Runs a script by its name."""
        now_us = round(self._now() * 1_000_000)
        now_ms = now_us // 1000
        notes = self.tables.setdefault(key, {})
        texts = [each if isinstance(each, bytes) else b"%d" % each for each in arguments]
        tenant, _, tolerance, known, *rest = texts
        self._begin(notes, tenant, int(tolerance), int(known), now_ms)
        reply: Reply = [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]
        if name == "read_epochs":
            if notes[b"@v"] != known:
                reply.append([part for pair in notes.items() for part in pair])
            return reply
        before = notes[b"@v"]
        version = b"%d" % max(now_ms + int(tolerance), int(before) + 1)
        notes[b"@v"] = version
        reply += [before, version]
        if name == "bump_epochs":
            return reply + self._bump(notes, rest, (tenant, before, version), now_ms)
        assert name == "set_threshold"
        field, value = rest
        previous = notes.pop(field, b"")
        if value:
            notes[field] = value
        self.notices.append(b"\n".join((tenant, b"-1", version)))
        return [*reply, previous]

    def _begin(
        self, notes: dict[bytes, bytes], tenant: bytes, tolerance_ms: int, known: int, now_ms: int
    ) -> None:
        present = b"*" in notes
        latest = int(notes.get(b"@v", b"0"))
        if present and notes.get(b"@h") == self.history and known <= latest:
            return
        version = max(now_ms + (tolerance_ms if present else 0), latest + 1, known + 1)
        first = b"%d" % (version - 1)
        notes |= {b"*": first, b"@b": first, b"@h": self.history, b"@v": b"%d" % version}
        self._clear(notes, version - 1, now_ms)
        if present:
            self.notices.append(b"%b\n-1\n%d" % (tenant, version))

    def _bump(
        self,
        notes: dict[bytes, bytes],
        arguments: Sequence[bytes],
        change: tuple[bytes, bytes, bytes],
        now_ms: int,
    ) -> Reply:
        retention_ms, interval_ms, *fields = arguments
        _, _, version = change
        previous: Reply = []
        limit = 0
        if now_ms - int(notes.get(b"@p", b"0")) > int(interval_ms):
            limit = now_ms - int(retention_ms)
        for field in fields:
            value = notes.get(field, b"0")
            if field == b"*":
                limit = int(version)
                value = b"0" if value == notes.get(b"@b") else value
            previous.append(value)
            notes[field] = version
        if limit:
            self._clear(notes, limit, now_ms)
        self.notices.append(b"\n".join((*change, *fields)))
        return previous

    def _clear(self, notes: dict[bytes, bytes], limit: int, now_ms: int) -> None:
        for field in [each for each in notes if each != b"*" and each[:1] not in b"@"]:
            if not field.startswith(b"t:") and int(notes[field]) <= limit:
                del notes[field]
        notes[b"@p"] = b"%d" % now_ms
