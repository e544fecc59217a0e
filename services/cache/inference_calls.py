"""Calls for answers of models, and for the leases to compute them."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from pannier.cache.v1 import cache_service_pb2 as pb
from services.cache import convert, inference_convert
from services.cache.background import Background
from services.cache.call_spans import describe_finding, describe_hit, describe_writes
from services.cache.core.errors import LeaseLost
from services.cache.core.fills import Part, Piece
from services.cache.core.inference import Finding, Kind
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.core.leases import GenerationTimes
from services.cache.core.model import Kept, Scope
from services.cache.fill_inference import Fill, InferenceFills
from services.cache.flights import Flights
from services.cache.inference_validate import validate, validate_event
from services.cache.lease_origins import new_nonce
from services.cache.lease_store import LeaseStore
from services.cache.leases import Leases
from services.cache.levels import Levels
from services.cache.look_up_inference import InferenceLookups
from services.cache.notices import Notices
from services.cache.store_inference import InferenceStores
from services.cache.stream_inference import Followed, InferenceStreams
from services.cache.tails import Tails
from services.common.errors import StreamProtocolViolation
from services.common.identity import current_identity

__all__ = ["InferenceCalls"]

_LAYER = Layer.INFERENCE
_EXPECTED = "a delta, commit, hand_over or abort"
_PARTS = {"text_delta": Part.TEXT, "thinking_delta": Part.THINKING}


class InferenceCalls:
    """Answers for answers of models.

    Args:
        levels: Where they are kept.
        notices: Tells what other replicas have done; must not run yet.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        levels: Levels,
        notices: Notices,
        *,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._levels = levels
        self._times = GenerationTimes()
        self._background = Background()
        origin = new_nonce().encode()
        store = LeaseStore(
            levels.shared, store_clock=levels.store_clock, clock=levels.clock, origin=origin
        )
        self._leases = Leases(
            store,
            is_available=lambda: levels.shared.available,
            store_clock=levels.store_clock,
            background=self._background,
            notices=notices,
            clock=levels.clock,
            recorder=levels.recorder,
        )
        self._tails = Tails(levels.shared, levels.clock, self._background)
        self._flights = Flights(
            levels,
            self._leases,
            self._tails,
            notices=notices,
            background=self._background,
            origin=origin,
        )
        self._lookups = InferenceLookups(
            levels,
            self._leases,
            self._flights,
            self._times,
            remaining_seconds=remaining_seconds,
        )
        self._streams = InferenceStreams(
            levels, self._lookups, self._leases, read_pieces=inference_convert.read_pieces
        )
        self._stores = InferenceStores(levels, self._leases, self._flights, self._times)
        self._fills = InferenceFills(
            levels,
            self._leases,
            self._flights,
            self._stores,
            store,
            self._times,
            background=self._background,
        )

    def under_way(self) -> dict[str, int]:
        """Returns how much goes on at present, by its kind; all of it ends with the calls."""
        return {
            "leases": self._leases.given_count,
            "lines": len(self._flights),
            "texts": self._flights.text_count,
            "tails": len(self._tails),
            "tasks": len(self._background),
        }

    def end_waits(self) -> None:
        """Has nobody wait for others any longer; when no more calls are to come."""
        self._flights.end_waits()

    async def close(self) -> None:
        """Ends what goes on beside the calls; when no more calls are under way."""
        self._leases.close()
        await self._background.close()

    async def look_up_inference(
        self, request: pb.LookupInferenceRequest
    ) -> pb.LookupInferenceResponse:
        """Looks up the answer of a model, or gives the right to compute it."""
        validate(request)
        finding = await self._lookups.look_up(
            inference_convert.query(request, tenant_id=_tenant_id(), pepper=self._levels.pepper)
        )
        describe_finding(finding)
        if finding.hit is None:
            return inference_convert.lookup_response(finding)
        inference = pb.Inference.FromString(finding.hit.payload)
        self._note_saved(inference, coalesced=finding.kind is Kind.COALESCED)
        return inference_convert.lookup_response(finding, inference=inference)

    async def stream_inference(
        self, request: pb.StreamInferenceRequest
    ) -> AsyncGenerator[pb.StreamInferenceResponse, None]:
        """Sends the answer of a model as it is there, or gives the right to compute it."""
        validate(request)
        query = inference_convert.query(request, tenant_id=_tenant_id(), pepper=self._levels.pepper)
        async with aclosing(self._streams.stream(query)) as events:
            async for event in events:
                response = inference_convert.stream_response(event)
                if isinstance(event, Finding):
                    describe_finding(event)
                elif isinstance(event, Followed):
                    describe_hit(event.hit)
                    self._note_saved(response.completed, coalesced=event.coalesced)
                yield response

    async def fill_inference(
        self, requests: AsyncIterator[pb.FillInferenceRequest]
    ) -> pb.FillInferenceResponse:
        """Takes the answer of a model while it is generated."""
        first = await anext(requests, None)
        kind = _kind(first)
        if first is None or kind != "open":
            raise StreamProtocolViolation(expected="open", actual=kind)
        validate_event(first)
        key, scope = self._entry(first.open.key)
        keeping = convert.keeping(first.open.control)
        try:
            async with self._fills.open(key, scope, first.open.lease_token, keeping) as fill:
                kept = await self._take(first.open, fill, requests)
        except LeaseLost:
            raise LeaseLost("open.lease_token") from None
        describe_writes(_LAYER, kept, fill.size_bytes)
        return pb.FillInferenceResponse(stored=kept.stored_count == 1, degraded=kept.degraded)

    async def _take(
        self, opening: pb.FillOpening, fill: Fill, requests: AsyncIterator[pb.FillInferenceRequest]
    ) -> Kept:
        """Takes the messages of a fill that follow its opening."""
        async for request in requests:
            validate_event(request)
            match request.WhichOneof("event"):
                case "text_delta" | "thinking_delta" as kind:
                    fill.append(Piece(_PARTS[kind], getattr(request, kind)))
                case "commit" | "hand_over" as kind:
                    inference = getattr(request, kind)
                    inference.text, inference.thinking = fill.text, fill.thinking
                    return await fill.commit(
                        inference_convert.new_inference(opening.key, inference),
                        for_waiters=kind == "hand_over",
                    )
                case "abort":
                    released = await fill.abort(inference_convert.failure(request.abort))
                    return Kept((), degraded=released.degraded)
                case _:
                    raise StreamProtocolViolation(expected=_EXPECTED, actual=_kind(request))
        raise StreamProtocolViolation(expected=_EXPECTED, actual="the end")

    async def store_inference(self, request: pb.StoreInferenceRequest) -> pb.StoreInferenceResponse:
        """Keeps the complete answer of a model."""
        validate(request)
        key, scope = self._entry(request.key)
        inference = inference_convert.new_inference(request.key, request.inference)
        keeping = convert.keeping(request.control)
        if request.lease_token:
            kept = await self._stores.store_leased(
                key, scope, request.lease_token, inference, keeping
            )
        else:
            kept = await self._stores.store(key, scope, inference, keeping)
        describe_writes(_LAYER, kept, len(inference.payload))
        return pb.StoreInferenceResponse(stored=kept.stored_count == 1, degraded=kept.degraded)

    async def extend_lease(self, request: pb.ExtendLeaseRequest) -> pb.ExtendLeaseResponse:
        """Prolongs a lease."""
        validate(request)
        key, scope = self._entry(request.key)
        seconds = (
            convert.seconds(request.lease_time)
            if request.HasField("lease_time")
            else self._times.lease_seconds(scope.model_digest)
        )
        extended = await self._leases.extend(key, request.lease_token, seconds)
        return pb.ExtendLeaseResponse(
            duration=convert.duration(extended.seconds), degraded=extended.degraded
        )

    async def release_lease(self, request: pb.ReleaseLeaseRequest) -> pb.ReleaseLeaseResponse:
        """Gives a lease back."""
        validate(request)
        key, _ = self._entry(request.key)
        failure = (
            inference_convert.failure(request.failure) if request.HasField("failure") else None
        )
        released = await self._leases.release(key, request.lease_token, failure)
        return pb.ReleaseLeaseResponse(
            remembered_for=convert.duration(released.remembered_seconds),
            degraded=released.degraded,
        )

    def _entry(self, key: pb.InferenceKey) -> tuple[EntryKey, Scope]:
        return inference_convert.entry(key, tenant_id=_tenant_id(), pepper=self._levels.pepper)

    def _note_saved(self, inference: pb.Inference, *, coalesced: bool) -> None:
        self._levels.recorder.saved(
            _LAYER,
            inference_convert.savings(inference),
            tenant_id=_tenant_id(),
            coalesced=coalesced,
        )


def _tenant_id() -> str:
    return current_identity.get().tenant_id


def _kind(request: pb.FillInferenceRequest | None) -> str:
    """Names a message as errors do."""
    return "the end" if request is None else request.WhichOneof("event") or "an unknown message"
