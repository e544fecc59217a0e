"""The semantic layer beside GPTCache, on the same questions with the same vectors."""

import asyncio
import csv
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import grpc
import numpy as np
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import StringValue

from pannier.cache.v1 import semantic_pb2 as pb
from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from pannier.common.v1 import vector_pb2
from tests.bench import processes
from tests.bench.cache.entries import partition
from tests.bench.cache.rows import Row, milliseconds
from tests.bench.cache.suite import running_suite
from tests.kit.minilm import Embedder
from tests.kit.ports import free_port

__all__ = ["against_gptcache"]

_RUNNER = Path(__file__).with_name("gptcache_stream.py")
_SERVICE = Path(__file__).with_name("gptcache_service.py")
_READY_SECONDS = 60.0
_CALL_SECONDS = 5.0
_AT = 0.95
_PACKAGES = "gptcache faiss-cpu sqlalchemy 'openai<1' fastapi 'uvicorn[standard]'"
_THRESHOLDS = (0.80, 0.85, 0.90, 0.925, 0.95, 0.975, 0.99)
_SERVED = (
    pb.SEMANTIC_OUTCOME_HIT_EXACT,
    pb.SEMANTIC_OUTCOME_HIT_SIMILAR,
    # Too young a cache to vouch for itself: these are what its rules let through.
    pb.SEMANTIC_OUTCOME_CANDIDATE,
)


@dataclass(frozen=True, slots=True)
class _Stream:
    questions: list[str]
    labels: list[str]
    vectors: np.ndarray


async def against_gptcache(folder: Path, count: int, *, venv: Path, data: Path) -> list[Row]:
    """Streams questions of BANKING77 past both; equal intents may share an answer."""
    source = data / "banking77" / "test.csv"
    python = venv / "bin" / "python"
    if not source.is_file():
        return [Row("beside GPTCache", f"left out: there is no {source.name} in {data.name}")]
    if not python.is_file():
        hint = f"left out: python -m venv {venv.name}; pip install {_PACKAGES}"
        return [Row("beside GPTCache", hint)]
    stream = await asyncio.to_thread(_read, source, 3_000 if count >= 1_000 else 800)
    file = _write(folder, stream)
    theirs = await _theirs(python, file)
    served = await _theirs_served(folder, python, file, stream)
    hits, wrong, times = await _ours(folder, stream)
    return _compare(len(stream.questions), hits, wrong, times, theirs, served)


def _read(source: Path, limit: int) -> _Stream:
    with source.open(newline="") as file:
        rows = [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]
    # GPTCache takes the same words for the same question; so does the mapping of its vectors.
    rows = list(dict(rows).items())
    random.Random(1).shuffle(rows)
    rows = rows[:limit]
    questions = [text for text, _ in rows]
    vectors = Embedder().embed(questions)
    return _Stream(questions, [label for _, label in rows], vectors)


def _write(folder: Path, stream: _Stream) -> Path:
    file = folder / "stream.npz"
    np.savez(
        file,
        questions=np.array(stream.questions),
        labels=np.array(stream.labels),
        vectors=stream.vectors,
    )
    return file


async def _theirs(python: Path, file: Path) -> list[dict[str, float]]:
    process = await asyncio.create_subprocess_exec(
        python, _RUNNER, file, *map(str, _THRESHOLDS), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError("GPTCache's run failed; its message is above")
    return [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]


async def _theirs_served(folder: Path, python: Path, file: Path, stream: _Stream) -> list[float]:
    """Asks GPTCache's own server over connections that are kept; returns the times of hits."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = (str(python), str(_SERVICE), str(file), str(_AT), str(port))
    times = []
    async with (
        processes.running("GPTCache", command, log=folder / "gptcache.log") as started,
        aiohttp.ClientSession() as session,
    ):
        await processes.wait_until(started, f"{url}/", within_seconds=_READY_SECONDS)
        for question, label in zip(stream.questions, stream.labels, strict=True):
            begun = time.perf_counter()
            async with session.post(f"{url}/get", json={"prompt": question}) as response:
                answer = (await response.json())["answer"]
            ended = time.perf_counter()
            if answer is not None:
                times.append(ended - begun)
                continue
            kept = {"prompt": question, "answer": label}
            async with session.post(f"{url}/put", json=kept) as response:
                response.raise_for_status()
    return times


async def _ours(folder: Path, stream: _Stream) -> tuple[int, int, list[float]]:
    async with running_suite(folder) as suite:
        return await asyncio.to_thread(_ask_all, suite.replicas[0].address, stream)


def _ask_all(address: str, stream: _Stream) -> tuple[int, int, list[float]]:
    """Asks like a program that would call GPTCache: each call returns with its answer."""
    hits = wrong = 0
    times = []
    where = partition()
    with grpc.insecure_channel(address) as channel:
        stub = CacheServiceStub(channel)
        for question, label, row in zip(
            stream.questions, stream.labels, stream.vectors, strict=True
        ):
            vector = vector_pb2.EmbeddingVector(
                float32_le=row.astype("<f4").tobytes(), dimension=len(row)
            )
            started = time.perf_counter()
            found = stub.LookupSemantic(
                pb.LookupSemanticRequest(partition=where, query=question, vector=vector),
                timeout=_CALL_SECONDS,
            )
            ended = time.perf_counter()
            if found.outcome in _SERVED:
                times.append(ended - started)
                hits += 1
                answer = StringValue()
                found.match.answer.Unpack(answer)
                wrong += answer.value != label
                continue
            packed = Any()
            packed.Pack(StringValue(value=label))
            stub.StoreSemantic(
                pb.StoreSemanticRequest(
                    partition=where, query=question, vector=vector, answer=packed
                ),
                timeout=_CALL_SECONDS,
            )
    return hits, wrong, times


def _compare(
    total: int,
    hits: int,
    wrong: int,
    times: list[float],
    theirs: list[dict[str, float]],
    served: list[float],
) -> list[Row]:
    p50, _ = milliseconds(times)
    served_ms, _ = milliseconds(served)
    rows = [
        Row(
            f"GPTCache at cosine {each['cosine']}",
            f"{each['hits'] / total:.1%} hits, {each['false'] / max(1, each['hits']):.1%} of them"
            f" wrong, p50 {each['p50_seconds'] * 1000:.2f} ms",
        )
        for each in theirs
    ]
    their_ms = next(each["p50_seconds"] for each in theirs if each["cosine"] == _AT) * 1000
    our_ratio = wrong / max(1, hits)
    as_right = [
        each["hits"] for each in theirs if each["false"] / max(1, each["hits"]) <= our_ratio
    ]
    most = max(as_right, default=0)
    return [
        *rows,
        Row(
            "pannier",
            f"{hits / total:.1%} hits, {our_ratio:.1%} of them wrong, p50 {p50:.2f} ms",
            f"> {most / total:.1%} hits (theirs at no more errors)",
            hits > most,
        ),
        Row(
            f"time of a hit against GPTCache at {_AT}, vectors given",
            f"{p50 / their_ms:.2f} x, over gRPC against in process",
            "<= 0.2 x",
            p50 <= 0.2 * their_ms,
        ),
        Row(
            "the same against its own server, over HTTP",
            f"{p50 / served_ms:.2f} x; its p50 {served_ms:.2f} ms",
            "<= 0.2 x",
            p50 <= 0.2 * served_ms,
        ),
    ]
