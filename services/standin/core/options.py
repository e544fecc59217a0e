"""The `options` of a request: their types, and which of them force a model to be loaded anew."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INTEGERS = {
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
}
_FLOATS = {
    "top_p",
    "min_p",
    "typical_p",
    "temperature",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
}
# Load options besides num_ctx, with the value that says the same as leaving the option out.
_LOAD_DEFAULTS = {
    "num_batch": 512,
    "num_gpu": -1,
    "main_gpu": None,
    "num_thread": 0,
    "use_mmap": None,
    "draft_num_predict": 4,
    "shift": True,
}


class OptionError(ValueError):
    """An option of the wrong type; the server answers 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What a loaded model was loaded with.

    Args:
        context_tokens: Context length, or None where the request leaves it to the server.
        others: The other load options that differ from their defaults.
    """

    context_tokens: int | None = None
    others: frozenset[tuple[str, Any]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that this server acts on.

    Args:
        load: The options that are fixed when a model is loaded.
        max_tokens: Longest answer in tokens, or None without a limit.
        keep_tokens: Tokens kept at the front when a prompt is cut.
        stop: Texts that end the answer, which does not hold them.
        shift: Whether the context slides when it is full.
    """

    load: LoadOptions
    max_tokens: int | None
    keep_tokens: int
    stop: tuple[str, ...]
    shift: bool


def parse_options(values: Mapping[str, Any], *, shift: bool = True) -> Options:
    """Check the options of a request; unknown ones are ignored.

    Args:
        values: The options object, with what the model brings along.
        shift: Whether the context may slide when it is full; fixed when a model is loaded.

    Raises:
        OptionError: An option has the wrong type.
    """
    known = {name: value for name, value in values.items() if value is not None}
    for name, value in known.items():
        _check(name, value)
    max_tokens = int(known.get("num_predict", -1))
    context = known.get("num_ctx")
    others = {name: known.get(name, default) for name, default in _LOAD_DEFAULTS.items()}
    others["shift"] = shift
    return Options(
        load=LoadOptions(
            context_tokens=None if context is None else max(4, int(context)),
            others=frozenset(
                (name, value) for name, value in others.items() if value != _LOAD_DEFAULTS[name]
            ),
        ),
        max_tokens=max_tokens if max_tokens > 0 else None,
        keep_tokens=max(0, int(known.get("num_keep", 4))),
        stop=tuple(stop for stop in known.get("stop", ()) if stop),
        shift=shift,
    )


def _check(name: str, value: Any) -> None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _INTEGERS and not numeric:
        raise OptionError(f'option "{name}" must be of type integer')
    if name in _FLOATS and not numeric:
        raise OptionError(f'option "{name}" must be of type float32')
    if name == "use_mmap" and not isinstance(value, bool):
        raise OptionError(f'option "{name}" must be of type boolean')
    if name == "stop" and not (
        isinstance(value, list) and all(isinstance(stop, str) for stop in value)
    ):
        raise OptionError(f'option "{name}" must be of type array')


def needs_reload(
    loaded: LoadOptions, wanted: LoadOptions, *, trained_tokens: int, default: int
) -> bool:
    """Whether a request's load options differ from those a model was loaded with.

    Context lengths are compared as they take effect: one beyond what the model was trained on
    equals that length. An automatic `num_gpu` never differs.
    """
    lengths = {
        effective_context(load, trained_tokens=trained_tokens, default=default)
        for load in (loaded, wanted)
    }
    if len(lengths) > 1:
        return True
    differing = {name for name, _ in wanted.others ^ loaded.others}
    automatic = {"num_gpu"} - {name for name, _ in wanted.others}
    return bool(differing - automatic)


def effective_context(load: LoadOptions, *, trained_tokens: int, default: int) -> int:
    """The context length in tokens that a model runs with."""
    return min(load.context_tokens or default, trained_tokens)
