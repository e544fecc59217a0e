"""What is said where the documents do not hold the answer."""

from collections.abc import Sequence

from services.rag.core.analysis import analyse_query
from services.rag.core.passages import RankedPassage
from services.rag.core.retrieved import Band, Confidence

__all__ = ["NO_MATCH", "is_hopeless", "refusal_text"]

NO_MATCH = "Nothing in the collection matches the question."

# A question is refused only far below the band's upper end: refusing what could be answered is
# worse than asking a model that then says that the sources lack the answer.
_HOPELESS_SCORE = 0.25
# Where more than this share of the question's words stands in the passages they are worth a look:
# in a collection whose documents are all alike the score is low whatever is asked.
_HOPELESS_SHARE = 0.25
_MOST_TITLES = 3


def is_hopeless(confidence: Confidence, question: str, passages: Sequence[RankedPassage]) -> bool:
    """Says whether passages clearly do not hold the answer, so that no model need be asked.

    What was searched by words alone is hopeless only where not a word of it stands in them.

    Args:
        confidence: How likely they hold it.
        question: The question.
        passages: The passages.
    """
    if confidence.band is not Band.LOW or confidence.score >= _HOPELESS_SCORE:
        return False
    by_words_alone = confidence.vector_percentile is None and confidence.rerank_ratio is None
    wanted = set(analyse_query(question))
    most = 0.0 if by_words_alone else _HOPELESS_SHARE * len(wanted)
    missing = set(wanted)
    for each in passages:
        missing.difference_update(analyse_query(f"{each.passage.header}\n{each.passage.text}"))
        if len(wanted) - len(missing) > most:
            return False
    return True


def refusal_text(passages: Sequence[RankedPassage]) -> str:
    """Says that the documents do not hold the answer, and which come nearest."""
    titles = dict.fromkeys(each.passage.title or each.passage.document_id for each in passages)
    nearest = "; ".join(list(titles)[:_MOST_TITLES])
    return f"The documents do not hold an answer to this question. Nearest to it: {nearest}."
