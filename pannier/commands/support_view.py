"""How well an answer stands on its sources, as lines of text."""

from pannier.commands.formatting import shorten
from pannier.commands.output import Output
from pannier.rag.v1 import quality_pb2, rag_service_pb2

__all__ = ["describe_quality", "show_support"]

_SENTENCE_CHARACTERS = 70
_MARKS = {
    quality_pb2.SUPPORT_STATUS_SUPPORTED: "supported",
    quality_pb2.SUPPORT_STATUS_PARTIAL: "partly",
    quality_pb2.SUPPORT_STATUS_UNSUPPORTED: "unsupported",
    quality_pb2.SUPPORT_STATUS_NUMBER_MISMATCH: "wrong number",
}


def describe_quality(response: rag_service_pb2.QueryResponse) -> str:
    """Says in a few words how good an answer is; empty where that is not known."""
    if not response.HasField("quality"):
        return ""
    quality = response.quality
    return (
        f"quality {quality.score:.2f} (retrieval {quality.retrieval_confidence:.2f}, grounded "
        f"{quality.groundedness:.0%}, citations right {quality.citation_precision:.0%}, cited "
        f"{quality.citation_coverage:.0%})"
    )


def show_support(output: Output, response: rag_service_pb2.QueryResponse) -> None:
    """Shows what checking each sentence of an answer found."""
    claims = [each for each in response.sentences if each.status in _MARKS]
    if not claims:
        return
    output.line()
    output.table(
        ("checked", ">support", ">source", "sentence"),
        [
            (
                _MARKS[each.status],
                f"{each.support_ratio:.2f}",
                f"[{each.marker}]{'+' if each.citation_added else ''}" if each.marker else "",
                _sentence(response, each),
            )
            for each in claims
        ],
    )


def _sentence(
    response: rag_service_pb2.QueryResponse, sentence: quality_pb2.SentenceSupport
) -> str:
    text = response.answer[sentence.answer_char_start : sentence.answer_char_end]
    shown = shorten(" ".join(text.split()), _SENTENCE_CHARACTERS)
    unfounded = ", ".join(sentence.unfounded)
    return f"{shown} (not in the sources: {unfounded})" if unfounded else shown
