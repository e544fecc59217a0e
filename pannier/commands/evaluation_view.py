"""Shows what an evaluation found: a table, bars, and a plot where matplotlib is installed."""

from pathlib import Path

from pannier.commands.formatting import format_seconds
from pannier.commands.output import Output
from pannier.rag.v1 import evaluation_service_pb2 as pb

__all__ = ["draw_plot", "show_report"]

_BAR_CHARACTERS = 40
_PLOTTED = ("ndcg", "recall", "mrr")


def show_report(output: Output, report: pb.EvaluationReport) -> None:
    """Shows a report as a table, and its nDCG as bars."""
    depth = report.depth
    output.table(
        (
            *("variant", f">nDCG@{depth}", ">95 % range", ">gain", f">P@{depth}", f">R@{depth}"),
            *(">R@100", ">MRR", ">MAP", ">p50", ">p95", ">p99"),
        ),
        [_cells(variant) for variant in report.variants],
    )
    output.line()
    width = max((len(each.name) for each in report.variants), default=0)
    for variant in report.variants:
        ndcg = _figures(variant).get("ndcg", pb.Figure()).mean
        bar = "█" * round(ndcg * _BAR_CHARACTERS)
        output.line(f"{variant.name:<{width}}  {bar:<{_BAR_CHARACTERS}}  {ndcg:.3f}")
    output.line()
    counted = report.query_count - report.unanswerable_count
    output.line(f"{counted} queries; gains are over {report.variants[0].name}, query by query")
    for variant in report.variants:
        if variant.failed_count or variant.degraded_count:
            output.notice(
                f"{variant.name}: {variant.failed_count} searches failed, "
                f"{variant.degraded_count} were degraded"
            )


def draw_plot(report: pb.EvaluationReport, path: Path) -> bool:
    """Draws the figures of all variants side by side.

    Returns:
        Whether it was drawn; it is not where matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: PLC0415 - need not be there
    except ModuleNotFoundError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.6 * len(report.variants)), layout="tight")
    height = 0.8 / len(_PLOTTED)
    for index, name in enumerate(_PLOTTED):
        values = [_figures(each)[name] for each in report.variants]
        axes.barh(
            [place + index * height for place in range(len(values))],
            [each.mean for each in values],
            height=height,
            xerr=[
                [each.mean - each.low for each in values],
                [each.high - each.mean for each in values],
            ],
            label=name if name == "mrr" else f"{name}@{report.depth}",
        )
    axes.set_yticks(
        [place + height for place in range(len(report.variants))],
        [each.name for each in report.variants],
    )
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    figure.savefig(path)
    pyplot.close(figure)
    return True


def _cells(variant: pb.VariantReport) -> tuple[str, ...]:
    figures = _figures(variant)
    if not figures:
        return (variant.name, *["-"] * 11)
    ndcg = figures["ndcg"]
    gain = next((each for each in variant.gains if each.name == "ndcg"), None)
    means = [figures[name].mean for name in ("precision", "recall", "recall_100", "mrr", "map")]
    times = [variant.latency_p50, variant.latency_p95, variant.latency_p99]
    return (
        variant.name,
        f"{ndcg.mean:.4f}",
        f"{ndcg.low:.3f}-{ndcg.high:.3f}",
        "" if gain is None else f"{gain.mean:+.4f} ({gain.low:+.3f}..{gain.high:+.3f})",
        *(f"{mean:.3f}" for mean in means),
        *(format_seconds(each.ToNanoseconds() / 1e9) for each in times),
    )


def _figures(variant: pb.VariantReport) -> dict[str, pb.Figure]:
    return {each.name: each for each in variant.figures}
