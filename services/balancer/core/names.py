"""Model names as Ollama takes them: `[[host/]namespace/]model[:tag]`, compared without case."""

import re

__all__ = ["is_model_name", "model_key"]

_DEFAULT_NAMESPACE = "library/"
_DEFAULT_TAG = "latest"
_NAME = re.compile(
    r"(?:(?:[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}/)?"
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})?"
)


def is_model_name(text: str) -> bool:
    """Tells whether Ollama would accept a text as the name of a model."""
    return _NAME.fullmatch(text) is not None


def model_key(name: str) -> str:
    """Returns what equal names have in common.

    Args:
        name: A name as a caller or a backend writes it, for example `llama3.2`,
            `Llama3.2:latest` or `library/llama3.2`, which all name one model.
    """
    key = name.lower().removeprefix(_DEFAULT_NAMESPACE)
    if ":" not in key.rpartition("/")[2]:
        key += f":{_DEFAULT_TAG}"
    return key
