"""Backends that have different models under one name: said once per change, for an operator."""

import logging
from collections.abc import Iterable, Mapping

from services.balancer.backend import Backend
from services.balancer.core.models import FleetModel

__all__ = ["DriftLog"]

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
            if (backends[id_].models or {})[each.key].installed.digest != each.model.digest
        )
        for each in models
        if each.drifted
    }
