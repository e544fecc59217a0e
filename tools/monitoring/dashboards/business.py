"""Business metrics: who asks what, and are the answers any good?"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import (
    increase,
    mean,
    occurring,
    quantile,
    rate,
    ratio,
    topmost,
)
from tools.monitoring.dashboards.kinds import gauge, lines, on_the_right, pie, stat
from tools.monitoring.dashboards.panels import Limits, Query, Why, below

__all__ = ["BUSINESS"]

_RETRIEVALS = "rag_retrievals_total"
_SENTENCES = "rag_verified_sentences_total"
_UNSUPPORTED = f'{_SENTENCES}{{status=~"unsupported|number_mismatch"}}'
_CLAIMS = f'{_SENTENCES}{{status!="no_claim"}}'

_ASKED = "rag_tenant_requests_total"

_USE = Section(
    "Who asks what",
    (
        stat(
            2,
            "Queries per hour",
            Why(
                "Questions within the last hour.",
                "It is how much the suite is used.",
                "Half of the usual at a usual hour: are clients failing before they reach rag?",
            ),
            Query(increase("rag_requests_total", window="1h"), "last hour"),
            unit="short",
            decimals=0,
            height=7,
        ),
        stat(
            3,
            "Active tenants (5 min)",
            Why(
                "Tenants that asked within the last five minutes; the most that a replica has "
                "seen.",
                "It tells a broad drop from one client's.",
                "If it falls together with the queries, it is not a single client.",
            ),
            Query("max(rag_active_tenants)", "tenants"),
            unit="short",
            height=7,
        ),
        lines(
            10,
            "Queries per tenant",
            Why(
                "Questions each second of the ten tenants that asked most within the chosen range.",
                "One tenant's burst is everybody's queue.",
                "A tenant in a loop: talk to its owner, or give it a budget.",
            ),
            Query(
                topmost(rate(_ASKED, "tenant"), _ASKED, "tenant"),
                "{{tenant}}",
            ),
            unit="reqps",
            width=12,
            height=7,
        ),
        pie(
            1,
            "Query types",
            Why(
                "Questions within the chosen range, by what kind they were taken for.",
                "The kind decides how a question is answered.",
                "If one kind grows and quality falls, look at how that kind is answered.",
            ),
            Query(increase("rag_query_types_total", "type"), "{{type}}"),
        ),
        pie(
            7,
            "Model usage",
            Why(
                "Texts asked of models within the chosen range, by model; those that callers have "
                "reported of models elsewhere are among them.",
                "Each model in use needs memory on some backend.",
                "Models with few calls push out others; move their users to a common one.",
            ),
            Query(increase('rag_llm_calls_total{cached="false"}', "model"), "{{model}}"),
        ),
        lines(
            11,
            "Conversation turns",
            Why(
                "Turns of conversations each second, by what became of them.",
                "Interrupted ones are users who did not wait, or lines that broke.",
                "Lost ones: they could not be kept; PostgreSQL was away.",
            ),
            Query(rate("rag_turns_total", "outcome"), "{{outcome}}"),
            unit="ops",
        ),
    ),
)

_ANSWERS = Section(
    "Are the answers any good",
    (
        gauge(
            4,
            "Context retrieval success",
            Why(
                "Retrievals that found something, among all, those that failed included, now.",
                "Nothing found means an answer from memory, from the web, or none.",
                "If it falls while nothing failed: questions are about what no document holds.",
            ),
            Query(ratio(rate(f'{_RETRIEVALS}{{outcome="success"}}'), rate(_RETRIEVALS)), "found"),
            unit="percentunit",
            most=1,
            limits=Limits((("blue", None),)),
            height=8,
        ),
        gauge(
            5,
            "Response quality",
            Why(
                "Mean quality of answers from 0 to 1, now; those in mode direct have none.",
                "It is measured by rules on each answer, not by users; compare with Feedback.",
                "Below its limit: Quality score trend on System health shows since when.",
            ),
            Query(mean("rag_quality_score"), "quality"),
            unit="percentunit",
            most=1,
            limits=below(limits.LOW_QUALITY_SCORE),
            height=8,
            alerts=("LowQualityScore",),
        ),
        lines(
            12,
            "Feedback of users",
            Why(
                "What users think of answers, each second by rating; on the right the share of "
                "negative ones.",
                "It is the only judgement from outside.",
                "Negative ones that grow: read their questions; `pannier eval` can measure them.",
            ),
            Query(rate("rag_feedback_total", "rating"), "{{rating}}"),
            Query(
                ratio(rate('rag_feedback_total{rating="negative"}'), rate("rag_feedback_total")),
                "share of negative",
            ),
            unit="ops",
            width=12,
            overrides=(on_the_right("B", "percentunit", most=1),),
        ),
        lines(
            13,
            "Verified sentences",
            Why(
                "Sentences of answers checked against their sources, as shares by what was found; "
                "those of answers given again count each time.",
                "A sentence without support is what users call made up.",
                "More unsupported ones after a change of model or prompt: take it back.",
            ),
            Query(
                f"{rate(_SENTENCES, 'status')} / on () group_left () ({rate(_SENTENCES)} > 0)",
                "{{status}}",
            ),
            unit="percentunit",
            stacked=True,
        ),
        lines(
            14,
            "Claims without support",
            Why(
                "Sentences that no source supports, or whose numbers differ, among those that "
                "claim something.",
                "It is the rate of made-up statements.",
                "Rising: compare by mode in traces; retrieval that finds less leads to it, too.",
            ),
            Query(ratio(rate(_UNSUPPORTED), rate(_CLAIMS)), "without support"),
            unit="percentunit",
            small=0.2,
        ),
        lines(
            8,
            "Cache impact on latency",
            Why(
                "The time within which half of the answers were whole, by how the cache took part; "
                "what failed is not among them.",
                "The distance between hit and miss is what the cache is worth to users.",
                "If hits get slow, it is the cache; if only misses do, it is the fleet.",
            ),
            Query(quantile(0.5, "rag_request_duration_seconds", "cache"), "{{cache}}"),
            unit="s",
        ),
    ),
)

_CONTENT = Section(
    "Documents and the web",
    (
        lines(
            9,
            "Documents and chunks",
            Why(
                "Documents handed in each second by what became of them; on the right how many "
                "documents and chunks the index had when it was last counted.",
                "What is not in the index can not be found.",
                "Failed ones: `pannier jobs` names the documents and why.",
            ),
            Query(rate("rag_ingest_documents_total", "outcome"), "{{outcome}}"),
            Query("max(rag_index_chunks)", "chunks in the index"),
            Query("max(rag_index_documents)", "documents in the index"),
            unit="ops",
            overrides=(on_the_right("B", "short"), on_the_right("C", "short")),
        ),
        lines(
            6,
            "Web fallback rate",
            Why(
                "Questions that the web was searched for, among all, by why: nothing_found or "
                "low_confidence in the documents, or requested by the caller. What agents look "
                "for by themselves is not among them.",
                "The first two measure what your documents lack.",
                "If they rise: see which questions, and ingest what they are about.",
            ),
            Query(
                f"{rate('rag_web_fallbacks_total', 'reason')} / on () group_left () "
                f"({rate('rag_requests_total')} > 0)",
                "{{reason}}",
            ),
            unit="percentunit",
            small=0.2,
            stacked=True,
        ),
        lines(
            15,
            "Web searches and pages",
            Why(
                "Searches of the web and pages read each second, by what came of them.",
                "Pages that are refused or time out are waits without use.",
                "Errors of searches: the search service. Refused pages: they forbid being read.",
            ),
            Query(occurring("rag_web_searches_total", "outcome"), "search, {{outcome}}"),
            Query(occurring("rag_web_pages_total", "outcome"), "page, {{outcome}}"),
            unit="ops",
        ),
    ),
)

BUSINESS = Dashboard(
    uid="business",
    title="Business metrics",
    question="Who asks what, and are the answers any good?",
    group="business",
    refresh="1m",
    span="6h",
    sections=(_USE, _ANSWERS, _CONTENT),
)
