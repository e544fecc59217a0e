import io

import pytest
from rich.console import Console

from pannier.commands.evaluation_view import draw_plot, show_report
from pannier.commands.output import Output
from pannier.rag.v1 import evaluation_service_pb2 as pb

NAMES = ("ndcg", "precision", "recall", "recall_100", "mrr", "map")


def figures(mean):
    return [pb.Figure(name=name, mean=mean, low=mean - 0.05, high=mean + 0.05) for name in NAMES]


REPORT = pb.EvaluationReport(
    query_count=20,
    unanswerable_count=2,
    depth=10,
    variants=[
        pb.VariantReport(name="keyword", figures=figures(0.4)),
        pb.VariantReport(name="hybrid", figures=figures(0.5), gains=figures(0.1), failed_count=3),
        pb.VariantReport(name="nothing"),
    ],
)


def test_a_report_is_shown_as_a_table_and_bars():
    results, problems = io.StringIO(), io.StringIO()
    output = Output(Console(file=results, width=160), Console(file=problems, width=160))
    show_report(output, REPORT)
    text = results.getvalue()
    assert "nDCG@10" in text
    assert "0.4000" in text
    assert "+0.1000 (+0.050..+0.150)" in text
    assert "18 queries" in text
    assert text.count("█") == 16 + 20
    assert "hybrid: 3 searches failed" in problems.getvalue()


def test_a_plot_is_drawn_where_matplotlib_is_installed(tmp_path):
    pytest.importorskip("matplotlib")
    del REPORT.variants[2:]
    assert draw_plot(REPORT, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_no_plot_is_drawn_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert not draw_plot(REPORT, tmp_path / "plot.png")
