"""A cache that does as a test says, over real gRPC.

It keeps the contract of its protos in the memory of one process: leases, flights that are followed
as they come, answers by question, invalidation by its own clock. What is scripted is only what the
store behind it would do, and how sure it is of questions that are alike.
"""

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from pannier.cache.v1 import cache_service_pb2 as cache
from pannier.cache.v1 import control_pb2, invalidation_pb2, semantic_pb2
from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceServicer
from services.common.errors import PeerUnavailable, RelayedError, ServiceError, StatusCode
from services.common.identity import TENANT_HEADER
from services.common.status import STATUS_DETAILS_KEY, grpc_code, to_status

__all__ = ["FakeCache", "abort"]

_REMEMBERED_SECONDS = 30


@dataclass
class _Flight:
    """An answer that is being computed."""

    token: str
    deltas: list[str] = field(default_factory=list)
    result: cache.Inference | None = None
    failure: cache.Failure | None = None
    ended: bool = False
    frozen: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, text):
        self.deltas.append(text)
        await self._tell()

    async def end(self, *, result=None, failure=None):
        self.result, self.failure, self.ended = result, failure, True
        await self._tell()

    async def _tell(self):
        async with self.changed:
            self.changed.notify_all()

    async def news(self, count):
        """Waits for more than `count` deltas, or the end."""
        async with self.changed:
            await self.changed.wait_for(
                lambda: not self.frozen and (self.ended or len(self.deltas) > count)
            )


@dataclass
class _Answered:
    """A question with its answer."""

    entry_id: str
    request: semantic_pb2.StoreSemanticRequest
    basis: int


class FakeCache(CacheServiceServicer):
    """A cache that keeps everything, by tenant and key.

    Attributes:
        fault: Raised by every call where set.
        faults: Raised by the calls of these names.
        degraded: Whether its store is said to be away.
        hold: Every call waits for it.
        holds: Calls of these names wait for it.
        calls: How often each method was called.
        wants_refresh: Whether a lease comes with each hit.
        wants_verification: Whether a verification is asked for with each semantic match.
        sure: Whether a question that is alike is a hit, else a candidate.
        threshold: Least similarity that counts.
        outcomes: Reports on semantic matches.
        invalidations: Requests to invalidate, with their tenants.
        followed: Set whenever a caller begins to wait for another's answer.
        refused_tenants: Whose invalidations fail.
        failures: What is known to fail, by key.
        answered: Answers by question, in their partitions.
        fills: How fills have ended: `commit`, `hand_over`, `abort` or `cut`.
        semantic_lookups: Questions looked up, in the order they came.
        inference_controls: How the answers to prompts are to be kept, in the order they came.
        hold_completion: The end of a streamed hit waits for it.
    """

    def __init__(self) -> None:
        self.fault: ServiceError | None = None
        self.faults: dict[str, ServiceError] = {}
        self.degraded = False
        self.hold: asyncio.Event | None = None
        self.holds: dict[str, asyncio.Event] = {}
        self.entries: dict[bytes, object] = {}
        self.calls: Counter[str] = Counter()
        self.semantic_lookups: list[semantic_pb2.LookupSemanticRequest] = []
        self.wants_refresh = False
        self.wants_verification = False
        self.sure = True
        self.threshold = 0.8
        self.answered: dict[bytes, list[_Answered]] = defaultdict(list)
        self.outcomes: asyncio.Queue[semantic_pb2.ReportOutcomeRequest] = asyncio.Queue()
        self.invalidations: asyncio.Queue[tuple[str, list[str]]] = asyncio.Queue()
        self.followed = asyncio.Event()
        self.refused_tenants: set[str] = set()
        self.failures: dict[bytes, cache.Failure] = {}
        self.fills: asyncio.Queue[str] = asyncio.Queue()
        self.inference_controls: list[control_pb2.StoreControl] = []
        self.hold_completion: asyncio.Event | None = None
        self._flights: dict[bytes, _Flight] = {}
        self._clock = 0
        self._epochs: dict[tuple[str, bytes], int] = {}
        self._keys_by_custom_tag: dict[tuple[str, str], set[bytes]] = defaultdict(set)

    async def LookupEmbeddings(self, request, context):
        await self._enter("LookupEmbeddings", context)
        response = cache.LookupEmbeddingsResponse(degraded=self.degraded)
        for text in request.texts:
            vector = self.entries.get(_key(context, request.space, text.encode()))
            response.lookups.add(outcome=_outcome(vector), vector=vector)
        return response

    async def StoreEmbeddings(self, request, context):
        await self._enter("StoreEmbeddings", context)
        for entry in request.entries:
            self.entries[_key(context, request.space, entry.text.encode())] = entry.vector
        return cache.StoreEmbeddingsResponse(stored_count=len(request.entries))

    async def LookupInference(self, request, context):
        await self._enter("LookupInference", context)
        key = _key(context, request.key)
        if request.control.bypass:
            bypassed = cache.LookupInferenceResponse(outcome=cache.LOOKUP_OUTCOME_BYPASSED)
            bypassed.read_time.FromNanoseconds(self._tick())
            return bypassed
        if not request.HasField("flight"):
            return self._found(key) or self._missed()
        waited = False
        while True:
            found = self._found(key)
            if found is not None:
                if waited:
                    found.outcome = cache.LOOKUP_OUTCOME_HIT_COALESCED
                return found
            flight = self._flights.get(key)
            if flight is None:
                return self._missed(self._lease(key))
            waited = True
            self._follow()
            try:
                async with asyncio.timeout(request.flight.wait_limit.ToNanoseconds() / 1e9):
                    while not flight.ended:
                        await flight.news(len(flight.deltas))
            except TimeoutError:
                return cache.LookupInferenceResponse(outcome=cache.LOOKUP_OUTCOME_MISS_WAITED)
            if flight.result is not None:
                return cache.LookupInferenceResponse(
                    outcome=cache.LOOKUP_OUTCOME_HIT_COALESCED, inference=flight.result
                )

    async def StreamInference(self, request, context):
        await self._enter("StreamInference", context)
        key = _key(context, request.key)
        flight = self._flights.get(key)
        found = self._found(key)
        if found is not None:
            inference = cache.Inference.FromString(found.inference.SerializeToString())
            found.ClearField("inference")
            yield cache.StreamInferenceResponse(started=found)
            if inference.text:
                yield cache.StreamInferenceResponse(text_delta=inference.text)
                if self.hold_completion is not None:
                    await self.hold_completion.wait()
                yield cache.StreamInferenceResponse(completed=inference)
        elif flight is not None:
            async for event in self._tail(key, flight):
                yield event
        else:
            yield cache.StreamInferenceResponse(started=self._missed(self._lease(key)))

    async def FillInference(self, requests, context):
        await self._enter("FillInference", context)
        key, flight, ending = b"", None, "cut"
        try:
            async for message in requests:
                kind = message.WhichOneof("event")
                if kind == "open":
                    key = _key(context, message.open.key)
                    flight = self._flights.get(key)
                    self._note_control(key, message.open.control, context)
                    await self._check_lease(flight, message.open.lease_token, context)
                elif kind == "text_delta":
                    await flight.add(message.text_delta)
                elif kind in ("commit", "hand_over"):
                    ending = kind
                    await self._check_lease(self._flights.get(key), flight.token, context)
                    result = getattr(message, kind)
                    result.text = "".join(flight.deltas)
                    if kind == "commit":
                        self.entries[key] = result
                    del self._flights[key]
                    await flight.end(result=result)
                elif kind == "abort":
                    ending = "abort"
                    self._remember(key, message.abort)
                    del self._flights[key]
                    await flight.end(failure=message.abort)
        finally:
            self.fills.put_nowait(ending)
            if flight is not None and self._flights.get(key) is flight:
                del self._flights[key]
                await flight.end(failure=cache.Failure())
        return cache.FillInferenceResponse(stored=True)

    async def StoreInference(self, request, context):
        await self._enter("StoreInference", context)
        key = _key(context, request.key)
        self.entries[key] = request.inference
        self._note_control(key, request.control, context)
        return cache.StoreInferenceResponse(stored=True)

    async def LookupChunks(self, request, context):
        await self._enter("LookupChunks", context)
        found = self.entries.get(_key(context, request.key))
        return cache.LookupChunksResponse(
            outcome=_outcome(found), chunks=found, degraded=self.degraded
        )

    async def StoreChunks(self, request, context):
        await self._enter("StoreChunks", context)
        self.entries[_key(context, request.key)] = request.chunks
        return cache.StoreChunksResponse(stored=True)

    async def LookupSemantic(self, request, context):
        await self._enter("LookupSemantic", context)
        self.semantic_lookups.append(request)
        response = semantic_pb2.LookupSemanticResponse(
            outcome=semantic_pb2.SEMANTIC_OUTCOME_MISS, degraded=self.degraded
        )
        response.read_time.FromNanoseconds(self._tick())
        if request.control.bypass:
            response.outcome = semantic_pb2.SEMANTIC_OUTCOME_BYPASSED
            return response
        tenant = _tenant(context)
        entries = self.answered[_key(context, request.partition)]
        scored = [
            (self._similarity(request, entry.request), entry)
            for entry in entries
            if self._is_valid(tenant, entry)
        ]
        best = max(scored, key=lambda each: each[0], default=(0.0, None))
        similarity, entry = best
        if entry is None or similarity < self.threshold:
            return response
        exact = entry.request.query == request.query
        grown = any(
            self._epoch(tenant, invalidation_pb2.Selector(grown_collection=name)) >= entry.basis
            for name in request.collections
        )
        match = response.match
        match.entry_id = entry.entry_id
        match.query = entry.request.query
        match.similarity = similarity
        match.answer.CopyFrom(entry.request.answer)
        match.evidence.extend(entry.request.evidence)
        match.age.FromSeconds(60)
        match.verification_wanted = self.wants_verification
        if grown:
            response.outcome = semantic_pb2.SEMANTIC_OUTCOME_CANDIDATE
            match.candidate_reason = semantic_pb2.CANDIDATE_REASON_COLLECTION_CHANGED
        elif exact:
            response.outcome = semantic_pb2.SEMANTIC_OUTCOME_HIT_EXACT
        elif self.sure:
            response.outcome = semantic_pb2.SEMANTIC_OUTCOME_HIT_SIMILAR
        else:
            response.outcome = semantic_pb2.SEMANTIC_OUTCOME_CANDIDATE
            match.candidate_reason = semantic_pb2.CANDIDATE_REASON_UNPROVEN
        return response

    async def StoreSemantic(self, request, context):
        await self._enter("StoreSemantic", context)
        entries = self.answered[_key(context, request.partition)]
        entries[:] = [each for each in entries if each.request.query != request.query]
        entry_id = f"entry-{self._tick()}"
        basis = request.control.basis_time.ToNanoseconds()
        entries.append(_Answered(entry_id, request, basis))
        return semantic_pb2.StoreSemanticResponse(stored=True, entry_id=entry_id)

    async def ReportOutcome(self, request, context):
        await self._enter("ReportOutcome", context)
        self.outcomes.put_nowait(request)
        return semantic_pb2.ReportOutcomeResponse(threshold=self.threshold)

    async def Invalidate(self, request, context):
        await self._enter("Invalidate", context)
        tenant = _tenant(context)
        assert not request.dry_run
        if tenant in self.refused_tenants:
            await abort(context, PeerUnavailable("redis", "away"))
        now = self._tick()
        for selector in request.selectors:
            self._epochs[tenant, selector.SerializeToString(deterministic=True)] = now
            for key in self._keys_by_custom_tag.pop((tenant, selector.tag.custom), ()):
                self.entries.pop(key, None)
        told = [_describe(each) for each in request.selectors]
        self.invalidations.put_nowait((tenant, told))
        return invalidation_pb2.InvalidateResponse(applied=True)

    def _note_control(self, key, control, context):
        self.inference_controls.append(control)
        for tag in control.tags:
            if tag.HasField("custom"):
                self._keys_by_custom_tag[_tenant(context), tag.custom].add(key)

    def lose_leases(self):
        """Forgets all leases, as if they had run out."""
        self._flights.clear()

    def freeze_tails(self):
        """Lets no follower have anything more."""
        for flight in self._flights.values():
            flight.frozen = True

    @property
    def now_ns(self):
        """The time by its clock."""
        return self._clock

    @property
    def semantic_requests(self):
        """The answers kept by question."""
        return [entry.request for entries in self.answered.values() for entry in entries]

    async def _tail(self, key, flight):
        self._follow()
        count = 0
        while not flight.deltas and not flight.ended:
            await flight.news(0)
        if not flight.deltas and flight.result is None:
            yield cache.StreamInferenceResponse(started=self._missed(self._lease(key)))
            return
        started = cache.LookupInferenceResponse(outcome=cache.LOOKUP_OUTCOME_HIT_COALESCED)
        yield cache.StreamInferenceResponse(started=started)
        while True:
            for text in flight.deltas[count:]:
                count += 1
                yield cache.StreamInferenceResponse(text_delta=text)
            if flight.ended and count == len(flight.deltas):
                break
            await flight.news(count)
        if flight.result is not None:
            yield cache.StreamInferenceResponse(completed=flight.result)
            return
        interrupted = cache.FillInterrupted(failure=flight.failure)
        if key not in self._flights:
            interrupted.lease.token = self._lease(key)
        yield cache.StreamInferenceResponse(interrupted=interrupted)

    def _found(self, key):
        failure = self.failures.get(key)
        if failure is not None:
            return cache.LookupInferenceResponse(
                outcome=cache.LOOKUP_OUTCOME_HIT_NEGATIVE, failure=failure
            )
        found = self.entries.get(key)
        if found is None:
            return None
        response = cache.LookupInferenceResponse(
            outcome=cache.LOOKUP_OUTCOME_HIT_SHARED, inference=found, degraded=self.degraded
        )
        response.read_time.FromNanoseconds(self._tick())
        if self.wants_refresh and key not in self._flights:
            response.lease.token = self._lease(key)
        return response

    def _missed(self, token=""):
        response = cache.LookupInferenceResponse(
            outcome=cache.LOOKUP_OUTCOME_MISS, degraded=self.degraded
        )
        response.read_time.FromNanoseconds(self._tick())
        if token:
            response.lease.token = token
        return response

    def _lease(self, key):
        token = f"lease-{self._tick()}"
        self._flights[key] = _Flight(token)
        return token

    def _remember(self, key, failure):
        if failure.kind in (cache.FAILURE_KIND_MODEL_NOT_FOUND, cache.FAILURE_KIND_REJECTED):
            failure.remaining.FromSeconds(_REMEMBERED_SECONDS)
            self.failures[key] = failure

    async def _check_lease(self, flight, token, context):
        if flight is None or flight.token != token:
            lost = RelayedError(
                "The lease is lost.",
                code=StatusCode.FAILED_PRECONDITION,
                reason="LEASE_LOST",
                metadata={"field": "lease_token"},
            )
            await abort(context, lost)

    def _follow(self):
        self.followed.set()

    def _similarity(self, request, kept):
        if kept.query == request.query:
            return 1.0
        if not request.HasField("vector"):
            return 0.0
        first, second = (
            np.frombuffer(each.vector.float32_le, dtype="<f4") for each in (request, kept)
        )
        return float(np.dot(first, second))

    def _is_valid(self, tenant, entry):
        return all(
            self._epoch(tenant, invalidation_pb2.Selector(tag=tag)) < entry.basis
            for tag in entry.request.control.tags
        )

    def _epoch(self, tenant, selector):
        return self._epochs.get((tenant, selector.SerializeToString(deterministic=True)), 0)

    def _tick(self):
        self._clock += 1
        return self._clock

    async def _enter(self, name, context):
        self.calls[name] += 1
        for gate in (self.hold, self.holds.get(name)):
            if gate is not None:
                await gate.wait()
        await abort(context, self.fault or self.faults.get(name))


def _describe(selector):
    if selector.HasField("grown_collection"):
        return f"growth {selector.grown_collection}"
    tag = selector.tag
    if tag.HasField("custom"):
        return tag.custom
    if tag.HasField("document"):
        return f"document {tag.document.collection}/{tag.document.document_id}"
    return f"collection {tag.collection}"


def _outcome(found):
    return cache.LOOKUP_OUTCOME_MISS if found is None else cache.LOOKUP_OUTCOME_HIT_SHARED


def _tenant(context):
    return dict(context.invocation_metadata()).get(TENANT_HEADER, "")


def _key(context, message, suffix=b""):
    key = message.SerializeToString(deterministic=True)
    return _tenant(context).encode() + b"\0" + key + b"\0" + suffix


async def abort(context, error):
    """Ends a call with an error, if there is one."""
    if error is None:
        return
    status = to_status(error, domain="fake.pannier", request_id="0")
    details = ((STATUS_DETAILS_KEY, status.SerializeToString()),)
    await context.abort(grpc_code(error.status_code), status.message, details)
