"""`pannier cache`, against a cache whose answers are written down here."""

import json

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.cache.v1 import cache_admin_service_pb2, control_pb2
from pannier.cache.v1 import invalidation_pb2 as pb

DIGEST = "ab" * 32


@pytest.fixture
def asked(services):
    """The requests that arrived; each is answered as if it had been done."""
    requests: list[pb.InvalidateRequest] = []

    def answer(request, _context):
        requests.append(request)
        return pb.InvalidateResponse(
            applied=not request.dry_run,
            invalidation_time=Timestamp(seconds=1_790_000_000),
            effects=[
                pb.SelectorEffect(selector=each, local_entry_count=7) for each in request.selectors
            ],
        )

    services.answers["Invalidate"] = answer
    return requests


def test_nothing_is_done_unless_told_so(services, asked):
    result = services.run("cache", "invalidate", "--collection", "handbook")
    assert result.exit_code == 0
    (request,) = asked
    assert request.dry_run
    assert "handbook" in result.output
    assert "--apply" in result.output


def test_every_kind_of_selector_is_sent_for_the_tenant(services, asked):
    result = services.run(
        *("cache", "invalidate", "--apply", "--tenant", "acme", "--everything"),
        *("--namespace", "a", "--namespace", "b", "--model-digest", DIGEST),
        *("-c", "handbook", "--document", "handbook/a/b.md", "--tag", "x"),
    )
    assert result.exit_code == 0, result.output
    (request,) = asked
    assert not request.dry_run
    assert request.tenant_id == "acme"
    assert list(request.selectors) == [
        pb.Selector(everything=True),
        pb.Selector(namespace="a"),
        pb.Selector(namespace="b"),
        pb.Selector(model_digest=DIGEST),
        pb.Selector(tag=control_pb2.Tag(collection="handbook")),
        pb.Selector(
            tag=control_pb2.Tag(
                document=control_pb2.DocumentTag(collection="handbook", document_id="a/b.md")
            )
        ),
        pb.Selector(tag=control_pb2.Tag(custom="x")),
    ]
    for text in ("everything", "namespace b", DIGEST[:12], "handbook/a/b.md", "tag x", "2026"):
        assert text in result.output


@pytest.mark.parametrize("arguments", [(), ("--document", "handbook"), ("--document", "/a")])
def test_what_is_meant_must_be_said(services, asked, arguments):
    assert services.run("cache", "invalidate", *arguments).exit_code == 2
    assert asked == []


def test_json_is_the_response(services, asked):
    result = services.run("cache", "invalidate", "--tag", "x", "--json")
    assert json.loads(result.output)["effects"][0]["local_entry_count"] == 7


def test_a_cache_without_its_store_says_that_nothing_was_done(services, refuse):
    def fail(_request, context):
        refuse(context, grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "away")

    services.answers["Invalidate"] = fail
    assert services.run("cache", "invalidate", "--tag", "x", "--apply").exit_code == 1


def test_a_threshold_is_set_in_a_namespace(services):
    requests = []

    def answer(request, _context):
        requests.append(request)
        return cache_admin_service_pb2.SetSimilarityThresholdResponse(previous_threshold=0.95)

    services.answers["SetSimilarityThreshold"] = answer
    result = services.run("cache", "threshold", "0.97", "--namespace", "faq")
    assert result.exit_code == 0, result.output
    assert "0.95 before, 0.97 now" in result.output
    assert requests == [
        cache_admin_service_pb2.SetSimilarityThresholdRequest(namespace="faq", threshold=0.97)
    ]
