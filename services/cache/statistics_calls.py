"""Answers for statistics, from memory."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress

from pannier.cache.v1 import statistics_pb2 as pb
from services.cache import statistics_convert as convert
from services.cache.convert import timestamp
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.savings import NOTHING, SavingsReport
from services.cache.core.semantic.decision import SemanticPolicy
from services.cache.recorder import Recorder
from services.cache.shared_level import StoreCondition
from services.common.clock import Clock
from services.common.errors import ShuttingDown
from services.common.identity import current_identity

__all__ = ["StatisticsCalls"]


class StatisticsCalls:
    """Reports what has been counted.

    Args:
        recorder: Has counted it.
        local: The local level of each layer.
        store_condition: Returns how the shared store has been.
        store_topology: Its shape: "single", "sentinel" or "cluster".
        policy: When answers to similar questions are given.
        thresholds: Returns the thresholds that a tenant has set, by namespace.
        clock: Time; counting began when this is made.
    """

    def __init__(
        self,
        recorder: Recorder,
        local: Mapping[Layer, LocalLevel],
        *,
        store_condition: Callable[[], StoreCondition],
        store_topology: str,
        policy: SemanticPolicy,
        thresholds: Callable[[str], Mapping[str, float]],
        clock: Clock,
    ) -> None:
        self._recorder = recorder
        self._local = local
        self._store_condition = store_condition
        self._store_topology = store_topology
        self._policy = policy
        self._thresholds = thresholds
        self._clock = clock
        self._started_at = clock.now()
        self._ending = asyncio.Event()

    def end_watches(self) -> None:
        """Ends the calls that would never end by themselves, lest the end of the service wait."""
        self._ending.set()

    async def get_stats(self, request: pb.GetStatsRequest) -> pb.GetStatsResponse:
        """Reports once.

        Raises:
            InvalidRequest: A field is out of range.
        """
        return self._report(convert.tenant_limit(request))

    async def watch_stats(
        self, request: pb.WatchStatsRequest
    ) -> AsyncGenerator[pb.WatchStatsResponse, None]:
        """Reports at once and then at intervals.

        Raises:
            InvalidRequest: A field is out of range.
            ShuttingDown: The service ends.
        """
        tenant_limit = convert.tenant_limit(request)
        interval_seconds = convert.watch_interval_seconds(request)
        while not self._ending.is_set():
            yield pb.WatchStatsResponse(stats=self._report(tenant_limit))
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_seconds):
                    await self._ending.wait()
        raise ShuttingDown

    def _report(self, tenant_limit: int) -> pb.GetStatsResponse:
        recorder = self._recorder
        now = self._clock.monotonic()
        spans = {layer: tally.spans(now) for layer, tally in recorder.tallies.items()}
        lives = [each[-1] for each in spans.values()]
        condition = self._store_condition()
        savings = SavingsReport(
            by_hits=sum((each.saved for each in lives), NOTHING),
            by_coalescing=sum((each.coalesced for each in lives), NOTHING),
            lookup_seconds=sum(each.lookup_seconds for each in lives),
            verification=recorder.verification,
            prices=recorder.prices,
        )
        return pb.GetStatsResponse(
            start_time=timestamp(self._started_at),
            layers=[
                convert.layer_stats(layer, each, self._local[layer])
                for layer, each in spans.items()
            ],
            store=convert.store_stats(
                condition, self._store_topology, recorder.dropped_write_count
            ),
            degraded=not condition.available,
            semantic=convert.semantic_stats(
                recorder.semantic,
                threshold=self._policy.threshold,
                error_budget_ratio=self._policy.error_budget_ratio,
                thresholds=self._thresholds(current_identity.get().tenant_id),
            ),
            flight=convert.flight_stats(recorder.flights),
            modes=[
                stats
                for mode, traffic in recorder.modes.items()
                for stats in convert.mode_stats(mode, traffic)
            ],
            tenants=[convert.tenant_stats(*each) for each in recorder.tenants.top(tenant_limit)],
            savings=convert.savings_message(savings),
        )
