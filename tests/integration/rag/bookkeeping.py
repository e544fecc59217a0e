"""What tests of the books share."""

import asyncpg

from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1.usage_service_pb2_grpc import UsageAdminServiceStub, UsageServiceStub
from services.rag.core.prices import parse_prices
from tests.integration.rag.conftest import as_tenant

DOCUMENTS = {
    "fox.md": "# Animals\n\nThe red fox jumps over the lazy dog. Foxes are quick.\n",
    "button.md": "# Machine\n\nPress the blue button to stop the machine. It stops in 5 seconds.\n",
}
# Good enough to be kept, as long as the question is about the button.
GOOD = "Press the blue button to stop the machine [1]."
QUESTION = "How do I stop the machine?"
ACME = as_tenant("acme")
ANN = [*ACME, ("x-pannier-user-id", "ann")]
BOB = [*ACME, ("x-pannier-user-id", "bob")]
PRICED = {"prices": parse_prices("talker*=1/2, all-minilm*=0.1/0"), "currency": "EUR"}


def usage_stub(rag):
    return UsageServiceStub(rag.channel)


def admin_stub(rag):
    return UsageAdminServiceStub(rag.channel)


async def ask(rag, query=QUESTION, *, metadata=ANN, **fields):
    request = pb.QueryRequest(**({"collection": "docs", "query": query} | fields))
    return await rag.rag.Query(request, metadata=metadata, timeout=20)


async def rows(rag, statement, *arguments):
    connection = await asyncpg.connect(rag.database_dsn)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()
