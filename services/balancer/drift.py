"""Backends that have different models under one name: said once per change, for an operator.

So has a single backend that has one on its disk and lists another in its memory: it was replaced
and not loaded anew, or something is wrong there.
"""

import logging
from collections.abc import Iterable, Mapping

from services.balancer.backend import Backend, ModelState
from services.balancer.core.models import FleetModel

__all__ = ["DriftLog", "has_drifted"]

_logger = logging.getLogger(__name__)


class DriftLog:
    """Remembers who drifted, so that only changes are logged."""

    def __init__(self) -> None:
        self._drifted: dict[str, tuple[str, ...]] = {}

    def note(self, models: Iterable[FleetModel], backends: Mapping[str, Backend]) -> None:
        """Logs what has changed.

        Args:
            models: The models of the fleet.
            backends: All backends by id.
        """
        before, after = self._drifted, _drifted(models, backends)
        for key in sorted(after):
            if after[key] != before.get(key):
                extra = {"model": key, "backends": ", ".join(after[key])}
                _logger.warning("backends have another variant of a model than most", extra=extra)
        for key in sorted(before.keys() - after.keys()):
            _logger.info("backends agree on a model again", extra={"model": key})
        self._drifted = after


def _drifted(
    models: Iterable[FleetModel], backends: Mapping[str, Backend]
) -> dict[str, tuple[str, ...]]:
    return {
        each.key: tuple(
            id_
            for id_ in each.backend_ids
            if has_drifted((backends[id_].models or {})[each.key], each.model.digest)
        )
        for each in models
        if each.drifted
    }


def has_drifted(model: ModelState, digest: str) -> bool:
    """Tells whether a model of a backend is another than that of most, or than it says itself.

    Args:
        model: The model there.
        digest: The digest that most backends have.
    """
    return model.installed.digest != digest or model.differs_in_memory
