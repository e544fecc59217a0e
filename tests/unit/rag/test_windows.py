import pytest

from services.rag.core.windows import embedding_window


@pytest.mark.parametrize(
    ("model", "listed", "read"),
    [
        ("all-minilm:latest", 512, 256),
        ("registry.example/library/all-minilm:33m", 0, 256),
        ("all-minilm", 128, 128),
        ("nomic-embed-text:v1.5", 2048, 2048),
        ("unheard-of", 0, 0),
    ],
)
def test_a_model_reads_what_it_lists_unless_it_is_known_to_read_less(
    model: str, listed: int, read: int
) -> None:
    assert embedding_window(model, listed) == read
