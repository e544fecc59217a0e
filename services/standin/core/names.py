"""Model names: host/namespace/model:tag, with defaults, compared without case."""

import re
from dataclasses import dataclass

DEFAULT_HOST = "standin.invalid"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A complete model name."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def short(self) -> str:
        """The name without default host and namespace, always with its tag."""
        if self.host.lower() != DEFAULT_HOST:
            return self.full
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    @property
    def full(self) -> str:
        """The name with all four parts."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def key(self) -> str:
        """What names are compared by."""
        return self.full.lower()


def parse_name(text: str) -> ModelName | None:
    """Complete a model name with the defaults.

    Args:
        text: A name as a client writes it, for example `llama3.2` or `library/llama3.2:latest`.

    Returns:
        The name, or None where a part is empty or has a character that names may not have.
    """
    path, slash, last = text.rpartition("/")
    model, colon, tag = last.partition(":")
    if not colon:
        tag = DEFAULT_TAG
    host, host_slash, namespace = path.rpartition("/")
    name = ModelName(
        host=host if host_slash else DEFAULT_HOST,
        namespace=namespace if slash else DEFAULT_NAMESPACE,
        model=model,
        tag=tag,
    )
    parts = (name.namespace, name.model, name.tag)
    if not _HOST.fullmatch(name.host) or not all(_PART.fullmatch(part) for part in parts):
        return None
    return name
