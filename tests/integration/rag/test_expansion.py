"""Other wordings of a question find what its own words do not, and are never in the way."""

import json

import pytest

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import PeerUnavailable
from tests.integration.rag.conftest import as_tenant

DOCUMENTS = {
    "fox.md": "# Animals\n\nThe red fox jumps over the lazy dog. Foxes are quick.\n",
    "button.md": "# Machine\n\nPress the blue button to halt the engine. It stops in 5 seconds.\n",
}
QUESTION = "How is work brought to rest?"
WORDINGS = {"queries": ["press the blue button", "halt the engine"]}
ACME = as_tenant("acme")


@pytest.fixture
async def filled(rag):
    await rag.ingest(DOCUMENTS)
    await rag.told()
    return rag


async def retrieve(rag, expansion=pb.EXPANSION_POLICY_MULTI_QUERY):
    options = pb.RetrievalOptions(expansion=expansion, arms=pb.SEARCH_ARMS_KEYWORD)
    request = pb.RetrieveRequest(collection="docs", query=QUESTION, options=options)
    return await rag.rag.Retrieve(request, metadata=ACME, timeout=20)


async def test_other_wordings_find_what_the_question_does_not_and_are_made_once(filled):
    filled.balancer.answer = json.dumps(WORDINGS)
    without = await retrieve(filled, pb.EXPANSION_POLICY_NONE)
    assert not without.passages
    assert not filled.balancer.chats
    for _ in range(2):
        response = await retrieve(filled)
        assert list(response.expansions) == WORDINGS["queries"]
        assert response.passages[0].document_id == "button.md"
        assert not response.degradations
    (prompt,) = filled.balancer.chats
    assert prompt.sampling.temperature == 0
    assert QUESTION in prompt.messages[1].content
    assert "blue button" not in str(prompt)


async def test_without_other_wordings_the_question_is_searched_for_alone(filled):
    filled.balancer.answer = "I cannot do that."
    unusable = await retrieve(filled, pb.EXPANSION_POLICY_DECOMPOSE)
    filled.balancer.fault = PeerUnavailable("fleet", "gone")
    unavailable = await retrieve(filled)
    for response in (unusable, unavailable):
        (degradation,) = response.degradations
        assert degradation.reason == pb.DEGRADATION_REASON_EXPANSION_SKIPPED
        assert not response.expansions
