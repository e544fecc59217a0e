import re

from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.packing import Packer
from services.rag.core.parsing.parsed import Block, BlockKind
from services.rag.core.sentences import Span

TARGET, LIMIT = 40, 60


def pack(text, kind):
    blocks = [Block(kind, match.start(), match.end()) for match in re.finditer(r"[^\n]+", text)]
    packer = Packer(text, lambda span: span.char_end - span.char_start, TARGET, LIMIT, LIMIT)
    return packer.pack_blocks(blocks) if blocks else []


texts = st.lists(
    st.text(st.sampled_from("ab .!é漢\u200d"), min_size=1, max_size=150).filter(str.strip),
    max_size=12,
).map("\n".join)


@given(texts, st.sampled_from(list(BlockKind)))
def test_spans_are_in_order_and_lose_nothing_that_can_be_seen(text, kind):
    position = 0
    for span in pack(text, kind):
        assert not text[position : span.char_start].strip()
        assert span.char_start < span.char_end
        position = span.char_end
    assert not text[position:].strip()


@given(texts, st.sampled_from(list(BlockKind)))
def test_no_span_exceeds_the_limit(text, kind):
    assert all(end - start <= LIMIT for start, end in pack(text, kind))


def test_small_blocks_share_a_span_up_to_the_target():
    text = "\n".join(["word"] * 30)
    spans = pack(text, BlockKind.PARAGRAPH)
    assert all(end - start <= LIMIT for start, end in spans)
    assert len(spans) <= 5


def test_prose_is_cut_between_sentences():
    text = "This is the first sentence of it. And here comes another one. Then it ends."
    spans = pack(text, BlockKind.PARAGRAPH)
    assert [text[start:end][-1] for start, end in spans] == ["."] * len(spans)
    assert spans[0] == Span(0, 33)
