import pytest

from services.rag.adapters.rerank_files import find_rerank_files
from services.rag.ports import RerankerUnavailable


def write(directory, *names):
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"-")


@pytest.mark.parametrize("name", ["model.onnx", "onnx/model.onnx", "onnx/model_quantized.onnx"])
def test_a_directory_is_taken_as_it_is_with_the_model_where_it_usually_lies(tmp_path, name):
    write(tmp_path, name, "tokenizer.json")
    found = find_rerank_files(str(tmp_path), "none")
    assert found.model == tmp_path / name
    assert found.tokenizer == tmp_path / "tokenizer.json"


def test_a_name_is_looked_up_in_the_cache_and_the_main_branch_comes_first(tmp_path):
    folder = tmp_path / "models--owner--judge"
    write(folder / "snapshots" / "aaa", "model.onnx", "tokenizer.json")
    write(folder / "snapshots" / "bbb", "onnx/model.onnx", "tokenizer.json")
    assert "aaa" in str(find_rerank_files("owner/judge", str(tmp_path)).model)
    write(folder / "refs", "main")
    (folder / "refs" / "main").write_text("bbb\n")
    assert "bbb" in str(find_rerank_files("owner/judge", str(tmp_path)).model)


@pytest.mark.parametrize("location", ["owner/judge", "/no/such/place", "judge", "../up/and/away"])
def test_what_is_not_there_is_named_with_what_to_do(tmp_path, location):
    with pytest.raises(RerankerUnavailable, match="PANNIER_RAG_RERANK_MODEL") as raised:
        find_rerank_files(location, str(tmp_path))
    assert location in str(raised.value)


def test_a_model_without_its_tokenizer_is_not_there(tmp_path):
    write(tmp_path, "model.onnx")
    with pytest.raises(RerankerUnavailable):
        find_rerank_files(str(tmp_path), "none")
