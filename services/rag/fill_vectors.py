"""Makes the vectors of chunks that were stored without theirs, as soon as something embeds again.

One process does it at a time, so that no text is embedded twice.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.common.identity import Identity, current_identity
from services.common.metrics import Metrics
from services.rag.chunk_vectors import ChunkVectors, is_outage
from services.rag.core.documents import MissingVector
from services.rag.core.errors import EmbeddingModelMismatch, ModelNotFound
from services.rag.jobs_port import IngestJobs
from services.rag.models import ModelCatalogue, model_identity, split_identity
from services.rag.ports import ModelFacts
from services.rag.store_port import DocumentStore

__all__ = ["VectorFill"]

_logger = logging.getLogger(__name__)

_ROUND_SIZE = 512
_INTERVAL_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0

_Place = tuple[str, str, str]
"""Tenant, collection and identity of the model, empty where nothing has settled it."""


class VectorFill:
    """Fills in vectors.

    Args:
        store: Has the chunks.
        vectors: Makes vectors.
        models: Models of the fleet.
        jobs: Lets one process do it at a time.
        clock: Waits between one attempt and the next.
        metrics: Receives how many were filled in.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        vectors: ChunkVectors,
        models: ModelCatalogue,
        jobs: IngestJobs,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._vectors = vectors
        self._models = models
        self._jobs = jobs
        self._clock = clock
        self._metrics = metrics
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """Says that there are new chunks without their vectors."""
        self._wanted.set()

    async def run(self) -> None:
        """Fills in again and again; never returns."""
        pause = _FIRST_PAUSE_SECONDS
        failing = False
        while True:
            # Before the look: what comes in meanwhile is looked for again.
            self._wanted.clear()
            try:
                async with self._jobs.alone("vectors") as alone:
                    if alone:
                        await self._fill_all()
            except ServiceError as error:
                if not failing:
                    _logger.warning("chunks wait for vectors", extra={"cause": error.message})
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) if failing else _FIRST_PAUSE_SECONDS
                failing = True
                await self._clock.sleep(pause)
            except Exception:
                # Later chunks must get theirs, whatever is wrong with these.
                _logger.exception("filling in vectors failed")
                await self._clock.sleep(_LONGEST_PAUSE_SECONDS)
            else:
                failing = False
                await self._wait()

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_INTERVAL_SECONDS):
                await self._wanted.wait()

    async def _fill_all(self) -> None:
        """Goes once through all chunks that lack a vector.

        Raises:
            ServiceError: Nothing embeds now, or some chunks could not be embedded.
        """
        after = -1
        failure: ServiceError | None = None
        while missing := await self._store.missing_vectors(limit=_ROUND_SIZE, after=after):
            after = missing[-1].chunk_id
            for place, chunks in _by_place(missing).items():
                failure = await self._fill(place, chunks) or failure
        if failure is not None:
            raise failure

    async def _fill(self, place: _Place, chunks: Sequence[MissingVector]) -> ServiceError | None:
        """Fills in the vectors of a collection; returns why some cannot be made, if so.

        Raises:
            ServiceError: Nothing embeds now.
        """
        tenant_id, collection, identity = place
        current_identity.set(Identity(tenant_id))
        try:
            model = await self._model(collection, identity)
            texts = {chunk.text_digest: chunk.text for chunk in chunks}
            vectors = await self._vectors.embed(model, list(texts.values()))
            made = dict(zip(texts, vectors, strict=True))
            count = await self._store.put_vectors(
                tenant_id,
                collection,
                {chunk.chunk_id: made[chunk.text_digest] for chunk in chunks},
                embedding_model=model_identity(model),
            )
        except (EmbeddingModelMismatch, ModelNotFound) as error:
            return error
        except ServiceError as error:
            if is_outage(error):
                raise
            if len(chunks) == 1:
                return error
        else:
            self._metrics.count("rag_vectors_filled_total", amount=count)
            return None
        # Some text cannot be embedded; the others can.
        half = len(chunks) // 2
        first = await self._fill(place, chunks[:half])
        return await self._fill(place, chunks[half:]) or first

    async def _model(self, collection: str, identity: str) -> ModelFacts:
        """Finds the model of a collection; raises `EmbeddingModelMismatch` or `ModelNotFound`."""
        model = await self._models.embedding_model(split_identity(identity)[0])
        if identity and identity != model_identity(model):
            raise EmbeddingModelMismatch(collection, stored=identity, given=model_identity(model))
        return model


def _by_place(missing: Sequence[MissingVector]) -> dict[_Place, list[MissingVector]]:
    places: defaultdict[_Place, list[MissingVector]] = defaultdict(list)
    for chunk in missing:
        places[chunk.tenant_id, chunk.collection, chunk.embedding_model or ""].append(chunk)
    return places
