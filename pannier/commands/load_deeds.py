"""What `pannier load` does beside its questions: changes documents, and calls answers wrong.

All of it happens in a collection and a namespace of its own, so that nothing of the user's is
touched. The collection is deleted in the end; answers that are called wrong are removed by that.
"""

import asyncio
import hashlib
import secrets
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage

from pannier.cache.v1 import cache_service_pb2_grpc, semantic_pb2
from pannier.client import RemoteError
from pannier.commands.connection import Unreachable, connect
from pannier.commands.load_checks import Services
from pannier.common.v1 import vector_pb2
from pannier.load.scenario import Phase
from pannier.rag.v1 import corpus_service_pb2 as corpus_pb
from pannier.rag.v1 import corpus_service_pb2_grpc
from pannier.rag.v1 import rag_service_pb2 as rag_pb

__all__ = ["Deeds"]

_CALL_SECONDS = 10.0
# As an answer that was given for a question in other words.
_SIMILARITY = 0.97


def _name() -> str:
    return f"pannier-load-{secrets.token_hex(4)}"


@dataclass(slots=True, kw_only=True)
class Deeds:
    """Does what phases say, until cancelled.

    Attributes:
        services: Where the services are.
        tenant: Who does it.
        told: Receives what does not work, in words.
        problems: What could not be undone.
    """

    services: Services
    tenant: str
    told: Callable[[str], None]
    problems: list[str] = field(default_factory=list)
    _name: str = field(default_factory=_name)
    _count: int = 0
    _stored: bool = False

    async def run(self, phase: Phase) -> None:
        """Does what a phase says, again and again; never returns by itself."""
        async with asyncio.TaskGroup() as tasks:
            if phase.changes_every_seconds:
                tasks.create_task(self._repeat(self._change, phase.changes_every_seconds))
            if phase.verdicts_every_seconds:
                tasks.create_task(self._repeat(self._judge, phase.verdicts_every_seconds))

    async def undo(self) -> None:
        """Deletes the collection, where there is one."""
        if not self._stored:
            return
        request = corpus_pb.DeleteCollectionRequest(collection=self._name, confirm=self._name)
        try:
            async with connect("rag", address=self.services.rag, tenant=self.tenant) as connection:
                stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)
                await stub.DeleteCollection(request, timeout=_CALL_SECONDS)
            self._stored = False
        except (RemoteError, Unreachable) as error:
            self._note_left(str(error))
        except asyncio.CancelledError:
            self._note_left("broken off")
            raise

    def _note_left(self, cause: str) -> None:
        self.problems.append(
            f"collection {self._name} of tenant {self.tenant} could not be deleted ({cause}); "
            f"`pannier collections delete {self._name} --tenant {self.tenant}` does"
        )

    async def _repeat(self, do: Callable[[], Awaitable[None]], seconds: float) -> None:
        failing = False
        while True:
            try:
                await do()
                failing = False
            except (RemoteError, Unreachable) as error:
                # Services may be away: that is what such a run is for. Once is enough.
                if not failing:
                    self.told(str(error))
                failing = True
            await asyncio.sleep(seconds)

    async def _change(self) -> None:
        """Stores a document with another text than before."""
        self._count += 1
        text = f"The lamp at the end of the pier was lit {self._count} times.\n".encode()

        async def messages() -> AsyncIterator[corpus_pb.IngestDocumentsRequest]:
            options = corpus_pb.IngestOptions(collection=self._name)
            yield corpus_pb.IngestDocumentsRequest(options=options)
            header = corpus_pb.DocumentHeader(document_id="lamp.txt", media_type="text/plain")
            yield corpus_pb.IngestDocumentsRequest(header=header)
            content = corpus_pb.DocumentContent(data=text, last=True)
            yield corpus_pb.IngestDocumentsRequest(content=content)

        async with connect("rag", address=self.services.rag, tenant=self.tenant) as connection:
            stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)
            # Before it is: should it break off, the document may be there all the same.
            self._stored = True
            async for _ in stub.IngestDocuments(messages(), timeout=_CALL_SECONDS):
                pass

    async def _judge(self) -> None:
        """Has the cache keep an answer, and says that it was wrong for another question."""
        self._count += 1
        partition = semantic_pb2.SemanticPartition(
            embedding_model_digest=hashlib.sha256(self._name.encode()).hexdigest(),
            namespace=self._name,
        )
        answer = AnyMessage()
        answer.Pack(rag_pb.QueryResponse(answer="At the end of the pier."))
        vector = vector_pb2.EmbeddingVector(float32_le=struct.pack("<2f", 1.0, 0.0), dimension=2)
        store = semantic_pb2.StoreSemanticRequest(
            partition=partition,
            query=f"Where is the lamp that was lit {self._count} times?",
            vector=vector,
            answer=answer,
        )
        async with connect("cache", address=self.services.cache, tenant=self.tenant) as connection:
            stub: Any = cache_service_pb2_grpc.CacheServiceStub(connection.channel)
            stored = await stub.StoreSemantic(store, timeout=_CALL_SECONDS)
            if not stored.entry_id:
                self.told("the cache keeps no answer that could be called wrong")
                return
            report = semantic_pb2.ReportOutcomeRequest(
                partition=partition,
                entry_id=stored.entry_id,
                similarity=_SIMILARITY,
                verdict=semantic_pb2.MATCH_VERDICT_WRONG,
                judge=semantic_pb2.MATCH_JUDGE_PERSON,
            )
            await stub.ReportOutcome(report, timeout=_CALL_SECONDS)
