"""LanceDB's part of the comparison by tenant, run with the Python of an environment that has it.

Reads an .npz file with vectors, their tenants and questions, and writes what it found as one line
of JSON: without an index of the vectors, and with the one that its users would make.
"""

import json
import sys
import tempfile
import time

import lancedb
import numpy as np
import pyarrow as pa


def table_of(folder, stored):
    """Makes a table with an index of the tenants."""
    vectors = stored["vectors"].astype(np.float32)
    rows = pa.table(
        {
            "id": pa.array(range(len(vectors)), pa.int64()),
            "tenant": pa.array(stored["tenants"].tolist()),
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.reshape(-1)), vectors.shape[1]
            ),
        }
    )
    table = lancedb.connect(folder).create_table("bench", rows)
    table.create_scalar_index("tenant", index_type="BITMAP")
    return table


def searched(table, questions, depth):
    """Asks all questions; returns ids and seconds of each."""

    def search(vector):
        started = time.perf_counter()
        query = table.search(vector).distance_type("cosine")
        query = query.where("tenant = 'small'", prefilter=True).limit(depth)
        # Without the distance it warns of each query that it is going to leave it out.
        query = query.select(["id", "_distance"])
        return [row["id"] for row in query.to_list()], time.perf_counter() - started

    for vector in questions[:5]:
        search(vector)
    found = [search(vector) for vector in questions]
    return {"ids": [ids for ids, _ in found], "seconds": [took for _, took in found]}


def main():
    """Runs."""
    stored, depth = np.load(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        table = table_of(folder, stored)
        ways = {"no index of vectors": searched(table, stored["questions"], depth)}
        table.create_index("cosine", vector_column_name="vector", index_type="IVF_HNSW_SQ")
        ways["IVF_HNSW_SQ"] = searched(table, stored["questions"], depth)
    sys.stdout.write(json.dumps({"version": lancedb.__version__, "ways": ways}) + "\n")


if __name__ == "__main__":
    main()
