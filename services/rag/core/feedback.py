"""What users think of answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Feedback", "FeedbackPage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a user thinks of an answer.

    Attributes:
        query_id: The query.
        user_id: Who says so; empty where that is not known.
        rating: -1 for bad, 0 for neither, 1 for good.
        reasons: Why, in words of a list that the callers keep.
        comment: In the user's own words.
        corrected_answer: What the answer should have been.
        relevant_passage_ids: Passages that hold the answer.
        mode: How the query was to be answered.
        model: Model that answered.
        variants: Variants of experiments that the query was part of.
        updated_seconds: When it was last said, seconds since the epoch; 0 where it just is.
    """

    query_id: str
    user_id: str
    rating: int
    reasons: tuple[str, ...] = ()
    comment: str = ""
    corrected_answer: str = ""
    relevant_passage_ids: tuple[str, ...] = ()
    mode: str = ""
    model: str = ""
    variants: Mapping[str, str] = field(default_factory=dict)
    updated_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FeedbackPage:
    """Some of what users said, the latest first.

    Attributes:
        feedback: What they said.
        more: Whether there is more.
    """

    feedback: tuple[Feedback, ...]
    more: bool
