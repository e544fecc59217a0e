"""Models that a backend shows in memory under another name, or another version, than their own."""

from collections.abc import Mapping, Sequence

from services.balancer.backend import ModelState
from services.balancer.core.models import LoadedModel
from services.balancer.core.names import model_key

__all__ = ["note_alias"]

# Files of the same weights differ by their templates and parameters only.
_TWIN_RATIO = 0.01


def note_alias(
    state: ModelState, listed: Sequence[LoadedModel], models: Mapping[str, ModelState]
) -> None:
    """Notes as what a backend lists a model that it has just loaded, if not as itself.

    Models of the same weights share what is loaded, under the name and the digest of the first: a
    model with other parameters than the one it was made from, or one that was replaced by a newer
    version which differs in its template only.

    Args:
        state: The model.
        listed: What the backend lists as being in memory.
        models: All models of the backend by key.
    """
    if state.find(listed) is not None:
        return
    loaded = {model_key(each.name): each.digest for each in listed}
    state.listed_digest = loaded.get(state.key, "")
    if not state.listed_digest:
        size, family = state.installed.size_bytes, state.installed.family
        twins = [
            each
            for key, each in models.items()
            if key in loaded
            and each.installed.family == family
            and abs(each.installed.size_bytes - size) <= _TWIN_RATIO * size
        ]
        state.listed_key = min((each.key for each in twins), default="")
