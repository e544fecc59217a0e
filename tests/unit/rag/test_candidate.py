from services.rag.core.passages import FusedChunk
from services.rag.core.ranking.candidate import candidates_of
from tests.kit.candidates import passage


def test_candidates_keep_their_order_and_what_could_not_be_loaded_is_left_out() -> None:
    fused = [FusedChunk(chunk_id=number, score=1 / number) for number in (3, 1, 2)]
    loaded = {number: passage(number, f"text {number}") for number in (1, 3)}
    found = candidates_of(fused, loaded)
    assert [(each.passage.chunk_id, each.ranking, each.relevance) for each in found] == [
        (3, fused[0], 1 / 3),
        (1, fused[1], 1.0),
    ]
