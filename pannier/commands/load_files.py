"""Files that `pannier load` writes: figures, and who is ordering faults."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["FaultsOrdered", "check_figures_path", "faults_to_ourselves", "write_figures"]

_LOCK = "load.lock"


class FaultsOrdered(Exception):
    """Another run orders faults of the same stack."""


def check_figures_path(path: Path) -> None:
    """Makes sure that figures can be written, before there are any.

    Raises:
        OSError: They cannot.
    """
    if _is_special(path):
        with path.open("ab"):
            return
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def write_figures(path: Path, document: dict[str, Any]) -> None:
    """Writes figures whole or not at all.

    Raises:
        OSError: They cannot be written.
    """
    text = json.dumps(document, indent=2) + "\n"
    if _is_special(path):
        path.write_text(text, encoding="utf-8")
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        # As any other program would have made it, not for this user alone.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path.resolve())
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _is_special(path: Path) -> bool:
    """Whether it is a device or a pipe, which must not be replaced by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def faults_to_ourselves(home: Path) -> Iterator[None]:
    """Keeps other runs from ordering faults of the same stack while the context is open.

    What one run takes back, another may still want: neither would show what it is to show. The
    kernel forgets it when the process ends, however it does.

    Args:
        home: The stack's state folder; where there is none, there is no stack to share.

    Raises:
        FaultsOrdered: Another run does.
    """
    if not home.is_dir():
        yield
        return
    with (home / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FaultsOrdered(
                f"another `pannier load` orders faults of the stack in {home}; wait for its end"
            ) from None
        yield
