"""Documents for the demo: the documentation of standard-library modules, as `pydoc` writes it."""

import importlib
import pydoc
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MODULES", "RenderedCorpus", "render_corpus"]

# None of them does anything when it is imported. Modules with more than about 40 KB of
# documentation are not among them: each would be a twentieth of the whole.
MODULES = (
    *("abc", "array", "asyncio.locks", "asyncio.queues", "asyncio.runners"),
    *("asyncio.streams", "asyncio.subprocess", "asyncio.taskgroups", "asyncio.tasks"),
    *("asyncio.timeouts", "base64", "bisect", "bz2", "cmath"),
    *("contextlib", "contextvars", "copy", "csv", "dataclasses"),
    *("datetime", "difflib", "fileinput", "fnmatch", "fractions", "functools", "getpass"),
    *("glob", "graphlib", "gzip", "hashlib", "heapq", "hmac", "html", "html.parser"),
    *("importlib.metadata", "itertools", "json", "json.decoder", "json.encoder"),
    *("linecache", "locale", "lzma", "math", "mimetypes", "operator", "os.path", "pickle"),
    *("platform", "pprint", "queue", "quopri", "random", "re", "reprlib", "sched"),
    *("secrets", "shlex", "shutil", "statistics", "string", "struct", "subprocess"),
    *("tempfile", "textwrap", "time", "timeit", "tomllib", "traceback"),
    *("tracemalloc", "unicodedata", "urllib.robotparser", "uuid", "warnings", "wave"),
    *("webbrowser", "zipapp", "zlib", "zoneinfo"),
)

# Where an object lies in memory: another in every process, so that nothing would stay the same.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")


@dataclass(frozen=True, slots=True)
class RenderedCorpus:
    """Documents on disk.

    Attributes:
        folder: Where they are, one file per module.
        document_count: How many.
        character_count: Characters in all.
    """

    folder: Path
    document_count: int
    character_count: int


def render_corpus(folder: Path) -> RenderedCorpus:
    """Writes the documentation of `MODULES`, whole, as plain text; takes a few seconds.

    Only the memory addresses of objects are left out.

    Args:
        folder: Where to put it; made where it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    characters = 0
    for name in MODULES:
        module = importlib.import_module(name)
        text = _ADDRESS.sub(">", pydoc.plain(pydoc.render_doc(module)))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
        characters += len(text)
    return RenderedCorpus(folder, len(MODULES), characters)
