"""One question on its way to an answer."""

import re
from dataclasses import dataclass, field, replace

from services.rag.core.conversation import Sampling
from services.rag.core.options import CachePolicy, Mode, Question
from services.rag.core.profile import DegradationReason
from services.rag.core.prompt import Prompt
from services.rag.recorder import Recorder

__all__ = ["AnswerDefaults", "AnswerTask"]

# What the cache takes. Names of collections are such, but that of one that is not there may be any.
_NAMESPACE = re.compile(r"[a-z0-9._-]{0,64}")
_MOST_JUDGED = 8
_LONGEST_JUDGED = 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDefaults:
    """What holds where the caller says nothing.

    Attributes:
        temperature: Randomness, 0 to 2.
        answer_token_count: Longest answer.
        context_token_count: Context window asked of the model, the same for every question.
    """

    temperature: float
    answer_token_count: int
    context_token_count: int

    def applied_to(self, sampling: Sampling, *, model_context_count: int = 0) -> Sampling:
        """Fills in what is missing.

        Args:
            sampling: What the caller says.
            model_context_count: Context length the model was trained for; 0 where not known. A
                larger window is never asked for.
        """
        context = sampling.context_token_count or self.context_token_count
        return replace(
            sampling,
            temperature=(
                self.temperature if sampling.temperature is None else sampling.temperature
            ),
            max_output_token_count=sampling.max_output_token_count or self.answer_token_count,
            context_token_count=min(context, model_context_count)
            if model_context_count
            else context,
        )


@dataclass(slots=True, kw_only=True)
class AnswerTask:
    """One question on its way to an answer.

    Attributes:
        tenant_id: Owner of the collection.
        question: What is asked.
        sampling: How tokens are chosen, defaults filled in.
        recorder: Receives stages, degradations and warnings.
        partial_answers: Whether texts are shown as they come.
        cache_is_away: Whether the cache did not answer; it is then not waited for again.
        is_coalesced: Whether the answer was just computed for another call, which then sees to
            it that it is kept.
        basis_time_ns: When the cache was first asked, by its store's clock, nanoseconds since
            1970; None where that is not known. What is invalidated later on, the answer does not
            reckon with.
        model_digest: Model that will answer; empty where it is not known yet.
        prompt: What decides the prompt's wording beside question and sources.
        rewritten: The question as it was understood; empty where it is taken as it is.
        must_be_anew: Whether the answer is known to depend on when or by whom the question is
            asked, so that it is nobody else's.
    """

    tenant_id: str
    question: Question
    sampling: Sampling
    recorder: Recorder
    partial_answers: bool
    cache_is_away: bool = False
    is_coalesced: bool = False
    basis_time_ns: int | None = None
    model_digest: str = ""
    prompt: Prompt = field(default_factory=Prompt)
    rewritten: str = ""
    must_be_anew: bool = False

    @property
    def namespace(self) -> str:
        """The compartment of the cache that its answers belong to: that of its collection."""
        collection = self.question.collection
        is_named = self.question.mode is not Mode.DIRECT and _NAMESPACE.fullmatch(collection)
        return collection if is_named else ""

    @property
    def asked(self) -> str:
        """The question that passages are looked for and the model is asked."""
        return self.rewritten or self.question.text

    @property
    def questions(self) -> tuple[str, ...]:
        """What a person asks with it, for the cache to judge: the question, then earlier ones."""
        earlier = (each.question for each in reversed(self.prompt.history))
        texts = dict.fromkeys((self.question.text, self.asked, *earlier))
        judged = [each for each in texts if 1 <= len(each) <= _LONGEST_JUDGED]
        return tuple(judged[:_MOST_JUDGED])

    @property
    def reasons(self) -> frozenset[DegradationReason]:
        """What could not be done so far as it should have been."""
        return frozenset(each.reason for each in self.recorder.degradations)

    @property
    def is_repeatable(self) -> bool:
        """Whether the model gives the same answer each time."""
        return self.sampling.temperature == 0 or self.sampling.seed is not None

    @property
    def may_look_up(self) -> bool:
        """Whether the answer may come from the cache."""
        return (
            self._is_cacheable
            and self.question.cache_policy is CachePolicy.USE
            and not self.cache_is_away
        )

    @property
    def may_keep(self) -> bool:
        """Whether the answer may be kept for others."""
        return (
            self._is_cacheable
            and self.question.cache_policy is not CachePolicy.BYPASS
            and not self.cache_is_away
        )

    def note_read_time(self, read_time_ns: int | None) -> None:
        """Notes when a lookup was made; the first one counts."""
        if self.basis_time_ns is None:
            self.basis_time_ns = read_time_ns

    def lose_cache(self, stage: str, *, entirely: bool = True) -> None:
        """Notes that the cache was of no use in a stage.

        Args:
            stage: The stage.
            entirely: Whether it is not to be asked again; else its store was away only.
        """
        self.cache_is_away |= entirely
        self.recorder.degrade(
            DegradationReason.CACHE_UNAVAILABLE, stage, "the cache or its store did not answer"
        )

    @property
    def _is_cacheable(self) -> bool:
        """Whether one answer may stand for others: a chance answer only if it has sources."""
        has_one_answer = self.is_repeatable or self.question.mode is not Mode.DIRECT
        return has_one_answer and not self.must_be_anew
