import asyncio
import builtins
import importlib
import threading
from contextlib import asynccontextmanager

import pytest

from services.rag.adapters.rerank_onnx import OnnxReranker
from services.rag.ports import RerankerUnavailable
from tests.kit.cross_encoder import write_cross_encoder

WORDS = {"llama": 2.0, "loads": 1.0, "weather": -3.0}
TEXTS = ["llama loads", "weather", "other", "llama weather of a longer passage", "loads"]


@asynccontextmanager
async def opened(location, *, provider="cpu"):
    reranker = OnnxReranker(str(location), provider=provider, cache_directory="none")
    try:
        await reranker.open()
        yield reranker
    finally:
        await reranker.close()


async def score(reranker, texts=TEXTS):
    return list(await reranker.score("llama", texts, time_limit_seconds=20.0))


@pytest.mark.parametrize("layout", ["", "onnx"])
async def test_a_model_of_a_directory_scores_each_text_with_the_question(tmp_path, layout):
    write_cross_encoder(tmp_path, WORDS)
    if layout:
        (tmp_path / layout).mkdir()
        (tmp_path / "model.onnx").rename(tmp_path / layout / "model.onnx")
    async with opened(tmp_path) as reranker:
        assert await score(reranker) == pytest.approx([3, -3, 0, -1, 1])
        assert await score(reranker, []) == []
        assert reranker.name == tmp_path.name


async def test_a_model_without_token_types_is_not_given_any(tmp_path):
    async with opened(write_cross_encoder(tmp_path, WORDS, type_ids=False)) as reranker:
        # The question's own word counts as well.
        assert await score(reranker, ["loads"]) == pytest.approx([3])


async def test_of_two_classes_the_second_stands_for_yes(tmp_path):
    async with opened(write_cross_encoder(tmp_path, WORDS, classes=2)) as reranker:
        assert await score(reranker, ["loads", "weather"]) == pytest.approx([1, -3])


async def test_a_text_of_any_length_is_cut_to_what_the_model_reads(tmp_path):
    async with opened(write_cross_encoder(tmp_path, {"loads": 1.0})) as reranker:
        (found,) = await score(reranker, ["loads " * 3000])
        assert 500 < found < 512


async def test_what_is_scored_when_the_time_is_over_is_returned(tmp_path, monkeypatch):
    async with opened(write_cross_encoder(tmp_path, WORDS)) as reranker:
        encoder, release, batches = reranker._encoder, threading.Event(), []
        loop, limit, whole = asyncio.get_running_loop(), asyncio.timeout(None), encoder.score

        def held(question, texts):
            batches.append(len(texts))
            if len(batches) > 1:
                loop.call_soon_threadsafe(limit.reschedule, loop.time())
                release.wait(20)
            return whole(question, texts)

        monkeypatch.setattr(encoder, "score", held)
        monkeypatch.setattr(asyncio, "timeout", lambda seconds: limit)
        try:
            found = await score(reranker, ["loads"] * 11)
        finally:
            release.set()
        assert found == [1.0] * 4 + [None] * 7
        assert max(batches) <= 10


async def test_the_event_loop_goes_on_while_the_model_works(tmp_path, monkeypatch):
    async with opened(write_cross_encoder(tmp_path, WORDS)) as reranker:
        encoder, reached, release = reranker._encoder, asyncio.Event(), threading.Event()
        loop, whole = asyncio.get_running_loop(), reranker._encoder.score

        def held(question, texts):
            loop.call_soon_threadsafe(reached.set)
            release.wait(20)
            return whole(question, texts)

        monkeypatch.setattr(encoder, "score", held)
        scoring = asyncio.create_task(score(reranker, ["loads"]))
        await reached.wait()
        release.set()
        assert await scoring == [1.0]


@pytest.mark.parametrize("spoilt", ["model.onnx", "tokenizer.json"])
async def test_a_broken_file_is_told_of_in_the_log_and_with_each_attempt(tmp_path, caplog, spoilt):
    write_cross_encoder(tmp_path, WORDS)
    (tmp_path / spoilt).write_bytes(b"{}")
    async with opened(tmp_path) as reranker:
        with pytest.raises(RerankerUnavailable, match="cannot be used as a cross-encoder"):
            await score(reranker)
    assert "passages are not reranked" in caplog.text


async def test_a_model_with_other_outputs_is_refused_when_it_is_loaded(tmp_path, caplog):
    async with opened(write_cross_encoder(tmp_path, WORDS, classes=7)):
        assert "it gives 7 figures for each pair, not one" in caplog.text


async def test_a_missing_model_is_named(tmp_path, caplog):
    async with opened(tmp_path / "nowhere") as reranker:
        with pytest.raises(RerankerUnavailable, match="nowhere"):
            await score(reranker)
    assert "PANNIER_RAG_RERANK_MODEL" in caplog.text


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
async def test_a_package_that_is_not_installed_is_named_with_its_extra(
    tmp_path, monkeypatch, caplog, package
):
    write_cross_encoder(tmp_path, WORDS)
    found = importlib.import_module

    def absent(name, *rest):
        if name == package:
            raise builtins.ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    async with opened(tmp_path):
        assert f"{package} is not installed; install `pannier[rerank]`" in caplog.text


async def test_without_cuda_the_cpu_is_taken_and_the_log_says_so(tmp_path, caplog):
    async with opened(write_cross_encoder(tmp_path, WORDS), provider="cuda") as reranker:
        assert await score(reranker, ["loads"]) == [1.0]
    assert "has no CUDA" in caplog.text
