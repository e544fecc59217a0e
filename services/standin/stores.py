"""Endpoints that change which models there are: pull, create, copy, delete, and blobs."""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from services.standin.core.catalogue import Model, digest
from services.standin.core.decode import DecodeError, Fields, decode_object
from services.standin.core.names import ModelName
from services.standin.core.profile import scale
from services.standin.core.uploads import Blob, UploadError, build_model
from services.standin.library import read_name
from services.standin.state import State
from services.standin.wire import ApiError, LineStream, reply

_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")
_HEAD_BYTES = 32 * 2**20
_PROGRESS_SECONDS = 0.1

Progress = AsyncIterator[Mapping[str, Any]]


class StoreHandlers:
    """The endpoints of the store.

    Args:
        state: The server's parts.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._blobs: dict[str, Blob] = {}

    async def head_blob(self, http: web.Request) -> web.Response:
        """Whether a blob is here."""
        return web.Response(status=200 if _read_digest(http) in self._blobs else 404)

    async def post_blob(self, http: web.Request) -> web.Response:
        """Take a blob."""
        expected = _read_digest(http)
        if expected in self._blobs:
            return web.Response(status=200)
        checksum, head, size = hashlib.sha256(), bytearray(), 0
        async for part in http.content.iter_any():
            checksum.update(part)
            size += len(part)
            head += part[: max(0, _HEAD_BYTES - len(head))]
        actual = f"sha256:{checksum.hexdigest()}"
        if actual != expected:
            raise ApiError(400, f"digest mismatch, expected {expected!r}, got {actual!r}")
        self._blobs[expected] = Blob(digest=expected, size_bytes=size, head=bytes(head))
        return web.Response(status=201)

    async def copy(self, http: web.Request) -> web.Response:
        """Give a model a second name."""
        fields = Fields(decode_object(await http.read(), "CopyRequest"), "CopyRequest")
        source, destination = fields.text("source"), fields.text("destination")
        name = read_name(destination)
        model = self._state.library.find(source)
        if model is None:
            raise ApiError(404, f'model "{source}" not found')
        self._state.library.add(replace(model, name=name))
        return web.Response()

    async def delete(self, http: web.Request) -> web.Response:
        """Delete a model."""
        fields = Fields(decode_object(await http.read(), "DeleteRequest"), "DeleteRequest")
        text = fields.text("model") or fields.text("name")
        model = self._state.library.find(text)
        if model is None:
            raise ApiError(404, f"model '{text}' not found")
        self._state.library.remove(model)
        return web.Response()

    async def pull(self, http: web.Request) -> web.StreamResponse:
        """Install a model that is not here yet."""
        fields = Fields(decode_object(await http.read(), "PullRequest"), "PullRequest")
        name = _read_model(fields)
        return await _report(http, fields, self._pull(name))

    async def create(self, http: web.Request) -> web.StreamResponse:
        """Make a model of another one, or of uploaded files."""
        fields = Fields(decode_object(await http.read(), "CreateRequest"), "CreateRequest")
        name = _read_model(fields)
        source, files = fields.text("from"), fields.mapping("files")
        if not source and not files:
            raise ApiError(400, "neither 'from' or 'files' was specified")
        if source:
            return await _report(http, fields, self._create_from(name, source, fields))
        for entry in files.values():
            if not isinstance(entry, str) or not _DIGEST.fullmatch(entry):
                raise ApiError(400, "invalid digest format")
        return await _report(http, fields, self._create_of(name, files, fields))

    async def _pull(self, name: ModelName) -> Progress:
        yield {"status": "pulling manifest"}
        library, settings, clock = self._state.library, self._state.settings, self._state.clock
        here = library.find(name.full)
        model = library.find_remote(name) or here
        if model is None:
            raise UploadError("pull model manifest: file does not exist")
        layer, total = model.digest, model.size_bytes
        line = {"status": f"pulling {layer[:12]}", "digest": f"sha256:{layer}", "total": total}
        if here is None or here.digest != layer:
            rate = settings.pull_bytes_per_second * settings.time_scale
            began_at = clock.monotonic()
            while (done := int((clock.monotonic() - began_at) * rate)) < total:
                yield line | ({"completed": done} if done else {})
                await clock.sleep(min(_PROGRESS_SECONDS, (total - done) / rate))
            library.add(replace(model, modified_epoch_seconds=clock.now()))
        yield line | {"completed": total}
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            yield {"status": status}

    async def _create_from(self, name: ModelName, source: str, fields: Fields) -> Progress:
        base = self._state.library.find(source)
        if base is None:
            raise UploadError("pull model manifest: file does not exist")
        yield {"status": f"using existing layer sha256:{base.file}"}
        self._install(replace(base, parent=base.name.short), name, fields)
        yield {"status": "writing manifest"}
        yield {"status": "success"}

    async def _create_of(
        self, name: ModelName, files: Mapping[str, str], fields: Fields
    ) -> Progress:
        found = {}
        for path, text in files.items():
            blob = self._blobs.get(_canonical(text))
            if blob is None:
                raise UploadError(f"blob {text} does not exist")
            found[path] = blob
        yield {"status": "parsing GGUF"}
        settings = self._state.settings
        speed = scale(
            settings.default_speed, speed_ratio=settings.speed, time_scale=settings.time_scale
        )
        self._install(build_model(name, found, speed, self._state.clock.now()), name, fields)
        yield {"status": "writing manifest"}
        yield {"status": "success"}

    def _install(self, model: Model, name: ModelName, fields: Fields) -> None:
        system = fields.text("system") or model.system
        parameters = {**model.parameters, **fields.mapping("parameters")}
        template = fields.text("template")
        self._state.library.add(
            replace(
                model,
                name=name,
                system=system,
                parameters=parameters,
                digest=digest(
                    base=model.digest, system=system, parameters=parameters, template=template
                ),
                modified_epoch_seconds=self._state.clock.now(),
            )
        )


async def _report(http: web.Request, fields: Fields, progress: Progress) -> web.StreamResponse:
    """Send the progress line by line, or only its end where no stream is wanted."""
    if not fields.flag("stream", default=True):
        try:
            last = [line async for line in progress][-1]
        except UploadError as error:
            raise ApiError(500, str(error)) from error
        return reply(last)
    stream = LineStream(http)
    try:
        async for line in progress:
            await stream.write(line)
    except UploadError as error:
        await stream.write({"error": str(error)})
    return await stream.end()


def _read_model(fields: Fields) -> ModelName:
    return read_name(fields.text("model") or fields.text("name"))


def _read_digest(http: web.Request) -> str:
    text = http.match_info["digest"]
    if not _DIGEST.fullmatch(text):
        raise DecodeError("invalid digest format")
    return _canonical(text)


def _canonical(text: str) -> str:
    return text.lower().replace("-", ":")
