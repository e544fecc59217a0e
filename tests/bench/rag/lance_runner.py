"""LanceDB's part of the comparison, run with the Python of an environment that has it.

Reads an .npz file with chunks and queries, and writes what it found as one line of JSON.
"""

import json
import sys
import tempfile
import time

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.rerankers import RRFReranker

RANKING_DEPTH = 100
SHOWN_COUNT = 10


def table_of(folder, stored):
    """Makes a table with a full-text index, and a filter column with its own."""
    vectors = stored["vectors"].astype(np.float32)
    rows = pa.table(
        {
            "id": pa.array(range(len(vectors)), pa.int64()),
            "text": pa.array(stored["texts"].tolist()),
            "tag": pa.array(stored["tags"].tolist()),
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.reshape(-1)), vectors.shape[1]
            ),
        }
    )
    table = lancedb.connect(folder).create_table("bench", rows)
    table.create_fts_index("text", language="English", stem=True, remove_stop_words=True)
    table.create_scalar_index("tag", index_type="BITMAP")
    return table


def timed(search, count=RANKING_DEPTH):
    """Runs a search that returns ids and texts; returns ids and seconds."""
    started = time.perf_counter()
    ids = [row["id"] for row in search.select(["id", "text"]).limit(count).to_list()]
    return ids, time.perf_counter() - started


def main():
    """Runs."""
    stored = np.load(sys.argv[1])
    questions, vectors = stored["questions"].tolist(), stored["question_vectors"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        table = table_of(folder, stored)
        build_seconds = time.perf_counter() - started
        found = {"build_seconds": build_seconds, "version": lancedb.__version__}

        def hybrid(text, vector):
            builder = table.search(query_type="hybrid").vector(vector).text(text)
            return builder.rerank(RRFReranker())

        for text, vector in zip(questions[:5], vectors[:5], strict=True):
            timed(hybrid(text, vector))
        pairs = list(zip(questions, vectors, strict=True))
        found["rankings"] = [timed(hybrid(text, vector))[0] for text, vector in pairs]
        found["seconds"] = [timed(hybrid(text, vector), SHOWN_COUNT)[1] for text, vector in pairs]
        tag = stored["filter_tag"].item()
        filtered = [
            timed(
                table.search(vector).metric("cosine").where(f"tag = '{tag}'", prefilter=True),
                SHOWN_COUNT,
            )
            for vector in vectors
        ]
        found["filtered"] = {
            "ids": [ids for ids, _ in filtered],
            "seconds": [took for _, took in filtered],
        }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
