"""`pannier usage` and `pannier experiment`, against a service whose answers are written down."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.commands.money import format_cost
from pannier.rag.v1 import usage_service_pb2 as pb

ROWS = [
    pb.UsageRow(
        start_time=Timestamp(seconds=3600 * 24 * 365),
        user_id=user,
        model="llama3",
        amounts=pb.UsageAmounts(query_count=count, cost_nanos=1_500_000_000),
    )
    for user, count in (("ann", 3), ("", 4))
]
TOTAL = pb.UsageAmounts(query_count=7, cost_nanos=3_000_000_000, saved_token_count=12)


def pages(request, _context):
    """One row a page."""
    index = int(request.page_token or 0)
    return pb.GetUsageResponse(
        rows=[ROWS[index]],
        next_page_token=str(index + 1) if index + 1 < len(ROWS) else "",
        total=TOTAL,
        currency="EUR",
        feedback=pb.FeedbackCounts(positive_count=2, negative_count=1),
    )


def test_usage_is_shown_with_its_total(services):
    services.answers["GetUsage"] = pages
    result = services.run("usage", "--by", "user", "--bucket", "day")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1][:3] == ["1971-01-01T00:00", "ann", "3"]
    assert lines[2][:3] == ["1971-01-01T00:00", "-", "4"]
    assert lines[3][:2] == ["total", "7"]
    assert lines[3][-5:-3] == ["3.00", "EUR"]
    assert "2 good, 0 neither, 1 bad" in result.stdout


def test_what_is_asked_for_is_sent(services):
    asked = []
    services.answers["GetUsage"] = lambda request, _context: (
        asked.append(request) or pb.GetUsageResponse()
    )
    services.run("usage", "--days", "7", "--by", "user", "--by", "kind", "--bucket", "hour")
    (request,) = asked
    assert request.end_time.seconds - request.start_time.seconds == 7 * 86_400
    assert list(request.group_by) == [pb.USAGE_DIMENSION_USER, pb.USAGE_DIMENSION_KIND]
    assert request.bucket == pb.USAGE_BUCKET_HOUR


def test_all_pages_are_one_document(services):
    services.answers["GetUsage"] = pages
    plain = json.loads(services.run("usage", "--json").stdout)
    assert len(plain["rows"]) == 2


def test_variants_are_compared(services):
    services.answers["GetExperimentReport"] = lambda request, _context: (
        pb.GetExperimentReportResponse(
            name=request.name,
            variants=[
                pb.ExperimentVariantReport(variant="usual", share_ratio=0.5),
                pb.ExperimentVariantReport(
                    variant="off",
                    share_ratio=0.5,
                    query_count=10,
                    mean_quality=0.8125,
                    quality_difference=pb.MeanDifference(
                        difference=-0.05, low=-0.08, high=-0.02, significant=True
                    ),
                    duration_p50=Duration(nanos=12_300_000),
                    feedback=pb.FeedbackCounts(positive_count=3, negative_count=1),
                    positive_ratio=0.75,
                ),
            ],
        )
    )
    result = services.run("experiment", "rerank")
    assert result.exit_code == 0
    for part in ("0.812", "-0.050 [-0.080, -0.020] *", "12.3 ms", "75.0 % of 4"):
        assert part in result.stdout


@pytest.mark.parametrize(
    ("nanos", "currency", "text"),
    [
        (1_250_000_000, "EUR", "1.25 EUR"),
        (38, "EUR", "0.000000 EUR"),
        (1500, "EUR", "0.000002 EUR"),
        (0, "USD", "0.00 USD"),
        (5, "", "-"),
    ],
)
def test_amounts_are_written_with_as_many_decimals_as_they_need(nanos, currency, text):
    assert format_cost(nanos, currency) == text
