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
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.tables: dict[bytes, dict[bytes, bytes]] = {}
        self.notices: list[bytes] = []

    def run(self, name: str, key: bytes, arguments: Sequence[bytes | int]) -> Reply:
        """Runs a script by its name."""
        now_us = round(self._now() * 1_000_000)
        now_ms = now_us // 1000
        notes = self.tables.setdefault(key, {})
        if b"*" not in notes:
            first = b"%d" % (now_ms - 1)
            notes.update({b"*": first, b"@b": first, b"@p": first, b"@v": b"%d" % now_ms})
        reply: Reply = [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]
        texts = [each if isinstance(each, bytes) else b"%d" % each for each in arguments]
        if name == "read_epochs":
            if notes.get(b"@v") != texts[0]:
                reply.append([part for pair in notes.items() for part in pair])
            return reply
        before = notes.get(b"@v", b"0")
        tolerance_ms = int(texts[4]) if name == "bump_epochs" else 0
        version = b"%d" % max(now_ms + tolerance_ms, int(before) + 1)
        notes[b"@v"] = version
        reply += [before, version]
        if name == "bump_epochs":
            return reply + self._bump(notes, texts, before, version, now_ms)
        assert name == "set_threshold"
        tenant, _, field, value = texts
        previous = notes.pop(field, b"")
        if value:
            notes[field] = value
        self.notices.append(b"\n".join((tenant, b"-1", version)))
        return [*reply, previous]

    def _bump(
        self,
        notes: dict[bytes, bytes],
        arguments: Sequence[bytes],
        before: bytes,
        version: bytes,
        now_ms: int,
    ) -> Reply:
        tenant, _, retention_ms, interval_ms, _, *fields = arguments
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
            for field in [each for each in notes if each != b"*" and each[:1] not in b"@"]:
                if not field.startswith(b"t:") and int(notes[field]) <= limit:
                    del notes[field]
            notes[b"@p"] = b"%d" % now_ms
        self.notices.append(b"\n".join((tenant, before, version, *fields)))
        return previous
