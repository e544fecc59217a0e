"""Pictures show every panel, with what Prometheus answered, in a file of bounded size."""

import io
import json
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tools.monitoring.dashboards import ALL
from tools.monitoring.dashboards.promql import parse
from tools.monitoring.dashboards.queries import output_labels, panels
from tools.monitoring.pictures import ask, draw, read_answers
from tools.monitoring.pictures.picture import LARGEST_BYTES, WIDTH
from tools.monitoring.pictures.values import colour_at, series_name, shown_value

ROOT = Path(__file__).resolve().parents[3]
END = 1_800_000_000.0
EDGES = ("0.1", "1.0", "+Inf")


def answer(target):
    """What Prometheus' API would send, with two values for each label."""
    labels = sorted(output_labels(parse(target["expr"])) or {"job"})
    series = []
    for number, edge in enumerate(EDGES, start=1):
        metric = {label: edge if label == "le" else f"{label} {number}" for label in labels}
        if target["instant"]:
            series.append({"metric": metric, "value": [END, str(number / 4)]})
        else:
            values = [[END - 60 + 15 * step, str(number / 4 + step / 100)] for step in range(5)]
            series.append({"metric": metric, "values": values})
    kind = "vector" if target["instant"] else "matrix"
    return {"status": "success", "data": {"resultType": kind, "result": series}}


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGB").copy()


def area(image, panel):
    grid = panel["gridPos"]
    left, top = grid["x"] * WIDTH / 24 + 8, 54 + grid["y"] * 30 + 26
    right, bottom = left + grid["w"] * WIDTH / 24 - 16, 54 + (grid["y"] + grid["h"]) * 30 - 8
    return image.crop((int(left), int(top), int(right), int(bottom)))


# Together they have every kind of panel that there is.
DRAWN = [each for each in ALL if each.uid in ("performance-overview", "system-health", "traces")]


def test_what_is_drawn_here_has_every_kind_of_panel():
    kinds = [
        {panel["type"] for board in boards for panel in panels(board.json())}
        for boards in (DRAWN, ALL)
    ]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("dashboard", DRAWN, ids=lambda each: each.uid)
def test_every_panel_with_an_answer_looks_other_than_without(dashboard):
    board = dashboard.json()
    bodies = {
        (panel["id"], target["refId"]): answer(target)
        for panel in panels(board)
        for target in panel["targets"]
        if "expr" in target
    }
    full, empty = draw(board, read_answers(bodies)), draw(board, {})
    assert len(full) < LARGEST_BYTES
    drawn, blank = pixels(full), pixels(empty)
    rows = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in board["panels"])
    assert drawn.size == blank.size == (WIDTH, 54 + 30 * rows)
    for panel in panels(board):
        asked = any("expr" in target for target in panel["targets"])
        same = area(drawn, panel).tobytes() == area(blank, panel).tobytes()
        if asked:
            assert not same, panel["title"]
        assert len(area(blank, panel).getcolors(100_000)) > 1, "says why it is empty"


def test_prometheus_is_asked_for_moments_and_for_ranges():
    board = next(each for each in ALL if each.uid == "fleet-health").json()
    asked = []

    def handle(request):
        asked.append(request.url)
        result = {"resultType": "vector", "result": []}
        return httpx.Response(200, json={"status": "success", "data": result})

    with httpx.Client(transport=httpx.MockTransport(handle), base_url="http://p") as client:
        answers = ask(client, board, end=END, minutes=10)
    targets = [target for panel in panels(board) for target in panel["targets"]]
    assert len(answers) == len(asked) == len(targets)
    for url, target in zip(asked, targets, strict=True):
        assert url.path == ("/api/v1/query" if target["instant"] else "/api/v1/query_range")
        assert "$" not in url.params["query"]
        if not target["instant"]:
            assert float(url.params["end"]) - float(url.params["start"]) == 600


def test_a_query_that_prometheus_refuses_is_an_error():
    with pytest.raises(ValueError, match="panel 1A: parse error"):
        read_answers({(1, "A"): {"status": "error", "error": "parse error"}})


def test_values_that_are_no_numbers_are_left_out():
    body = {
        "status": "success",
        "data": {
            "result": [
                {"metric": {"a": "b"}, "values": [[1, "NaN"], [2, "3"]]},
                {"metric": {"a": "c"}, "value": [1, "+Inf"]},
            ]
        },
    }
    (series,) = read_answers({(1, "A"): body})[1, "A"]
    assert series.points == ((2.0, 3.0),)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.123, "percentunit", "12.3 %"), (0.0042, "s", "4.2 ms"), (0, "s", "0 s"),
        (5400, "s", "1.5 h"), (3 * 2**20, "bytes", "3 MiB"), (1234, "short", "1.23 K"),
        (2.5, "reqps", "2.5 req/s"), (float("nan"), "s", "NaN"), (0.00002, "s", "20 µs"),
    ],
)  # fmt: skip
def test_values_read_with_their_units(value, unit, text):
    assert shown_value(value, unit) == text


def test_a_legend_takes_labels_and_drops_those_that_are_missing():
    assert series_name("{{job}}, {{pool}}!", {"job": "rag"}) == "rag, !"


def test_the_colour_is_that_of_the_highest_limit_reached():
    limits = {
        "steps": [
            {"color": "green", "value": None},
            {"color": "yellow", "value": 5},
            {"color": "red", "value": 10},
        ]
    }
    colours = [colour_at(value, limits) for value in (4.9, 5, 10)]
    assert len(set(colours)) == 3
    assert colours == [colour_at(value, limits) for value in (-1, 9.9, 99)]


def test_committed_pictures_are_small_and_of_dashboards_that_exist():
    names = {path.stem for path in (ROOT / "dashboards").glob("*.json")}
    for path in (ROOT / "dashboards/images").glob("*.png"):
        assert path.stem in names
        assert path.stat().st_size < LARGEST_BYTES
        assert json.loads((ROOT / f"dashboards/{path.stem}.json").read_text())
