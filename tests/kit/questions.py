"""A question with documents that answer it, and calls that ask it."""

from pannier.rag.v1 import rag_service_pb2 as pb

__all__ = ["ACME", "ANSWER", "DOCUMENTS", "QUESTION", "ask", "query", "reasons", "stream"]

ACME = [("x-pannier-tenant-id", "acme")]
DOCUMENTS = {
    "fox.md": "# Animals\n\nThe red fox jumps over the lazy dog. Foxes are quick.\n",
    "button.md": "# Machine\n\nPress the blue button to stop the machine. It stops in 5 seconds.\n",
    "cheese.md": "# Food\n\nCheese is made from milk. Milk comes from cows.\n",
}
QUESTION = "How do I stop the machine?"
ANSWER = "Press the blue button to stop the machine [1]. It stops in 5 seconds [1]."


def query(text=QUESTION, **options):
    """The request that asks."""
    return pb.QueryRequest(**{"collection": "docs", "query": text, **options})


async def ask(rag, request=None, *, seconds=20):
    """Asks, and returns the answer."""
    return await rag.rag.Query(request or query(), metadata=ACME, timeout=seconds)


async def stream(rag, request=None, *, seconds=20):
    """Asks, and returns all events."""
    call = rag.rag.StreamQuery(
        pb.StreamQueryRequest(query=request or query()), metadata=ACME, timeout=seconds
    )
    return [event async for event in call]


def reasons(degradations):
    """The reasons of degradations, without what all names begin with."""
    return {pb.DegradationReason.Name(each.reason).split("_", 2)[2] for each in degradations}
