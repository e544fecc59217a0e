"""One backend as the balancer knows it: what it has, does and has shown.

Changed on the event loop without awaiting anything, so that each decision sees every one before it.
"""

import asyncio
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from operator import itemgetter

from services.balancer.core.decay import DecayedMean
from services.balancer.core.demand import Demand
from services.balancer.core.models import InstalledModel, LoadedModel
from services.balancer.core.names import model_key
from services.balancer.core.snapshot import BackendView, ModelView, Residency, Room
from services.balancer.core.standing import Standing
from services.balancer.settings import Endpoint

__all__ = ["Backend", "ModelState", "Occupancy"]

_numbers = itertools.count(1)


@dataclass(slots=True, kw_only=True, eq=False)
class Occupancy:
    """A request that holds a slot.

    Attributes:
        backend: Where.
        model: The model there.
        demand: The request.
        began_at: When it was given the slot, monotonic seconds.
        active_count: Requests active on the backend then, itself included.
        predicted_first_token_at: When its first token is to be expected.
        predicted_end: When it is to be expected to end.
        first_token_at: When its first token came; None before.
        progressed_at: When it last showed a sign of life.
        produced_count: Tokens that came so far, roughly.
        zombie: Whether its caller has left and the backend may not have noticed.
        beside: Numbers of the requests that had slots of the same model when it was given one.
        others_count: Slots of the same model that other replicas had then.
        number: Unique in this process.
    """

    backend: "Backend"
    model: "ModelState"
    demand: Demand
    began_at: float
    active_count: int
    predicted_first_token_at: float
    predicted_end: float
    first_token_at: float | None = None
    progressed_at: float = 0.0
    produced_count: int = 0
    zombie: bool = False
    beside: frozenset[int] = frozenset()
    others_count: int = 0
    number: int = field(default_factory=lambda: next(_numbers))


@dataclass(slots=True, kw_only=True, eq=False)
class ModelState:
    """One model on one backend, under one name or several.

    Names of one digest share what is loaded, its memory and its slots.

    Attributes:
        installed: What the backend says of it, under the first of its names.
        names: Its names, as the backend writes them, by key.
        slot_count: Requests that it is given at a time.
        residency: Whether it is in memory.
        ready_at: When a load under way is predicted to end, monotonic seconds.
        load_began_at: When the last load began.
        load_ended_at: When the last load ended well.
        context_token_count: Context that it is loaded with; 0 where not known.
        memory_bytes: What it takes in memory; 0 where never seen there.
        vram_bytes: What it takes of the memory of graphics cards, as last listed.
        expires_at: When the backend will unload it, seconds since the epoch; None where not known.
        settled_at: When a load or an unloading last ended; what was listed before is out of date.
        used_at: When it was last given a request, monotonic seconds.
        pinned: Whether it must stay in memory.
        occupancies: Requests that hold slots.
        canary_until: Until when a canary may hold one more, monotonic seconds.
        load_failure_count: Loads that failed in a row.
        load_barred_until: No load is tried before this.
        context_limit: Longest context that it could be loaded with; 0 where not known.
        listed_digest: Digest under which the backend lists it in memory, where that is not its own.
        listed_key: Key of the model under whose name the backend lists it in memory, where that is
            not its own: two of the same weights share what is loaded.
        differs_in_memory: Whether the backend lists in memory, under one of its names, a model of
            another digest than it has on disk.
        dismissed_at: When an operator last had it unloaded, monotonic seconds.
        tended_at: When it was last loaded or renewed for its own sake, monotonic seconds.
        told_to_stay: Whether it was pinned here once and is no longer.
        answers_fewer: Whether it has answered fewer requests at once than it is given even when it
            had just been loaded.
        view: What the planner is shown; None where it has to be made anew.
    """

    installed: InstalledModel
    slot_count: int
    key: str = field(init=False)
    names: Mapping[str, str] = field(init=False)
    placement_key: str = field(init=False)
    residency: Residency = Residency.INSTALLED
    ready_at: float = 0.0
    load_began_at: float = -math.inf
    load_ended_at: float = -math.inf
    settled_at: float = -math.inf
    context_token_count: int = 0
    memory_bytes: int = 0
    vram_bytes: int = 0
    expires_at: float | None = None
    used_at: float = -math.inf
    pinned: bool = False
    occupancies: dict[int, Occupancy] = field(default_factory=dict)
    canary_until: float = -math.inf
    load_failure_count: int = 0
    load_barred_until: float = -math.inf
    context_limit: int = 0
    listed_digest: str = ""
    listed_key: str = ""
    differs_in_memory: bool = False
    dismissed_at: float = -math.inf
    tended_at: float = -math.inf
    told_to_stay: bool = False
    answers_fewer: bool = False
    view: ModelView | None = None

    def __post_init__(self) -> None:
        """Keeps the keys, which are read many times per request."""
        self.take(self.installed)

    def take(self, installed: InstalledModel, names: Mapping[str, str] | None = None) -> None:
        """Takes in what the backend says of it, and by which names it is known."""
        self.installed = installed
        self.key = model_key(installed.name)
        self.names = names or {self.key: installed.name}
        self.placement_key = f"{self.key}@{installed.digest}"
        self.view = None

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, as far as known."""
        return self.memory_bytes or self.installed.size_bytes

    @property
    def maximum_context_token_count(self) -> int:
        """Longest context that it can be loaded with; 0 where not known."""
        limits = (self.installed.description.context_token_count, self.context_limit)
        return min((each for each in limits if each), default=0)

    def find(self, listed: Iterable[LoadedModel]) -> LoadedModel | None:
        """Finds it among the models in memory; an older version that is still there is another."""
        digests = ("", self.installed.digest, self.listed_digest)
        for each in listed:
            key = model_key(each.name)
            if key == self.listed_key or (key in self.names and each.digest in digests):
                return each
        return None

    def is_contradicted_by(self, listed: Iterable[LoadedModel]) -> bool:
        """Tells whether a model in memory has one of its names, and another digest."""
        own = self.installed.digest
        return bool(own) and any(
            model_key(each.name) in self.names and each.digest not in ("", own) for each in listed
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Backend:
    """One backend.

    Attributes:
        endpoint: Where it listens.
        id: Host and port.
        standing: Whether failures have put it out.
        standing_changed: Set when its next check should come earlier, or later, than planned.
        version: Version of its server; empty before the first successful check.
        models: Its models by key, one with several names once for each; None before the first
            successful check.
        loading_key: The model that it loads or makes room for.
        loading_until: When that is predicted to end, monotonic seconds.
        room: How many models it is thought to hold.
        loaded_lately: Whether a load has ended since its models in memory were last listed.
        checked_at: When it was last checked, seconds since the epoch; None before.
        check_seconds: How long the last check took.
        in_flight_count: Attempts under way.
        request_count: Attempts sent to it.
        failure_count: Attempts that failed there.
        success_count: Attempts that succeeded there.
        success_seconds: What these took together.
        ejection_count: Times that it was put out.
        stall_count: Times that a slot was found stuck.
        first_token_seconds: Time until the first token.
        text_seconds: Time per embedded text.
        chosen_turn: Number of the last decision that chose it.
        view: What the planner was last shown of it.
        view_stamp: What it was made from.
    """

    endpoint: Endpoint
    standing: Standing = field(default_factory=Standing)
    id: str = field(init=False)
    standing_changed: asyncio.Event = field(default_factory=asyncio.Event)
    version: str = ""
    models: dict[str, ModelState] | None = None
    loading_key: str | None = None
    loading_until: float = 0.0
    room: Room = field(default_factory=Room)
    loaded_lately: bool = False
    checked_at: float | None = None
    check_seconds: float = 0.0
    in_flight_count: int = 0
    request_count: int = 0
    failure_count: int = 0
    success_count: int = 0
    success_seconds: float = 0.0
    ejection_count: int = 0
    stall_count: int = 0
    first_token_seconds: DecayedMean = field(default_factory=DecayedMean)
    text_seconds: DecayedMean = field(default_factory=DecayedMean)
    chosen_turn: int = 0
    view: BackendView | None = None
    view_stamp: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        """Keeps the id, which is read dozens of times per request."""
        self.id = self.endpoint.backend_id

    def states(self) -> list[ModelState]:
        """Lists its models, each once however many names it has."""
        return list(dict.fromkeys((self.models or {}).values()))

    def warm_models(self) -> list[ModelState]:
        """Lists the models in its memory, by key."""
        return sorted(
            (each for each in self.states() if each.residency is Residency.WARM),
            key=lambda each: each.key,
        )

    def occupancies(self) -> Iterator[Occupancy]:
        """Iterates over the requests that hold slots, zombies included."""
        for model in self.states():
            yield from model.occupancies.values()

    def take_installed(self, listed: tuple[InstalledModel, ...], default_slot_count: int) -> None:
        """Takes in which models it has on disk."""
        before = {each.installed.digest: each for each in self.states()}
        unnamed = self.models or {}
        after: dict[str, ModelState] = {}
        for names in _by_digest(listed):
            installed = next(iter(names.values()))
            key = model_key(installed.name)
            state = before.get(installed.digest) if installed.digest else unnamed.get(key)
            if state is None or state.installed.digest != installed.digest:
                state = ModelState(installed=installed, slot_count=default_slot_count)
            state.take(installed, {key: each.name for key, each in names.items()})
            if installed.only_embeds:
                state.slot_count = 1
            after |= dict.fromkeys(names, state)
        self.models = after

    def take_loaded(
        self, listed: tuple[LoadedModel, ...], now: float, asked_at: float = math.inf
    ) -> list[ModelState]:
        """Takes in which models it has in memory; returns those that are gone.

        What the balancer itself loads or unloads there meanwhile is left alone: the listing may
        be older than that.

        Args:
            listed: The models.
            now: Seconds since the epoch.
            asked_at: When the backend was asked, monotonic seconds.
        """
        gone: list[ModelState] = []
        before = {each.key for each in self.warm_models()}
        for state in self.states():
            if state.residency in (Residency.LOADING, Residency.UNLOADING):
                continue
            if state.settled_at > asked_at:
                continue
            state.differs_in_memory = state.is_contradicted_by(listed)
            found = state.find(listed)
            if found is not None:
                state.residency = Residency.WARM
                state.context_token_count = found.context_token_count or state.context_token_count
                state.memory_bytes = found.size_bytes
                state.vram_bytes = found.vram_bytes
                state.expires_at = found.expires_at
                state.view = None
            elif state.residency is Residency.WARM:
                state.residency = Residency.INSTALLED
                # Its server may have been restarted, and given other settings.
                state.answers_fewer = False
                state.view = None
                gone.append(state)
        self._learn_room(before, [each for each in gone if (each.expires_at or now) >= now])
        for state in gone:
            state.expires_at = None
        return gone

    def _learn_room(self, before: Set[str], gone: list[ModelState]) -> None:
        """Learns from a load that pushed out what nobody had asked to go that it did not fit.

        What makes room goes as soon as a load begins, and is mostly seen to be gone before the load
        ends. Where a model went and none came or is coming, its runner has died, which says nothing
        of room.
        """
        stays = self.warm_models()
        coming = [each for each in self.states() if each.residency is Residency.LOADING]
        came = self.loaded_lately or any(each.key not in before for each in stays)
        stays_bytes = sum(each.size_bytes for each in stays)
        overflow_bytes = self.room.overflow_bytes
        if gone and (coming or (stays and came)):
            others_bytes = sum(each.size_bytes for each in (*coming, *gone))
            overflow_bytes = min(overflow_bytes, stays_bytes + others_bytes)
        if len(stays) > 1 and stays_bytes >= overflow_bytes:
            overflow_bytes = math.inf
        self.room = replace(
            self.room,
            model_limit=max(self.room.model_limit, len(stays)),
            overflow_bytes=overflow_bytes,
        )
        self.loaded_lately = False


def _by_digest(listed: Iterable[InstalledModel]) -> list[dict[str, InstalledModel]]:
    """Returns what is on disk, by key in order, together where it is the same."""
    groups: dict[str, dict[str, InstalledModel]] = {}
    by_key = {model_key(each.name): each for each in listed}
    for key, each in sorted(by_key.items(), key=itemgetter(0)):
        groups.setdefault(each.digest or key, {})[key] = each
    return list(groups.values())
