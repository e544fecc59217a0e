"""What is refused before a model is loaded for it."""

from dataclasses import replace

from services.standin.core.catalogue import COMPLETION, Model
from services.standin.core.complete import FormatError, check_format
from services.standin.core.options import OptionError, Options, parse_options
from services.standin.core.requests import CompletionRequest, Message
from services.standin.wire import ApiError


def check_completion(request: CompletionRequest, model: Model) -> Options:
    """Check that a model can do what is asked for, and the options' types.

    Raises:
        ApiError: It cannot, or they are wrong.
    """
    if request.raw and (request.template or request.context or request.messages[0].content):
        raise ApiError(400, "raw mode does not support template, system, or context")
    if model.capability != COMPLETION:
        verb = "chat" if request.chat else "generate"
        raise ApiError(400, f'"{request.model}" does not support {verb}')
    if request.think and "thinking" not in model.capabilities:
        raise ApiError(400, f'"{request.model}" does not support thinking')
    for capability, wanted in (("tools", request.tools), ("insert", request.suffix)):
        if wanted and capability not in model.capabilities:
            raise ApiError(400, f"{model.name.full} does not support {capability}")
    try:
        check_format(request.output_format)
        return parse_options({**model.parameters, **request.options}, shift=request.shift)
    except (FormatError, OptionError) as error:
        raise ApiError(500, str(error)) from error


def with_system(request: CompletionRequest, model: Model) -> CompletionRequest:
    """The request with the model's system text, where it brings none of its own."""
    has_own = any(message.role == "system" and message.content for message in request.messages)
    if request.raw or has_own or not model.system:
        return request
    rest = tuple(message for message in request.messages if message.role != "system")
    return replace(request, messages=(Message(role="system", content=model.system), *rest))
