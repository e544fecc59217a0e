"""`pannier retrieve` against a service whose answers are written down here."""

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.rag.v1 import quality_pb2
from pannier.rag.v1 import rag_service_pb2 as pb

PASSAGE = pb.Passage(
    marker=1,
    document_id="guide.md",
    text="Llamas carry up to 30 kg.",
    char_start=10,
    char_end=35,
    score=pb.PassageScore(fused_score=0.9, vector_rank=2, vector_similarity=0.71),
)


@pytest.fixture
def asked(services):
    """The requests that arrived; each is answered with the passage."""
    requests: list[pb.RetrieveRequest] = []
    services.response = pb.RetrieveResponse(
        passages=[PASSAGE], profile=pb.Profile(total=Duration(nanos=5_000_000))
    )

    def answer(request, _context):
        requests.append(request)
        return services.response

    services.answers["Retrieve"] = answer
    return requests


def test_passages_are_shown_with_ranks_and_scores(services, asked):
    result = services.run("retrieve", "How much?", "-k", "3")
    assert "1  0.900  2 (0.71)      -  guide.md       10-35  Llamas carry" in result.stdout
    assert result.stdout.endswith("1 passages in 5.00 ms\n")
    assert asked[0].options.passage_count == 3


def test_confidence_and_other_wordings_are_told_of(services, asked):
    services.response.confidence.CopyFrom(
        quality_pb2.RetrievalConfidence(
            score=0.81,
            band=quality_pb2.CONFIDENCE_BAND_HIGH,
            coverage_ratio=0.9,
            vector_percentile=0.98,
            agreement_ratio=0.0,
        )
    )
    services.response.expansions.append("What do llamas bear?")
    result = services.run("retrieve", "How much?")
    assert "also searched for: What do llamas bear?" in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "1 passages in 5.00 ms · confidence high (0.81) · 90% of the question's words are in the "
        "best · 98% of chance pairs are less alike · 0% of the first are the same by meaning and "
        "by words"
    )


def test_what_the_judge_says_has_a_column_where_it_was_asked(services, asked):
    assert "judge" not in services.run("retrieve", "How much?").stdout
    services.response.passages[0].score.rerank_score = 0.25
    result = services.run("retrieve", "How much?")
    assert "judge" in result.stdout
    assert "0.250" in result.stdout


def test_nothing_found_is_said(services, asked):
    del services.response.passages[:]
    result = services.run("retrieve", "How much?")
    assert result.exit_code == 0
    assert "Nothing in the collection matches." in result.stdout


def test_without_options_the_defaults_of_the_service_hold(services, asked):
    services.run("retrieve", "How much?")
    options = asked[0].options
    assert not options.HasField("candidate_count")
    assert not options.HasField("vector_weight_ratio")
    assert not options.HasField("relevance_weight_ratio")
    assert options.merge_neighbors
    assert options.filter == pb.RetrievalOptions().filter


def test_every_option_reaches_the_service(services, asked):
    result = services.run(
        *("retrieve", "How much?", "-k", "3", "--candidates", "50", "--arms", "keyword"),
        *("--fusion", "rrf", "--vector-weight", "0.3", "--rerank", "on"),
        *("--expansion", "step-back", "--relevance-weight", "0.7", "--no-merge", "--recent"),
    )
    assert result.exit_code == 0
    options = asked[0].options
    assert options.passage_count == 3
    assert options.candidate_count == 50
    assert options.arms == pb.SEARCH_ARMS_KEYWORD
    assert options.fusion == pb.FUSION_METHOD_RRF
    assert options.vector_weight_ratio == 0.3
    assert options.rerank == pb.RERANK_POLICY_ON
    assert options.expansion == pb.EXPANSION_POLICY_STEP_BACK
    assert options.relevance_weight_ratio == 0.7
    assert options.HasField("merge_neighbors")
    assert not options.merge_neighbors
    assert options.prefer_recent


def test_conditions_on_documents_reach_the_service(services, asked):
    result = services.run(
        *("retrieve", "How much?", "--document", "a", "--document", "b", "--tag", "x"),
        *("--all-tags", "y", "--all-tags", "z", "--source", "file:///", "--language", "de"),
        *("--media-type", "text/html", "--since", "2026-01-02", "--until", "2026-02-03T04:05"),
        *("--where", "team=red", "--where", "team=blue", "--where", "year>=2020"),
        *("--where", "year <= 2025", "--where", "author"),
    )
    assert result.exit_code == 0
    found = asked[0].options.filter
    assert list(found.document_ids) == ["a", "b"]
    assert list(found.any_tags) == ["x"]
    assert list(found.all_tags) == ["y", "z"]
    assert found.source_prefix == "file:///"
    assert list(found.languages) == ["de"]
    assert list(found.media_types) == ["text/html"]
    assert found.updated_from.ToJsonString() == "2026-01-02T00:00:00Z"
    assert found.updated_before.ToJsonString() == "2026-02-03T04:05:00Z"
    author, team, year = found.metadata
    assert (author.key, author.present) == ("author", True)
    assert (team.key, list(team.one_of.values)) == ("team", ["red", "blue"])
    assert (year.key, year.range.minimum, year.range.maximum) == ("year", 2020, 2025)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--where", "=value"),
        ("--where", "year>=soon"),
        ("--arms", "both"),
        ("--fusion", "sum"),
        ("-k", "10000"),
        ("--vector-weight", "2"),
        ("--since", "yesterday"),
    ],
)
def test_what_cannot_be_read_is_refused_before_any_call(services, wrong):
    result = services.run("retrieve", "How much?", *wrong)
    assert result.exit_code == 2
    assert services.deadlines == []
