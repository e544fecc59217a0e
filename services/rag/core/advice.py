"""What to do about a slow call, from a fixed table."""

from collections.abc import Sequence

__all__ = ["advise"]

_IDLE_RATIO = 0.3
_IDLE_SECONDS = 0.1

_BY_STAGE = {
    "collection": "PostgreSQL answers slowly: look at its load and at the pool of connections.",
    "embed_question": "Embedding the question took long: keep the embedding model loaded, or give "
    "it to more backends.",
    "embed_variants": "Embedding other wordings took long: keep the embedding model loaded, or "
    "give it to more backends.",
    "search_variants": "Searching for other wordings took long: ask for fewer candidates, or leave "
    "expansion to doubt.",
    "vector_search": "The search by meaning took long: ask for fewer candidates, or see whether "
    "the vector index fits into PostgreSQL's memory.",
    "keyword_search": "The search by words took long: ask for fewer candidates, or see whether "
    "PostgreSQL has been analysed since the last large ingestion.",
    "load_passages": "Loading the passages took long: ask for fewer, or look at PostgreSQL's load.",
    "rerank": "Reranking took long: lower its time limit, or ask for it where the searches leave "
    "doubt only.",
    "expand": "Finding other wordings took long: use a smaller model for it, or leave it to doubt.",
    "rewrite": "Rewriting the question took long: use a smaller model for it.",
    "agent_step": "The model took long to choose its tools: use a faster one, or allow it fewer "
    "steps.",
    "web_find": "The search engine answered slowly: look at its load and at the engines it asks.",
    "web_read": "Pages of the web were slow: read fewer, or lower the time limit of the web "
    "search.",
    "web_search": "The web answered slowly: lower the time limit of the web search.",
    "generate": "The model took long: ask for a shorter answer, use a smaller model, or add "
    "backends that hold it.",
    "inference_lookup": "Another call was computing the same answer: give callers a longer "
    "deadline, or look at what kept that call.",
    "query_lookup": "The cache answered slowly: look at its load and at that of Redis.",
    "semantic_lookup": "The cache answered slowly: look at its load and at that of Redis.",
    "verify": "Checking the answer took long: ask for a shorter answer.",
    "model": "The list of models took long: look at the balancer's load.",
}
_CACHE_IS_AWAY = "The cache did not answer, so all was computed: see whether it and Redis run."
_IDLE = "Much time passed between the stages: the process is short of processor time."


def advise(
    bottlenecks: Sequence[str], *, cache_is_away: bool, idle_seconds: float, total_seconds: float
) -> tuple[str, ...]:
    """Says what to do about a slow call.

    Args:
        bottlenecks: Stages that took much of the time, worst first.
        cache_is_away: Whether a stage did without the cache.
        idle_seconds: Time in which no stage was under way.
        total_seconds: Time of the whole call.
    """
    advice = [_BY_STAGE[name] for name in bottlenecks if name in _BY_STAGE]
    if cache_is_away:
        advice.append(_CACHE_IS_AWAY)
    if idle_seconds > max(_IDLE_SECONDS, _IDLE_RATIO * total_seconds):
        advice.append(_IDLE)
    return tuple(dict.fromkeys(advice))
