"""Between messages and values of RagService, with the checks of its requests."""

from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.sampling import sampling_violations
from services.common.validation import Violations
from services.rag.answer_convert import drop_texts, to_answer_message
from services.rag.core.answer import Answer
from services.rag.core.conversation import Sampling
from services.rag.core.json_answers import parse_json
from services.rag.core.options import (
    AnswerPolicy,
    CachePolicy,
    Mode,
    OutputFormat,
    Question,
    Turn,
    WebPolicy,
)
from services.rag.recorder import Recorder
from services.rag.retrieval_convert import (
    MAXIMUM_QUERY_LENGTH,
    check_collection,
    check_query,
    retrieval_of,
)
from services.rag.stream_convert import to_degradation, to_profile

__all__ = ["question_of", "to_query_response"]

MAXIMUM_MODEL_LENGTH = 500
MAXIMUM_TURN_COUNT = 100
MAXIMUM_TURN_ANSWER_LENGTH = 65_536
MAXIMUM_SCHEMA_LENGTH = 65_536

_AS_CONFIGURED = Sampling()

_MODES = {
    pb.QUERY_MODE_UNSPECIFIED: Mode.RAG,
    pb.QUERY_MODE_DIRECT: Mode.DIRECT,
    pb.QUERY_MODE_RAG: Mode.RAG,
    pb.QUERY_MODE_DEEP: Mode.DEEP,
    pb.QUERY_MODE_AGENT: Mode.AGENT,
}
_ANSWER_POLICIES = {
    pb.ANSWER_POLICY_UNSPECIFIED: AnswerPolicy.GROUNDED_ONLY,
    **{pb.AnswerPolicy.Value(f"ANSWER_POLICY_{each.name}"): each for each in AnswerPolicy},
}
_WEB_POLICIES = {
    pb.WEB_POLICY_UNSPECIFIED: WebPolicy.AUTO,
    **{pb.WebPolicy.Value(f"WEB_POLICY_{each.name}"): each for each in WebPolicy},
}
_POLICIES = {
    pb.CACHE_POLICY_UNSPECIFIED: CachePolicy.USE,
    pb.CACHE_POLICY_USE: CachePolicy.USE,
    pb.CACHE_POLICY_BYPASS: CachePolicy.BYPASS,
    pb.CACHE_POLICY_REFRESH: CachePolicy.REFRESH,
}


def question_of(request: pb.QueryRequest) -> Question:
    """Reads a question.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations = Violations()
    check_query(request.query, violations)
    mode = _MODES.get(request.mode, Mode.RAG)
    violations.require(request.mode in _MODES, "mode", "Is no known QueryMode.")
    if mode is not Mode.DIRECT:
        check_collection(request.collection, violations)
    violations.check_text("model", request.model, maximum_length=MAXIMUM_MODEL_LENGTH)
    violations.require(
        request.cache_policy in _POLICIES, "cache_policy", "Is no known CachePolicy."
    )
    for name, known, kind in (
        ("answer_policy", _ANSWER_POLICIES, "AnswerPolicy"),
        ("web", _WEB_POLICIES, "WebPolicy"),
    ):
        violations.require(getattr(request, name) in known, name, f"Is no known {kind}.")
    answer_policy = _ANSWER_POLICIES.get(request.answer_policy, AnswerPolicy.GROUNDED_ONLY)
    output_format = _output_format_of(request, violations)
    violations.require(
        output_format is None or answer_policy is not AnswerPolicy.EXTRACTIVE,
        "output_format",
        "Must be absent with ANSWER_POLICY_EXTRACTIVE, whose answers are the sources' own words.",
    )
    history = _history_of(request, violations)
    retrieval = retrieval_of(request.retrieval, violations, field="retrieval")
    sampling = _sampling_of(request.sampling, violations)
    violations.raise_found()
    return Question(
        collection=request.collection,
        text=request.query.strip(),
        mode=mode,
        retrieval=retrieval,
        model=request.model.strip(),
        sampling=sampling,
        cache_policy=_POLICIES[request.cache_policy],
        answer_policy=answer_policy,
        web=_WEB_POLICIES[request.web],
        output_format=output_format,
        history=history,
        shows_passage_texts=(
            not request.HasField("include_passage_texts") or request.include_passage_texts
        ),
    )


def _output_format_of(request: pb.QueryRequest, violations: Violations) -> OutputFormat | None:
    form, kind = request.output_format, request.output_format.WhichOneof("kind")
    if kind is None:
        violations.require(
            not request.HasField("output_format"),
            "output_format",
            "Must say json or json_schema, or be absent.",
        )
        return None
    if kind == "json":
        violations.require(form.json, "output_format.json", "Must be true, or be absent.")
        return OutputFormat()
    field = "output_format.json_schema"
    violations.check_text(
        field, form.json_schema, minimum_length=1, maximum_length=MAXIMUM_SCHEMA_LENGTH
    )
    try:
        is_object = isinstance(parse_json(form.json_schema), dict)
    except ValueError:
        is_object = False
    violations.require(is_object, field, "Must be a JSON Schema: an object as JSON text.")
    return OutputFormat(form.json_schema)


def _history_of(request: pb.QueryRequest, violations: Violations) -> tuple[Turn, ...]:
    count = len(request.history)
    if count > MAXIMUM_TURN_COUNT:
        violations.add("history", f"Has {count} turns, at most {MAXIMUM_TURN_COUNT} are allowed.")
        return ()
    for index, turn in enumerate(request.history):
        field = f"history[{index}]"
        violations.check_text(
            f"{field}.question",
            turn.question,
            minimum_length=1,
            maximum_length=MAXIMUM_QUERY_LENGTH,
        )
        violations.check_plain(f"{field}.question", turn.question)
        violations.check_text(
            f"{field}.answer", turn.answer, maximum_length=MAXIMUM_TURN_ANSWER_LENGTH
        )
        violations.check_plain(f"{field}.answer", turn.answer)
    return tuple(Turn(each.question.strip(), each.answer) for each in request.history)


def _sampling_of(message: generation_pb2.SamplingOptions, violations: Violations) -> Sampling:
    if not message.ByteSize():
        # As it mostly is.
        return _AS_CONFIGURED
    violations.extend(sampling_violations(message, field="sampling"))
    given = {field.name: value for field, value in message.ListFields()}
    given["stop_sequences"] = tuple(message.stop_sequences)
    return Sampling(**given)


def to_query_response(
    answer: Answer, recorder: Recorder, *, trace_id: str, shows_passage_texts: bool = True
) -> pb.QueryResponse:
    """Writes a finished answer."""
    response = to_answer_message(answer, recorder.warnings)
    if not shows_passage_texts:
        drop_texts(response.passages)
    response.degradations.extend(to_degradation(each) for each in recorder.degradations)
    response.profile.CopyFrom(to_profile(recorder.profile()))
    recorder.told_profile = response.profile.SerializeToString()
    recorder.told_bottleneck = response.profile.bottleneck
    response.trace_id = trace_id
    response.backend_id = answer.backend_id
    response.experiment_variants.update(recorder.variants)
    return response
