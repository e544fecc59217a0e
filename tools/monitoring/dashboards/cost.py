"""Cost optimisation: what do answers cost, and what does the cache save?

Prices come from the settings, in a currency that the series name; Ollama itself sends no bill.
No panel has a currency of its own: limits are in units of whatever the settings name.
"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import increase, mean, rate
from tools.monitoring.dashboards.kinds import gauge, lines, override, pie, stat
from tools.monitoring.dashboards.panels import Limits, Query, Why, above
from tools.monitoring.dashboards.tables import Column, table

__all__ = ["COST_OPTIMIZATION"]

_COST = "rag_cost_total"
_SAVED = "rag_cost_saved_total"
_DAY = 86_400
_SAVED_COST = increase(_SAVED, "currency")
_SPENT_OR_SAVED = f"{_SAVED_COST} + {increase(_COST, 'currency')}"
# Ingestion, searches alone and what nobody waits for are no part of a question.
_OF_QUESTIONS = 'mode!~"retrieve|other"'
_DAILY = f"{rate(_COST, 'currency', window='10m')} * {_DAY}"
_NOT_STACKED = {"group": "A", "mode": "none"}
_TOP_TENANTS = f"topk(10, {increase('rag_tenant_cost_total', 'tenant, currency')})"

_BILL = Section(
    "What answers cost",
    (
        stat(
            1,
            "Estimated daily cost",
            Why(
                "Cost of a day if all of it were like the last hour, in the currency of the "
                "prices. An estimate: tokens, tool calls and retrievals times the prices set.",
                "It shows a change within an hour that a bill shows after a month.",
                "Above its limit: Cost per mode and Most expensive tenants say whose it is.",
            ),
            Query(f"{rate(_COST, 'currency', window='1h')} * {_DAY}", "{{currency}}"),
            unit="short",
            decimals=2,
            width=5,
            height=8,
            limits=above(limits.DAILY_COST, limits.DAILY_COST / 2),
            alerts=("HighDailyCost",),
        ),
        pie(
            2,
            "Cost breakdown",
            Why(
                "Cost within the chosen range by type: models, tools and retrieval.",
                "The largest piece is where saving is worth the effort.",
                "Mostly models: a smaller model or more hits. Mostly tools: fewer web searches.",
            ),
            Query(increase(_COST, "type, currency"), "{{type}}, {{currency}}"),
            width=8,
        ),
        lines(
            10,
            "Cost trend",
            Why(
                "Cost of a day at the last hour's rate, over time, by type; beside it the cost of "
                "a day at the last ten minutes' rate.",
                "A step is a change of traffic, model or price; a slope is growth.",
                "Ten minutes at more than twice the rate of the hour before the last, and above "
                "the lower line, call somebody: find what was deployed or who began to ask then.",
            ),
            Query(
                f"{rate(_COST, 'type, currency', window='1h')} * {_DAY}", "{{type}}, {{currency}}"
            ),
            Query(_DAILY, "ten minutes, {{currency}}"),
            overrides=(override(("byFrameRefID", "B"), **{"custom.stacking": _NOT_STACKED}),),
            unit="short",
            width=11,
            stacked=True,
            limits=above(limits.DAILY_COST, limits.COST_SPIKE_FLOOR_PER_DAY),
            alerts=("SuddenCostSpike", "HighDailyCost"),
        ),
        table(
            8,
            "Cost per mode",
            Why(
                "Cost of each mode within the chosen range, in all and for one question. Mode "
                "retrieve is searches alone, other is ingestion and what nobody waits for.",
                "A mode that costs ten times as much should answer better.",
                "Compare with Quality score on Performance overview; steer questions that gain "
                "nothing to a cheaper mode.",
            ),
            Query(increase(_COST, "mode, currency")),
            Query(
                f"{increase(_COST, 'mode, currency')} / on (mode) group_left () "
                f"({increase('rag_requests_total', 'mode')} > 0)"
            ),
            labels={"mode": "Mode", "currency": "Currency"},
            columns=(Column("Cost", decimals=4), Column("Per question", decimals=6)),
            sort_by="Cost",
        ),
        table(
            9,
            "Most expensive tenants",
            Why(
                "The ten tenants that cost most within the chosen range, ingestion included.",
                "Cost is seldom spread evenly.",
                "Give those at the top a budget; Tenant budgets shows who has one.",
            ),
            Query(_TOP_TENANTS),
            labels={"tenant": "Tenant", "currency": "Currency"},
            columns=(Column("Cost", decimals=4),),
            sort_by="Cost",
        ),
        pie(
            12,
            "Cost by model",
            Why(
                "What each model has cost within the chosen range, for texts and for vectors.",
                "Model and length of the answer make the price.",
                "If a large model has most of it, try a smaller one on part of the questions.",
            ),
            Query(increase("rag_model_cost_total", "model, currency"), "{{model}}, {{currency}}"),
        ),
        lines(
            13,
            "Mean cost of a question",
            Why(
                "Cost of questions in relation to their number, within the last hour; what was "
                "spent beside them, on ingestion for example, is left out.",
                "It takes the traffic out: what remains is how dear answers are.",
                "If it rises alone, answers got longer, hits fewer, or the model dearer.",
            ),
            Query(
                f"{rate(f'{_COST}{{{_OF_QUESTIONS}}}', 'currency', window='1h')} "
                "/ on () group_left () "
                f"({rate('rag_requests_total', window='1h')} > 0)",
                "{{currency}}",
            ),
            unit="short",
            decimals=6,
        ),
        stat(
            14,
            "Tenant budgets",
            Why(
                "Tenants with a budget: within it, warned from 80 % of it on, or beyond it. Each "
                "replica of rag knows all of them.",
                "A tenant beyond its budget is refused.",
                "Warned ones: tell their owners before they are refused, or raise the budget.",
            ),
            Query("max by (state) (rag_budgets)", "{{state}}"),
            unit="short",
            width=8,
            height=8,
        ),
    ),
)

_SAVINGS = Section(
    "What the cache saves",
    (
        stat(
            4,
            "Cost saved through the cache",
            Why(
                "What texts of models that were cached would have cost within the chosen range, "
                "together and by layer: their tokens when they were made, at today's prices.",
                "It is the cache's return.",
                "If it is small while the hit rate is high, only cheap values are hit.",
            ),
            Query(increase(_SAVED, "currency"), "all, {{currency}}"),
            Query(increase(_SAVED, "layer, currency"), "{{layer}}, {{currency}}"),
            unit="short",
            decimals=4,
            width=9,
            height=8,
        ),
        gauge(
            11,
            "Cost savings",
            Why(
                "Share of the cost that the cache has saved, of what everything would have cost "
                "within the chosen range.",
                "It does not depend on the price level, and so compares months.",
                "If it falls, Cache hit rate over time on Cache performance shows the layer that "
                "does.",
            ),
            Query(f"{_SAVED_COST} / ({_SPENT_OR_SAVED} > 0)", "{{currency}}"),
            unit="percentunit",
            most=1,
            limits=Limits((("blue", None),)),
            width=5,
            height=8,
        ),
        lines(
            15,
            "Cost saved, as the cache counts",
            Why(
                "What the tokens that hits have saved would have cost each hour, by the prices "
                "set in the cache.",
                "It counts other clients of the cache, too, and so may be above what rag counts.",
                "Zero while hits come in: no prices are set in the cache's settings.",
            ),
            Query(f"{rate('cache_saved_cost_total', 'currency')} * 3600", "{{currency}} an hour"),
            unit="short",
            width=10,
        ),
        lines(
            16,
            "Tokens saved",
            Why(
                "Tokens each second that hits have saved, and those that callers have saved who "
                "got what another one computed.",
                "Tokens are what the fleet's time goes into; unlike cost they need no prices.",
                "If the tokens of shared computations are most of it, clients ask the same at "
                "once: let the answers live longer.",
            ),
            Query(rate("cache_saved_tokens_total", "kind"), "{{kind}}, hits"),
            Query(rate("cache_coalesced_tokens_total", "kind"), "{{kind}}, shared"),
            unit="short",
            stacked=True,
        ),
        lines(
            17,
            "Model time saved",
            Why(
                "Seconds of generation that hits save each second: 2 is as much as two more "
                "busy slots.",
                "It is the cache's return in machines.",
                "Compare with In flight by backend on Deep dive before you buy another machine.",
            ),
            Query(rate("cache_saved_seconds_total"), "seconds a second"),
            unit="short",
        ),
        lines(
            3,
            "LLM API calls (cached and not)",
            Why(
                "Texts asked of models each second, of which an answer may take several, and "
                "those that were cached instead.",
                "Only the first ones cost.",
                "If the cached ones vanish, look at Invalidation events on Cache performance.",
            ),
            Query(rate('rag_llm_calls_total{cached="false"}'), "asked"),
            Query(rate('rag_llm_calls_total{cached="true"}'), "cached"),
            unit="reqps",
            stacked=True,
        ),
    ),
)

_CAUSES = Section(
    "What cost is made of",
    (
        lines(
            5,
            "Token usage",
            Why(
                "Tokens each second that models read and generated for texts, answers and what "
                "prepares or checks them; vectors are not among them.",
                "Read tokens grow with the passages in the prompt, generated ones with the "
                "length of answers; both make time and cost.",
                "Read tokens far above the usual: fewer or shorter passages per question.",
            ),
            Query(rate("rag_llm_tokens_total", "direction"), "{{direction}}"),
            unit="short",
        ),
        lines(
            18,
            "Tokens by model",
            Why(
                "Tokens each second, read and generated, by model.",
                "A model that nobody meant to use shows here first.",
                "Unexpected models: look at the settings of modes and at clients' requests.",
            ),
            Query(rate("rag_llm_tokens_total", "model"), "{{model}}"),
            unit="short",
            stacked=True,
        ),
        lines(
            19,
            "Model calls per question",
            Why(
                "Mean number of texts that models were asked for one question, by mode; 0 for one "
                "that was answered from the cache.",
                "Each call has its own wait, tokens and cost.",
                "If an agent's number grows, its tools fail or its answers do not satisfy it.",
            ),
            Query(mean("rag_llm_calls_per_query", "mode"), "{{mode}}"),
            unit="short",
        ),
        lines(
            6,
            "Tool executions",
            Why(
                "Calls of tools that agents asked for each second, by tool, also those that were "
                "refused. Searches of the web in other modes are not among them.",
                "Tools may have prices, and each takes time before the answer.",
                "A sudden rise of web_search: the documents lack what is asked.",
            ),
            Query(rate("rag_tool_executions_total", "tool"), "{{tool}}"),
            unit="ops",
        ),
        lines(
            7,
            "RAG retrievals",
            Why(
                "Retrievals each second by mode, and the calls of each retriever.",
                "One question may retrieve several times, and each retrieval asks several "
                "retrievers; the web is asked beside them.",
                "Far more calls than retrievals: questions are worded in many ways; bound the "
                "number of variants.",
            ),
            Query(rate("rag_retrievals_total", "mode"), "mode {{mode}}"),
            Query(rate("rag_retriever_calls_total", "retriever"), "retriever {{retriever}}"),
            unit="ops",
        ),
        lines(
            20,
            "Tokens of a question",
            Why(
                "Tokens of texts, read and generated for questions, in relation to their number.",
                "It takes the traffic out of Token usage.",
                "A rise after a change of prompts or of the number of passages is its price.",
            ),
            Query(
                f"{rate(f'rag_llm_tokens_total{{{_OF_QUESTIONS}}}', 'direction')} "
                "/ on () group_left () "
                f"({rate('rag_requests_total')} > 0)",
                "{{direction}}",
            ),
            unit="short",
        ),
    ),
)

COST_OPTIMIZATION = Dashboard(
    uid="cost-optimization",
    title="Cost optimisation",
    question="What do answers cost, who causes it, and what does the cache save?",
    group="cost",
    refresh="1m",
    span="24h",
    sections=(_BILL, _SAVINGS, _CAUSES),
)
