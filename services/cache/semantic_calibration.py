"""What was found out about matches, counted by all replicas together.

Counts are kept per tenant, namespace and embedding model. Losing them is safe: matches are
candidates again, until enough of them were verified.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from services.cache.core.layers import Layer
from services.cache.core.semantic.bins import BIN_COUNT, NO_VERDICTS, Verdicts
from services.cache.core.semantic.names import CHANNEL, calibration_key
from services.cache.core.semantic.verdict import Finding
from services.cache.follower import Follower, Knowledge
from services.cache.ports import StoreFailure
from services.cache.recorder import Recorder
from services.cache.semantic_scripts import COUNT_VERDICT
from services.cache.shared_level import SharedLevel
from services.common.clock import Clock

__all__ = ["Calibration", "Subject"]

_logger = logging.getLogger(__name__)

_LAYER = Layer.SEMANTIC
_TTL_MS = 90 * 86_400_000
_TENANT_LIMIT = 1000
_REFRESH_SECONDS = 2.0
_REFRESH_AGE_SECONDS = 3.0
_IN_USE_SECONDS = 60.0
_VERIFIED = (Finding.RIGHT.value, Finding.WRONG.value)


@dataclass(frozen=True, slots=True)
class Subject:
    """What verdicts are about.

    Attributes:
        tenant_id: Whose matches.
        namespace: Compartment of the tenant; empty where none is named.
        embedding_model_digest: Model that says what is similar.
    """

    tenant_id: str
    namespace: str
    embedding_model_digest: str

    def field(self, number: int, finding: Finding) -> str:
        """Returns where the findings of a bin are counted."""
        return f"{self.namespace}/{self.embedding_model_digest}/{number}/{finding.value}"


@dataclass(slots=True)
class _Tenant:
    """What is known of a tenant.

    Attributes:
        follower: Keeps it in step.
        counts: Counts of all replicas, by field.
        own: Counts that only this replica knows of.
        summed: What follows from the counts, for those subjects that were asked for.
        verified_count: Answers given that were verified.
        wrong_count: Those of them that were wrong.
        used_at: When it was last asked for, seconds on the monotonic clock.
    """

    follower: Follower
    counts: dict[str, int] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    summed: dict[Subject, Verdicts] = field(default_factory=dict)
    verified_count: int = 0
    wrong_count: int = 0
    used_at: float = -math.inf


class Calibration:
    """The verdicts of the tenants in use.

    Args:
        shared: Where they are counted.
        clock: Time.
        recorder: Is told how many there are.
        pepper: Secret of keys.
    """

    def __init__(
        self, shared: SharedLevel, *, clock: Clock, recorder: Recorder, pepper: bytes
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._recorder = recorder
        self._pepper = pepper
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._verified_count = 0
        self._wrong_count = 0

    def verdicts(self, subject: Subject) -> Verdicts:
        """Returns what is known at this moment."""
        tenant = self._tenants.get(subject.tenant_id)
        if tenant is None or not (tenant.counts or tenant.own):
            return NO_VERDICTS
        known = tenant.summed.get(subject)
        if known is None:
            known = Verdicts(
                right=_bins(tenant, subject, Finding.RIGHT),
                wrong=_bins(tenant, subject, Finding.WRONG, Finding.UNFIT),
            )
            if known == NO_VERDICTS:
                # Not kept: there is no end of subjects that nothing is known of.
                return NO_VERDICTS
            tenant.summed[subject] = known
        return known

    def is_current(self, tenant_id: str) -> bool:
        """Returns whether a tenant is in step, so that nothing need be waited for."""
        return self._hold(tenant_id).follower.is_current

    async def ready(self, tenant_id: str, wait_seconds: float) -> Knowledge:
        """Gets what is known of a tenant in step.

        Args:
            tenant_id: The tenant.
            wait_seconds: How long to wait for it at most.
        """
        return await self._hold(tenant_id).follower.ready(wait_seconds)

    async def count(self, subject: Subject, number: int, finding: Finding) -> bool:
        """Counts a verdict.

        Args:
            subject: What it is about.
            number: Its bin.
            finding: What it says.

        Returns:
            Whether the store has been told; otherwise this replica alone knows.
        """
        tenant = self._hold(subject.tenant_id)
        name = subject.field(number, finding)
        asked = self._shared.available
        try:
            reply = await self._shared.run(
                _LAYER,
                COUNT_VERDICT,
                [calibration_key(subject.tenant_id, pepper=self._pepper)],
                [CHANNEL, b"c " + subject.tenant_id.encode(), name.encode(), _TTL_MS],
            )
        except StoreFailure:
            # The store may have counted it all the same: better a wrong match twice than a right.
            if not (asked and finding is Finding.RIGHT):
                tenant.own[name] = tenant.own.get(name, 0) + 1
                self._sum_up(tenant)
            return False
        tenant.counts[name] = cast("int", reply)
        self._sum_up(tenant)
        return True

    def counted_elsewhere(self, tenant_id: str) -> None:
        """Takes a notice of a verdict."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            return
        tenant.follower.fall_behind()
        if self._in_use(tenant):
            tenant.follower.begin()

    def fall_behind(self) -> None:
        """Notes that verdicts may have been missed."""
        for tenant in self._tenants.values():
            tenant.follower.fall_behind()

    async def run(self) -> None:
        """Keeps the tenants in use in step; never returns."""
        try:
            while True:
                await self._clock.sleep(_REFRESH_SECONDS)
                for tenant in list(self._tenants.values()):
                    await self._refresh(tenant)
        finally:
            for tenant in list(self._tenants.values()):
                await tenant.follower.close()

    def _hold(self, tenant_id: str) -> _Tenant:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            follower = Follower(lambda: self._follow(tenant_id), clock=self._clock)
            tenant = self._tenants[tenant_id] = _Tenant(follower)
            if len(self._tenants) > _TENANT_LIMIT:
                _, dropped = self._tenants.popitem(last=False)
                self._verified_count -= dropped.verified_count
                self._wrong_count -= dropped.wrong_count
        tenant.used_at = self._clock.monotonic()
        self._tenants.move_to_end(tenant_id)
        return tenant

    async def _refresh(self, tenant: _Tenant) -> None:
        try:
            if self._in_use(tenant) and tenant.follower.age_seconds >= _REFRESH_AGE_SECONDS:
                await tenant.follower.step()
        except Exception:
            _logger.exception("a tenant's verdicts were not brought up to date")

    def _in_use(self, tenant: _Tenant) -> bool:
        return self._clock.monotonic() - tenant.used_at <= _IN_USE_SECONDS

    async def _follow(self, tenant_id: str) -> None:
        found = await self._shared.read_map(_LAYER, calibration_key(tenant_id, pepper=self._pepper))
        tenant = self._tenants.get(tenant_id)
        if tenant is not None:
            tenant.counts = _counts(found)
            self._sum_up(tenant)

    def _sum_up(self, tenant: _Tenant) -> None:
        """Draws the conclusions of changed counts."""
        tenant.summed.clear()
        verified_count = wrong_count = 0
        for counts in (tenant.counts, tenant.own):
            for name, count in counts.items():
                finding = name[-1:]
                if finding in _VERIFIED:
                    verified_count += count
                if finding == Finding.WRONG.value:
                    wrong_count += count
        self._verified_count += verified_count - tenant.verified_count
        self._wrong_count += wrong_count - tenant.wrong_count
        tenant.verified_count, tenant.wrong_count = verified_count, wrong_count
        self._recorder.false_hit_bounds(
            verified_count=self._verified_count, wrong_count=self._wrong_count
        )


def _counts(found: Mapping[bytes, bytes]) -> dict[str, int]:
    """Reads counts, leaving out what is none."""
    counts: dict[str, int] = {}
    for name, count in found.items():
        try:
            text, number = name.decode(), int(count)
        except ValueError:
            continue
        if number >= 0:
            counts[text] = number
    return counts


def _bins(tenant: _Tenant, subject: Subject, *findings: Finding) -> tuple[int, ...]:
    def count(number: int) -> int:
        names = (subject.field(number, finding) for finding in findings)
        return sum(tenant.counts.get(name, 0) + tenant.own.get(name, 0) for name in names)

    return tuple(map(count, range(BIN_COUNT)))
