"""Runs in GPTCache's own environment: one stream of questions at several thresholds.

Reads an .npz with `vectors` (float32, one row per question), `labels` (what each question means)
and `questions`; writes one JSON object per threshold. Only GPTCache and numpy are needed.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gptcache import Cache, Config  # type: ignore[import-not-found]
from gptcache.adapter.api import get, put  # type: ignore[import-not-found]
from gptcache.manager import (  # type: ignore[import-not-found]
    CacheBase,
    VectorBase,
    get_data_manager,
)
from gptcache.processor.pre import get_prompt  # type: ignore[import-not-found]
from gptcache.similarity_evaluation.distance import (  # type: ignore[import-not-found]
    SearchDistanceEvaluation,
)


def prepare(cache: Cache, data: dict[str, np.ndarray], cosine: float, folder: Path) -> None:
    """Has a cache give answers to questions as similar as this, with the vectors that are given."""
    vectors = dict(zip(data["questions"].tolist(), data["vectors"], strict=True))
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=lambda text, **_: vectors[text],
        data_manager=get_data_manager(
            CacheBase("sqlite", sql_url=f"sqlite:///{folder}/cache.db"),
            VectorBase("faiss", dimension=len(data["vectors"][0]), index_path=f"{folder}/index"),
            # As many as the stream has; GPTCache's own default is 1,000.
            max_size=len(vectors) + 1,
        ),
        similarity_evaluation=SearchDistanceEvaluation(),
        # Its scale: 4 less the squared distance, over 4.
        config=Config(similarity_threshold=(2 + 2 * cosine) / 4),
    )


def run(data: dict[str, np.ndarray], cosine: float, folder: Path) -> dict[str, float | int]:
    """Asks every question in turn, and stores those that miss."""
    cache = Cache()
    prepare(cache, data, cosine, folder)
    hit_count = false_count = 0
    times: list[float] = []
    for question, label in zip(data["questions"].tolist(), data["labels"].tolist(), strict=True):
        started = time.perf_counter()
        found = get(question, cache_obj=cache)
        ended = time.perf_counter()
        if found is None:
            put(question, label, cache_obj=cache)
            continue
        times.append(ended - started)
        hit_count += 1
        false_count += found != label
    times.sort()
    return {
        "cosine": cosine,
        "hits": hit_count,
        "false": false_count,
        "p50_seconds": times[len(times) // 2] if times else 0.0,
    }


def read(path: str) -> dict[str, np.ndarray]:
    """Reads the stream."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def main() -> None:
    """Takes the file and the thresholds as arguments."""
    data = read(sys.argv[1])
    for cosine in map(float, sys.argv[2:]):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run(data, cosine, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
