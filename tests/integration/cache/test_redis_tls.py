"""Redis over TLS: its certificate is checked, and a CA of one's own is named by SSL_CERT_FILE."""

import asyncio
import shutil
import ssl
import subprocess
from contextlib import asynccontextmanager, suppress

import pytest

from services.cache.ports import StoreFailure, Write
from tests.kit.redis_stores import PATIENT_SECONDS

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificates")

_ELLIPTIC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*arguments: object) -> None:
    command = ["openssl", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Returns a folder with the certificate of a CA, and that of a server that it has signed."""
    folder = tmp_path_factory.mktemp("tls")
    subject = ("-subj", "/CN=private CA")
    ca = ("-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    openssl("req", "-x509", *_ELLIPTIC, *subject, "-days", 2, *ca)
    request = ("-keyout", folder / "server.key", "-out", folder / "server.csr")
    openssl("req", *_ELLIPTIC, "-subj", "/CN=localhost", *request)
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    signed = ("-in", folder / "server.csr", "-out", folder / "server.pem", "-days", 2)
    by = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial")
    openssl("x509", "-req", *signed, *by, "-extfile", folder / "names")
    return folder


@asynccontextmanager
async def encrypted(folder, port: int):
    """Stands before a server as its TLS, and yields the port where that is."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def use(store) -> list[bytes | None]:
    writes = [Write(b"key", b"value", 60_000)]
    await store.write(0, writes, timeout_seconds=PATIENT_SECONDS)
    return await store.read(0, [b"key"], timeout_seconds=PATIENT_SECONDS)


async def cause_of_failure(store) -> str:
    with pytest.raises(StoreFailure) as failed:
        await use(store)
    return failed.value.cause


async def test_a_certificate_of_ones_own_authority_is_trusted_once_that_is_named(
    authority, make_store, redis_server, monkeypatch
) -> None:
    async with encrypted(authority, redis_server.port) as port:
        url = f"rediss://localhost:{port}"
        assert await cause_of_failure(make_store(url)) == "certificate is not trusted"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        assert await use(make_store(url)) == [b"value"]


async def test_a_certificate_for_another_name_is_not_trusted(
    authority, make_store, redis_server, monkeypatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    async with encrypted(authority, redis_server.port) as port:
        store = make_store(f"rediss://127.0.0.1:{port}")
        assert await cause_of_failure(store) == "certificate is not trusted"
