"""Protobuf to what the semantic layer works with, and back."""

from functools import lru_cache

from pannier.cache.v1 import semantic_pb2 as pb
from services.cache import convert
from services.cache.canonical import canonical_fields
from services.cache.core.model import Scope
from services.cache.core.savings import Savings
from services.cache.core.semantic.decision import Reason, SemanticOutcome
from services.cache.core.semantic.entries import split_entry_id
from services.cache.core.semantic.guards import Guard
from services.cache.core.semantic.index import unit_vector
from services.cache.core.semantic.names import partition_name
from services.cache.core.semantic.scope import QuestionScope
from services.cache.core.semantic.verdict import Judge, Verdict
from services.cache.look_up_semantic import Question, SemanticLookup, SemanticMatch
from services.cache.report_outcome import Report
from services.cache.semantic_calibration import Subject
from services.cache.semantic_layer import Where
from services.cache.store_semantic import Answered

__all__ = ["GUARDS", "SCOPES", "answered", "lookup", "payload", "question", "report", "where"]

# Of partitions in use there are few, and their names are asked for with each question. At most
# 4 MiB; only what newer callers add that this release does not know can be longer.
_MOST_KNOWN = 1024
_LONGEST_KNOWN_BYTES = 4096

_OUTCOMES = {
    SemanticOutcome.EXACT: pb.SEMANTIC_OUTCOME_HIT_EXACT,
    SemanticOutcome.SIMILAR: pb.SEMANTIC_OUTCOME_HIT_SIMILAR,
    SemanticOutcome.CANDIDATE: pb.SEMANTIC_OUTCOME_CANDIDATE,
    SemanticOutcome.MISS: pb.SEMANTIC_OUTCOME_MISS,
    SemanticOutcome.BYPASSED: pb.SEMANTIC_OUTCOME_BYPASSED,
}
_REASONS = {
    None: pb.CANDIDATE_REASON_UNSPECIFIED,
    Reason.UNPROVEN: pb.CANDIDATE_REASON_UNPROVEN,
    Reason.OVER_BUDGET: pb.CANDIDATE_REASON_OVER_BUDGET,
    Reason.COLLECTION_CHANGED: pb.CANDIDATE_REASON_COLLECTION_CHANGED,
    Reason.BELOW_THRESHOLD: pb.CANDIDATE_REASON_BELOW_THRESHOLD,
}
SCOPES = {
    None: pb.SEMANTIC_SCOPE_UNSPECIFIED,
    QuestionScope.TIME_RELATIVE: pb.SEMANTIC_SCOPE_TIME_RELATIVE,
    QuestionScope.PERSONAL: pb.SEMANTIC_SCOPE_PERSONAL,
    QuestionScope.TOO_LONG: pb.SEMANTIC_SCOPE_TOO_LONG,
}
GUARDS = {
    Guard.NUMBERS: pb.SEMANTIC_GUARD_NUMBERS,
    Guard.UNITS: pb.SEMANTIC_GUARD_UNITS,
    Guard.DATES: pb.SEMANTIC_GUARD_DATES,
    Guard.NEGATION: pb.SEMANTIC_GUARD_NEGATION,
    Guard.POLARITY: pb.SEMANTIC_GUARD_POLARITY,
    Guard.ENTITIES: pb.SEMANTIC_GUARD_ENTITIES,
    Guard.DIRECTION: pb.SEMANTIC_GUARD_DIRECTION,
    Guard.QUANTIFIERS: pb.SEMANTIC_GUARD_QUANTIFIERS,
    Guard.COMPARATIVES: pb.SEMANTIC_GUARD_COMPARATIVES,
    Guard.QUESTION_TYPE: pb.SEMANTIC_GUARD_QUESTION_TYPE,
    Guard.CONTENT_WORDS: pb.SEMANTIC_GUARD_CONTENT_WORDS,
}
_VERDICTS = {
    pb.MATCH_VERDICT_RIGHT: Verdict.RIGHT,
    pb.MATCH_VERDICT_WRONG: Verdict.WRONG,
    pb.MATCH_VERDICT_UNDECIDED: Verdict.UNDECIDED,
}
_JUDGES = {
    pb.MATCH_JUDGE_EVIDENCE: Judge.EVIDENCE,
    pb.MATCH_JUDGE_RECOMPUTATION: Judge.RECOMPUTATION,
    pb.MATCH_JUDGE_MODEL: Judge.MODEL,
    pb.MATCH_JUDGE_PERSON: Judge.PERSON,
}


def where(message: pb.SemanticPartition, *, tenant_id: str, pepper: bytes) -> Where:
    """Returns a partition; digests are the same in either case."""
    partition = message.SerializeToString()
    named = _known if len(partition) <= _LONGEST_KNOWN_BYTES else _where
    return named(partition, tenant_id, pepper)


def _where(partition: bytes, tenant_id: str, pepper: bytes) -> Where:
    decisive = pb.SemanticPartition.FromString(partition)
    decisive.embedding_model_digest = decisive.embedding_model_digest.lower()
    decisive.model_digest = decisive.model_digest.lower()
    scope = Scope(tenant_id, decisive.namespace, decisive.model_digest)
    return Where(
        name=partition_name(canonical_fields(decisive), scope=scope, pepper=pepper),
        subject=Subject(tenant_id, decisive.namespace, decisive.embedding_model_digest),
    )


_known = lru_cache(maxsize=_MOST_KNOWN)(_where)


def question(request: pb.LookupSemanticRequest, place: Where) -> Question:
    """Returns what is asked."""
    return Question(
        where=place,
        query=request.query,
        vector=unit_vector(request.vector.float32_le) if request.HasField("vector") else None,
        control=convert.control(request.control),
        min_similarity=request.min_similarity if request.HasField("min_similarity") else None,
        collections=tuple(request.collections),
    )


def payload(request: pb.StoreSemanticRequest) -> bytes:
    """Returns what is kept of an answer handed over, besides its question."""
    kept = pb.StoreSemanticRequest(answer=request.answer, evidence=request.evidence)
    return kept.SerializeToString(deterministic=True)


def answered(request: pb.StoreSemanticRequest, place: Where, kept: bytes) -> Answered:
    """Returns a question with its answer."""
    return Answered(
        where=place,
        query=request.query,
        vector=unit_vector(request.vector.float32_le),
        payload=kept,
        savings=Savings(
            request.usage.prompt_token_count,
            request.usage.completion_token_count,
            convert.seconds(request.generation_time),
        ),
        keeping=convert.keeping(request.control),
    )


def report(request: pb.ReportOutcomeRequest, place: Where) -> Report:
    """Returns what was found out."""
    entry = split_entry_id(request.entry_id)
    assert entry is not None  # noqa: S101 - validated
    form, version = entry
    return Report(
        where=place,
        form=form,
        version=version,
        similarity=request.similarity,
        verdict=_VERDICTS[request.verdict],
        judge=_JUDGES[request.judge],
        served=request.served,
        mode=convert.mode_or_carried(request.mode),
    )


def lookup(found: SemanticLookup) -> pb.LookupSemanticResponse:
    """Reports what is known of a question."""
    response = pb.LookupSemanticResponse(
        outcome=_OUTCOMES[found.outcome],
        rejections=[
            pb.SemanticRejection(similarity=each.similarity, guard=GUARDS[each.guard])
            for each in found.rejections
        ],
        threshold=found.threshold,
        scope=SCOPES[found.question_scope],
        read_time=convert.timestamp_from_ms(found.read_ms),
        degraded=found.degraded,
    )
    if found.match is not None:
        _write_match(response.match, found.match)
    return response


def _write_match(message: pb.SemanticMatch, match: SemanticMatch) -> None:
    # In place: made by itself, an answer of many passages would be copied once more.
    kept = pb.StoreSemanticRequest.FromString(match.answer.payload)
    message.entry_id = match.entry.entry_id
    message.query = match.entry.question
    message.similarity = match.similarity
    message.answer.CopyFrom(kept.answer)
    message.evidence.extend(kept.evidence)
    message.age.CopyFrom(convert.duration(match.answer.age_seconds))
    message.remaining.CopyFrom(convert.duration(match.answer.remaining_seconds))
    message.candidate_reason = _REASONS[match.reason]
    message.verification_wanted = match.verification_wanted
