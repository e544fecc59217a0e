"""Keeping in memory what is wanted there: pinned models, wherever they fit beside the others.

What else is loaded follows demand: the planner loads a model where the seconds of loading it are
fewer than those of waiting for it elsewhere.
"""

from collections.abc import Iterable, Sequence

from services.balancer.backend import Backend, ModelState
from services.balancer.core.names import model_key
from services.balancer.core.outcomes import LoadCause
from services.balancer.core.plan import LoadOrder
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import takes_requests
from services.balancer.fleet import Fleet
from services.balancer.load_models import ModelLoader
from services.common.clock import Clock

__all__ = ["WarmPool"]

_INTERVAL_SECONDS = 5.0
# A model that was asked for within this time is in use.
_IN_USE_SECONDS = 3600.0
# A model is left alone for so long after it was loaded or renewed for its own sake, and one that
# was used within this time is not unloaded for a pinned one.
_PAUSE_SECONDS = 60.0
# What expires later was told never to.
_NEVER_SECONDS = 365 * 86400.0


class WarmPool:
    """Loads pinned models where they fit, and renews those that are wanted before they expire.

    Pinned are the models named, and the embedding models that are in use: they are small, and
    every question needs one. A model is pinned on a backend only where another one fits beside the
    pinned ones, for nobody may push them out.

    Args:
        fleet: The backends.
        loader: Loads.
        clock: The time.
        pinned_models: Names of models to be kept in memory.
        keep_alive_seconds: How long a backend is told to keep models that are not pinned.
        interval_seconds: Time between two looks.
    """

    def __init__(
        self,
        fleet: Fleet,
        loader: ModelLoader,
        *,
        clock: Clock,
        pinned_models: tuple[str, ...],
        keep_alive_seconds: float,
        interval_seconds: float = _INTERVAL_SECONDS,
    ) -> None:
        self._fleet = fleet
        self._loader = loader
        self._clock = clock
        self._named_keys = [model_key(name) for name in pinned_models]
        self._keep_alive_seconds = keep_alive_seconds
        self._interval_seconds = interval_seconds
        # Long enough before, for several looks and a loader that is busy meanwhile.
        self._margin_seconds = min(_PAUSE_SECONDS, keep_alive_seconds / 2)

    async def run(self) -> None:
        """Looks after the models until cancelled."""
        while True:
            self.look()
            await self._clock.sleep(self._interval_seconds)

    def look(self) -> None:
        """Pins what is to be pinned, and begins to load and to renew what is due."""
        keys = list(dict.fromkeys([*self._named_keys, *self._embedding_keys()]))
        digests = {key: self._fleet.needed_digest(key) for key in keys}
        for backend in self._fleet.backends.values():
            models = backend.models or {}
            wanted = [
                models[key]
                for key in keys
                if key in models and digests[key] in (None, models[key].installed.digest)
            ]
            self._pin(backend.states(), self._choose(backend, list(dict.fromkeys(wanted))))
            if takes_requests(backend.standing) and backend.loading_key is None:
                self._look_after(backend)

    def _embedding_keys(self) -> list[str]:
        since = self._clock.monotonic() - _IN_USE_SECONDS
        in_use = {
            key
            for backend in self._fleet.backends.values()
            for key, state in (backend.models or {}).items()
            if state.installed.only_embeds and state.used_at > since
        }
        return sorted(in_use)

    def _choose(self, backend: Backend, wanted: Sequence[ModelState]) -> list[ModelState]:
        """Chooses whom to pin on a backend: as many as leave room for one other."""
        chosen: list[ModelState] = []
        for state in wanted:
            if state.used_at < state.dismissed_at:
                continue
            pinned = (*chosen, state)
            sizes = tuple(each.size_bytes for each in pinned)
            if backend.room.fits((*sizes, *self._other_bytes(backend, pinned))):
                chosen.append(state)
        return chosen

    def _other_bytes(self, backend: Backend, pinned: Sequence[ModelState]) -> tuple[int, ...]:
        """Says what the one takes that must fit beside the pinned models; nothing without one.

        The largest of those in use; where none is, whichever is the smallest.
        """
        since = self._clock.monotonic() - _IN_USE_SECONDS
        others = [each for each in backend.states() if each not in pinned]
        others = [each for each in others if not each.installed.only_embeds] or others
        in_use = [
            each.size_bytes
            for each in others
            if each.residency is not Residency.INSTALLED or each.used_at > since
        ]
        if in_use:
            return (max(in_use),)
        return (min(each.size_bytes for each in others),) if others else ()

    def _pin(self, models: Iterable[ModelState], chosen: Sequence[ModelState]) -> None:
        for state in models:
            pinned = state in chosen
            if pinned is not state.pinned:
                state.pinned = pinned
                # What was told to stay for ever is to be told otherwise, and the other way round.
                state.told_to_stay = not pinned
                state.view = None

    def _look_after(self, backend: Backend) -> None:
        """Begins one load or renewal on a backend, if one is due."""
        for state in backend.states():
            if not self._is_rested(state):
                continue
            if state.pinned and state.residency is Residency.INSTALLED:
                begun = self._load(backend, state)
            else:
                begun = self._is_expiring(state) and self._loader.renew(backend, state)
            if begun:
                state.tended_at = self._clock.monotonic()
                return

    def _is_rested(self, state: ModelState) -> bool:
        return self._clock.monotonic() >= state.tended_at + _PAUSE_SECONDS

    def _is_expiring(self, state: ModelState) -> bool:
        """Tells whether a model in memory has to be told how long it is to stay."""
        busy = state.residency is not Residency.WARM or state.occupancies
        if busy or state.expires_at is None:
            # While it is busy its time does not run, and is not shown either.
            return False
        left_seconds = state.expires_at - self._clock.now()
        stays = left_seconds > _NEVER_SECONDS
        if state.pinned:
            return not stays
        if stays:
            return state.told_to_stay
        due_in_seconds = state.used_at + self._keep_alive_seconds - self._clock.monotonic()
        return left_seconds < self._margin_seconds < due_in_seconds

    def _load(self, backend: Backend, state: ModelState) -> bool:
        now = self._clock.monotonic()
        evicted_keys = self._room_makers(backend, state)
        if evicted_keys is None or state.load_barred_until > now:
            return False
        policy, limit = self._fleet.policy, state.maximum_context_token_count
        context = 0 if state.installed.only_embeds else policy.context_classes[0]
        seconds = self._fleet.estimates.load_seconds(
            backend.id, state.placement_key, state.size_bytes, now
        )
        order = LoadOrder(
            backend_id=backend.id,
            model_key=state.key,
            evicted_keys=evicted_keys,
            context_token_count=min(context, limit) if limit else context,
            predicted_seconds=seconds + (policy.unload_seconds if evicted_keys else 0.0),
        )
        return self._loader.begin(order, cause=LoadCause.PIN)

    def _room_makers(self, backend: Backend, state: ModelState) -> tuple[str, ...] | None:
        """Chooses who goes for a pinned model: those that rest; None where that is not enough."""
        since = self._clock.monotonic() - _PAUSE_SECONDS
        staying = [each for each in backend.states() if each.residency is not Residency.INSTALLED]
        resting = [
            each
            for each in staying
            if each.residency is Residency.WARM
            and not each.pinned
            and each.used_at < since
            and each.load_ended_at < since
            and not self._loader.unloader.in_use(backend, each)
        ]
        evicted: list[str] = []
        for each in sorted(resting, key=lambda each: (each.used_at, each.key)):
            if self._fits(backend, state, staying):
                break
            staying.remove(each)
            evicted.append(each.key)
        return tuple(evicted) if self._fits(backend, state, staying) else None

    def _fits(self, backend: Backend, state: ModelState, staying: Sequence[ModelState]) -> bool:
        return backend.room.fits((state.size_bytes, *(each.size_bytes for each in staying)))
