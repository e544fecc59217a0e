"""Passages are found, judged, thinned out and joined, over the running service."""

import json

import pytest

from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import quality_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from tests.integration.rag.conftest import as_tenant, messages
from tests.kit.cross_encoder import write_cross_encoder
from tests.kit.rpc import error_of

ACME = as_tenant("acme")
DOCUMENTS = {
    "fox.md": "# Animals\n\nThe red fox jumps over the lazy dog. Foxes are quick.\n",
    "button.md": "# Machine\n\nPress the blue button to stop the machine. It stops in 5 seconds.\n",
    "lever.md": "# Machine\n\nPull the lever to start the machine again.\n",
    "cheese.md": "# Food\n\nCheese is made from milk. Milk comes from cows.\n",
}
COPY = "# Machine\n\nPress the blue button to stop the machine.\nIt stops in 5 seconds.\n\n"
QUESTION = "How do I stop the machine?"
# Small chunks, so that a page has several.
SMALL_CHUNKS = {"chunk_token_count": 32, "maximum_chunk_token_count": 50}


@pytest.fixture
async def filled(rag):
    await rag.ingest(DOCUMENTS)
    return rag


async def retrieve(rag, question=QUESTION, *, metadata=ACME, **options):
    request = pb.RetrieveRequest(
        collection="docs", query=question, options=pb.RetrievalOptions(**options)
    )
    return await rag.rag.Retrieve(request, metadata=metadata, timeout=20)


def documents(response):
    return [each.document_id for each in response.passages]


def reasons(response):
    return [
        pb.DegradationReason.Name(each.reason).removeprefix("DEGRADATION_REASON_")
        for each in response.degradations
    ]


async def test_confidence_tells_a_question_of_the_collection_from_another(filled):
    answered = await retrieve(filled, "Press the blue button to stop the machine")
    assert answered.confidence.band == quality_pb2.CONFIDENCE_BAND_HIGH
    assert answered.confidence.coverage_ratio == pytest.approx(1.0)
    assert answered.confidence.HasField("vector_percentile")
    assert not answered.confidence.HasField("rerank_ratio")
    foreign = await retrieve(filled, "Quarterly revenue forecast Antarctica penguins")
    assert foreign.confidence.band == quality_pb2.CONFIDENCE_BAND_LOW
    assert foreign.confidence.score < answered.confidence.score


@pytest.mark.parametrize(
    ("arms", "by_words", "by_meaning"),
    [(pb.SEARCH_ARMS_KEYWORD, True, False), (pb.SEARCH_ARMS_VECTOR, False, True)],
)
async def test_one_arm_alone_is_searched_where_it_is_asked_for(filled, arms, by_words, by_meaning):
    response = await retrieve(filled, arms=arms)
    assert documents(response)[0] == "button.md"
    for each in response.passages:
        assert each.score.HasField("keyword_rank") is by_words
        assert each.score.HasField("vector_rank") is by_meaning
    assert not response.degradations


async def test_a_copy_leaves_its_place_to_another_passage(rag):
    await rag.ingest({**DOCUMENTS, "copy.md": COPY})
    response = await retrieve(rag, passage_count=2)
    assert len({"button.md", "copy.md"}.intersection(documents(response))) == 1
    assert len(response.passages) == 2


@pytest.mark.parametrize("merge", [True, False])
async def test_what_follows_each_other_is_joined_to_the_documents_own_text(start_rag, merge):
    rag = await start_rag(**SMALL_CHUNKS)
    lines = [
        f"Rule {number}: the machine must be stopped before rule {number + 1} is followed here."
        for number in range(12)
    ]
    await rag.ingest({"rules.md": "# Rules\n\n" + "\n\n\n".join(lines), **DOCUMENTS})
    response = await retrieve(rag, "machine stopped before rule", merge_neighbors=merge)
    stored = await rag.corpus.GetDocument(
        corpus.GetDocumentRequest(
            collection="docs", document_id="rules.md", view=corpus.DOCUMENT_VIEW_FULL
        ),
        metadata=ACME,
    )
    found = [each for each in response.passages if each.document_id == "rules.md"]
    for each in found:
        assert each.text == stored.document.text[each.char_start : each.char_end]
    longest = max(found, key=lambda each: len(each.text))
    assert (longest.text.count("\n\n\n") > 2) is merge
    assert len({each.passage_id for each in response.passages}) == len(response.passages)


async def test_passages_differ_where_that_is_asked_for(filled):
    plain = await retrieve(filled, passage_count=2, relevance_weight_ratio=1.0)
    assert documents(plain) == ["button.md", "lever.md"]
    varied = await retrieve(filled, passage_count=2, relevance_weight_ratio=0.2)
    assert documents(varied)[0] == "button.md"
    assert documents(varied)[1] != "lever.md"
    assert "load_vectors" in {stage.name for stage in varied.profile.stages}


async def test_filter_and_access_hold(rag):
    results = []
    for document_id, header in (
        ("secret.md", {"readers": ["user:ann"]}),
        ("tagged.md", {"tags": ["manual"]}),
        ("plain.md", {}),
    ):
        call = rag.corpus.IngestDocuments(
            messages({document_id: f"Stop the machine, says {document_id}."}, **header),
            metadata=ACME,
            timeout=20,
        )
        results += [each async for each in call]
    assert sorted(documents(await retrieve(rag))) == ["plain.md", "tagged.md"]
    ann = [*ACME, ("x-pannier-user-id", "ann")]
    assert "secret.md" in documents(await retrieve(rag, metadata=ann))
    assert documents(await retrieve(rag, filter={"any_tags": ["manual"]})) == ["tagged.md"]
    nothing = await retrieve(rag, filter={"any_tags": ["none"]})
    assert documents(nothing) == []
    assert nothing.confidence.band == quality_pb2.CONFIDENCE_BAND_LOW
    assert not nothing.degradations


async def test_all_that_is_wrong_with_a_request_is_named_at_once(rag):
    error = await error_of(
        retrieve(rag, " ", passage_count=10_000, relevance_weight_ratio=2, arms=9)
    )
    assert error.error_reason == "INVALID_FIELD"
    assert sorted(each.field for each in error.violations) == [
        "options.arms",
        "options.passage_count",
        "options.relevance_weight_ratio",
        "query",
    ]


async def test_a_cross_encoder_has_the_greater_say(start_rag, tmp_path):
    model = write_cross_encoder(tmp_path / "judge", {"milk": 8.0, "machine": -8.0})
    rag = await start_rag(rerank_model=str(model), rerank_time_limit_seconds=10.0)
    await rag.ingest(DOCUMENTS)
    judged = await retrieve(rag, rerank=pb.RERANK_POLICY_ON)
    assert documents(judged)[0] == "cheese.md"
    assert judged.passages[0].score.rerank_score > 0.99
    assert judged.confidence.rerank_ratio == judged.passages[0].score.rerank_score
    assert not judged.degradations
    stage = next(each for each in judged.profile.stages if each.name == "rerank")
    assert stage.item_count == len(DOCUMENTS)
    plain = await retrieve(rag, rerank=pb.RERANK_POLICY_OFF)
    assert documents(plain)[0] == "button.md"
    assert not plain.passages[0].score.HasField("rerank_score")


async def test_a_broken_cross_encoder_keeps_nobody_from_finding(start_rag, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"broken")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    rag = await start_rag(rerank_model=str(tmp_path))
    await rag.ingest(DOCUMENTS)
    response = await retrieve(rag, rerank=pb.RERANK_POLICY_ON)
    assert documents(response)[0] == "button.md"
    assert reasons(response) == ["RERANK_UNAVAILABLE"]
    assert "cannot be used as a cross-encoder" in response.degradations[0].detail


async def test_without_a_judge_only_a_wish_for_one_is_a_degradation(filled):
    assert reasons(await retrieve(filled, "unknown words")) == []
    assert reasons(await retrieve(filled, rerank=pb.RERANK_POLICY_ON)) == ["RERANK_UNAVAILABLE"]


async def test_a_model_of_the_fleet_judges_by_its_likelihood_of_yes(start_rag):
    rag = await start_rag(rerank_chat_model="talker", rerank_time_limit_seconds=10.0)
    rag.balancer.first_tokens = lambda prompt: (
        {"yes": -0.1, "no": -4.0} if "milk" in prompt else {" No": -0.1, " Yes": -4.0}
    )
    await rag.ingest(DOCUMENTS)
    response = await retrieve(rag, rerank=pb.RERANK_POLICY_ON)
    assert documents(response)[0] == "cheese.md"
    assert all(each.score.HasField("rerank_score") for each in response.passages)
    assert not response.degradations


async def test_other_wordings_find_what_the_question_does_not(filled):
    filled.balancer.answer = json.dumps({"queries": ["cheese made from milk"]})
    plain = await retrieve(filled, "quesos lecheros", arms=pb.SEARCH_ARMS_KEYWORD)
    assert documents(plain) == []
    wider = await retrieve(
        filled,
        "quesos lecheros",
        arms=pb.SEARCH_ARMS_KEYWORD,
        expansion=pb.EXPANSION_POLICY_MULTI_QUERY,
    )
    assert documents(wider) == ["cheese.md"]
    assert list(wider.expansions) == ["cheese made from milk"]
    assert "search_variants" in {stage.name for stage in wider.profile.stages}
