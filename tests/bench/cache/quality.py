"""Measures whether semantic hits are right: `python -m tests.bench.cache.quality`. Questions
are embedded by the real all-MiniLM-L6-v2, in this process. BANKING77 and CLINC150 are asked
in random orders and stored where they are not answered; a hit is right if both questions
have the same intent. What is reported is the part that nothing was tuned on. Some questions
of BANKING77 carry different labels for the same words. Of its pairs that share an answer by
cosine 0.95, by guards at 0.95 or by agreement, those with different labels were therefore
read: "as read" counts as false what does not ask for the same, and what nobody has read.
Each set is also measured without the questions whose label most of their nearest neighbours
contradict, which leaves out hard cases too."""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.cache.core.intervals import wilson
from services.cache.core.semantic.agreement import refusal_at
from services.cache.core.semantic.guards import features, refusal_of
from services.cache.core.semantic.scope import scope_of
from services.standin.core.minilm import Floats
from tests.bench.cache.quality_measures import (
    DECISIONS,
    Corpus,
    areas,
    simulate,
    uncontested,
)
from tests.bench.cache.quality_readings import readings
from tests.bench.cache.quality_sets import Pair, Question, banking, clinc, out_of_scope, pairs
from tests.kit.minilm import embed_cached

THRESHOLDS = (0.80, 0.85, 0.88, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
_SERVED = 0.95
_SETS = {"BANKING77": banking, "CLINC150": clinc}
_FOLDERS = {"BANKING77": "banking77", "CLINC150": "clinc150"}


def main() -> None:
    """Measures all, and prints it as tables or as JSON."""
    options = _options()
    report: dict[str, Any] = {"part": options.part, "skipped": []}
    report["polarity"] = _pairs_report(pairs("polarity"), options.vectors)
    report["paraphrases"] = _pairs_report(pairs("paraphrases"), options.vectors)
    report["microseconds"] = _speed(pairs("polarity"))
    report["simulations"] = {}
    for name, read in _SETS.items():
        if not (options.data / _FOLDERS[name]).is_dir():
            report["skipped"].append(f"{name}: there is no {options.data / _FOLDERS[name]}")
            continue
        questions = read(options.data, options.part)
        report["simulations"][name] = _simulations(questions, options)
        agreed = uncontested(questions, _vectors(questions, options))
        report["simulations"][f"{name}, labels uncontested"] = _simulations(agreed, options)
        if name == "CLINC150":
            report["out_of_scope"] = _out_of_scope(questions, options)
    sys.stdout.write(json.dumps(report, indent=2) if options.json else _text(report))
    sys.stdout.write("\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.cache.quality",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    root = Path(__file__).parents[3]
    option("--data", type=Path, default=root.parent / "shared" / "data", help="data sets")
    option("--part", choices=("report", "tuning"), default="report", help="questions to measure on")
    option("--seeds", type=int, default=3, help="orders in which the questions are asked")
    option("--json", action="store_true", help="print JSON")
    kept = Path(tempfile.gettempdir()) / "pannier-quality-vectors"
    option("--vectors", type=Path, default=kept, help="folder in which vectors are kept")
    return parser.parse_args()


def _pairs_report(found: list[Pair], kept: Path) -> dict[str, Any]:
    """How many of the pairs would share an answer, by each kind of decision."""
    vectors = embed_cached([text for pair in found for text in (pair.question, pair.other)], kept)
    similarities = (vectors[::2] * vectors[1::2]).sum(axis=1)
    passed, by_category, guards = Counter[str](), Counter[str](), Counter[str]()
    for pair, similarity in zip(found, similarities.tolist(), strict=True):
        query, other = features(pair.question), features(pair.other)
        guard = refusal_of(query, other)
        passed["cosine"] += similarity >= _SERVED
        passed["guards"] += guard is None
        passed["both"] += similarity >= _SERVED and guard is None
        passed["agreement"] += refusal_at(similarity, query, other) is None
        if guard is None:
            by_category[pair.category] += 1
        else:
            guards[guard.value] += 1
    return {
        "pairs": len(found),
        "categories": dict(Counter(pair.category for pair in found)),
        "passed": dict(passed),
        "passed_guards_by_category": dict(by_category),
        "refused_by": dict(guards.most_common()),
    }


def _speed(found: list[Pair]) -> dict[str, float]:
    texts = [text for pair in found for text in (pair.question, pair.other)]
    started = time.perf_counter()
    read = [features(text) for text in texts]
    between = time.perf_counter()
    for query, other in zip(read[::2], read[1::2], strict=True):
        refusal_of(query, other)
    ended = time.perf_counter()
    return {
        "features": (between - started) / len(texts) * 1e6,
        "refusal": (ended - between) / len(found) * 1e6,
    }


def _vectors(questions: list[Question], options: argparse.Namespace) -> Floats:
    return embed_cached([question.text for question in questions], options.vectors)


def _simulations(questions: list[Question], options: argparse.Namespace) -> dict[str, Any]:
    corpus = Corpus(questions, _vectors(questions, options), readings())
    rows = []
    for threshold in THRESHOLDS:
        for name, decision in DECISIONS.items():
            result = simulate(corpus, decision, threshold, range(options.seeds))
            # The orders repeat the same questions, so the interval is that of one of them.
            per_order = round(result.hits / options.seeds), round(result.wrong / options.seeds)
            low, high = wilson(per_order[0] - per_order[1], per_order[0])
            precision = 1 - result.false_share
            rows.append(
                {
                    "threshold": threshold,
                    "decision": name,
                    "hit_ratio": result.hit_ratio,
                    "false_share": result.false_share,
                    "false_share_as_read": result.false_share_as_read,
                    "precision": precision,
                    "precision_interval": [low, high],
                    "vchr": precision * result.hit_ratio,
                }
            )
    return {
        "questions": len(questions),
        "out_of_scope_share": sum(scope_of(question.text) is not None for question in questions)
        / len(questions),
        "rows": rows,
        "areas": {
            name: asdict(found) | {"crr": found.crr}
            for name, decision in DECISIONS.items()
            for found in [areas(corpus, decision, 0)]
        },
    }


def _out_of_scope(stored: list[Question], options: argparse.Namespace) -> dict[str, Any]:
    """How many questions of no intent would be answered from a question that has one."""
    asked = out_of_scope(options.data)
    similarities = _vectors(asked, options) @ _vectors(stored, options).T
    counts: Counter[str] = Counter()
    for question, row in zip(asked, similarities, strict=True):
        nearest = row.argsort()[::-1][:5].tolist()
        query = features(question.text)
        candidates = [(float(row[index]), features(stored[index].text)) for index in nearest]
        counts["cosine"] += candidates[0][0] >= _SERVED
        counts["guards"] += any(
            similarity >= _SERVED and refusal_of(query, other) is None
            for similarity, other in candidates
        )
        counts["agreement"] += any(
            (refusal_at(similarity, query, other) is None) for similarity, other in candidates
        )
    return {"asked": len(asked), "stored": len(stored), "hits": dict(counts)}


def _text(report: dict[str, Any]) -> str:
    lines = [f"measured on the {report['part']} part", *report["skipped"], ""]
    for name in ("polarity", "paraphrases"):
        lines.append(_pairs_text(name, report[name]))
    times = report["microseconds"]
    lines.append(
        f"{times['features']:.0f} us to read a question, {times['refusal']:.1f} us to compare two\n"
    )
    for name, simulated in report["simulations"].items():
        lines += _simulation_text(name, simulated)
    if "out_of_scope" in report:
        found = report["out_of_scope"]
        hits = ", ".join(f"{name} {count}" for name, count in found["hits"].items())
        lines.append(
            f"CLINC150, {found['asked']} questions out of scope on {found['stored']} in scope:"
            f" {hits}"
        )
    return "\n".join(lines)


def _pairs_text(name: str, found: dict[str, Any]) -> str:
    shares = ", ".join(
        f"{decision} {count} ({count / found['pairs']:.1%})"
        for decision, count in found["passed"].items()
    )
    guards = ", ".join(f"{guard} {count}" for guard, count in found["refused_by"].items())
    return (
        f"{name}: of {found['pairs']} pairs would share an answer: {shares}\n  refused by: {guards}"
    )


def _simulation_text(name: str, simulated: dict[str, Any]) -> list[str]:
    lines = [
        f"{name}: {simulated['questions']} questions; by their words alone"
        f" {simulated['out_of_scope_share']:.1%} would not be looked up",
        "threshold  decision   hits    false  as read  precision (95 %)          VCHR",
    ]
    for row in simulated["rows"]:
        low, high = row["precision_interval"]
        lines.append(
            f"{row['threshold']:9.2f}  {row['decision']:<9} {row['hit_ratio']:6.2%} "
            f"{row['false_share']:7.2%}  {row['false_share_as_read']:7.2%}  "
            f"{row['precision']:7.2%} ({low:.2%} .. {high:.2%}) "
            f"{row['vchr']:6.2%}"
        )
    for decision, found in simulated["areas"].items():
        lines.append(
            f"  {decision}: P-CHR AUC {found['p_chr_auc']:.3f}, PR-AUC {found['pr_auc']:.3f},"
            f" CRR {found['crr']:.3f}"
        )
    return [*lines, ""]


if __name__ == "__main__":
    main()
