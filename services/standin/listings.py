"""The endpoints that only tell: version, models, loaded models."""

import json
from typing import Any

from aiohttp import web

from services.standin.core.catalogue import Model
from services.standin.core.decode import DecodeError, Fields, decode_object
from services.standin.core.names import parse_name
from services.standin.core.times import format_local
from services.standin.journal import ENTRY
from services.standin.state import State
from services.standin.wire import ApiError, plain, reply

VERSION = "0.33.0"
"""The release whose behaviour this server follows."""


class ListingHandlers:
    """Endpoints that neither load nor run anything."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def root(self, _: web.Request) -> web.Response:
        """Say that the server runs, in the words that clients look for."""
        return plain("Ollama is running", content_type="text/plain; charset=utf-8")

    async def version(self, http: web.Request) -> web.Response:
        """The version of the API."""
        return reply({"version": http[ENTRY].fault.version or VERSION})

    async def status(self, _: web.Request) -> web.Response:
        """Whether cloud models can be had: never."""
        return reply({"cloud": {"disabled": True, "source": "env"}})

    async def tags(self, http: web.Request) -> web.Response:
        """The models that could be loaded, newest first."""
        return reply(
            {
                "models": [
                    _identity(model)
                    | {
                        "modified_at": format_local(model.modified_epoch_seconds),
                        "size": model.size_bytes,
                        "digest": self._digest(http, model),
                        "details": model.full_details(),
                        "capabilities": list(model.capabilities),
                    }
                    for model in self._state.library.newest_first()
                ]
            }
        )

    async def loaded(self, http: web.Request) -> web.Response:
        """The models that are loaded, the one that stays longest first."""
        return reply(
            {
                "models": [
                    _identity(runner.model)
                    | {
                        "size": runner.model.size_bytes,
                        "digest": self._digest(http, runner.model),
                        "details": runner.model.details(),
                        "expires_at": format_local(expires_at),
                        "size_vram": 0,
                        "context_length": runner.context_tokens,
                    }
                    for runner, expires_at in self._state.scheduler.loaded()
                ]
            }
        )

    def _digest(self, http: web.Request, model: Model) -> str:
        return self._state.faults.digest(http.path, model.name.key) or model.digest

    async def show(self, http: web.Request) -> web.Response:
        """What is known about one model."""
        fields = Fields(decode_object(await http.read(), "ShowRequest"), "ShowRequest")
        text = fields.text("model") or fields.text("name")
        if not text:
            raise DecodeError("model is required")
        model = self._state.library.find(text)
        name = parse_name(text)
        if model is None or name is None:
            raise ApiError(404, f"model '{name.short if name else text}' not found")
        return reply(
            {
                "license": "Apache-2.0",
                "modelfile": f"# {model.description}\nFROM {model.name.short}\n",
                "parameters": "\n".join(_parameters(model)),
                "template": "{{ .Prompt }}",
                "system": model.system,
                "details": model.full_details(),
                "model_info": model.metadata(),
                "tensors": [],
                "capabilities": list(model.capabilities),
                "modified_at": format_local(model.modified_epoch_seconds),
            }
        )


def _parameters(model: Model) -> list[str]:
    values = {
        name: value if isinstance(value, list) else [value]
        for name, value in model.parameters.items()
    }
    return [
        f"{name:<30} {json.dumps(each)}" for name, each_of in values.items() for each in each_of
    ]


def _identity(model: Model) -> dict[str, Any]:
    return {"name": model.name.short, "model": model.name.short}
