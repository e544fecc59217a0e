"""What models, tools and vectors cost, and what caches save, as metrics."""

from services.common.metrics import OVERFLOW, Metrics
from services.rag.core.conversation import TokenUsage
from services.rag.meter import mode_label
from services.rag.tenants import Tenants

__all__ = [
    "INFERENCE_LAYER",
    "LLM",
    "NO_CURRENCY",
    "RETRIEVAL",
    "SEMANTIC_LAYER",
    "TOOL",
    "Spending",
]

NO_CURRENCY = "none"
"""Stands for the currency where there are no prices."""

LLM, TOOL, RETRIEVAL = "llm", "tool", "retrieval"
INFERENCE_LAYER, SEMANTIC_LAYER = "inference", "semantic"
_NANOS = 1e9
# Of the models that metrics tell apart, those that callers may name.
_MOST_TRACKED_MODELS = 8
_MOST_MODELS = 1000


class Spending:
    """Measures what is spent.

    Args:
        metrics: Receives it.
        tenants: Know what tenants are called.
        currency: ISO code of the prices; empty where there are none.
    """

    def __init__(self, metrics: Metrics, *, tenants: Tenants, currency: str) -> None:
        self.metrics = metrics
        self.tenants = tenants
        self._served: set[str] = set()
        self._tracked: set[str] = set()
        self._currency = currency or NO_CURRENCY
        metrics.create_series("currency", self._currency)

    def add_cost(
        self, cost_nanos: int, *, tenant_id: str, mode: str, kind: str, model: str = ""
    ) -> None:
        """Measures what was spent.

        Args:
            cost_nanos: How much, in billionths of the currency.
            tenant_id: Who has spent it.
            mode: How the question is answered that it was spent for.
            kind: `LLM`, `TOOL` or `RETRIEVAL`.
            model: The model that asks for it; empty where none does.
        """
        amount, metrics, currency = cost_nanos / _NANOS, self.metrics, self._currency
        metrics.count("rag_cost_total", currency, mode_label(mode), kind, amount=amount)
        tenant = self.tenants.label(tenant_id)
        metrics.count("rag_tenant_cost_total", currency, tenant, amount=amount)
        if model:
            metrics.count("rag_model_cost_total", currency, model, amount=amount)

    def add_text(self, mode: str, model: str, usage: TokenUsage) -> None:
        """Measures a text that a model has made."""
        if len(self._served) < _MOST_MODELS and model not in self._tracked:
            self._served.add(model)
        label = mode_label(mode)
        self.metrics.count("rag_llm_calls_total", label, model, "false")
        for direction, amount in (
            ("input", usage.prompt_token_count),
            ("output", usage.completion_token_count),
        ):
            self.metrics.count("rag_llm_tokens_total", label, model, direction, amount=amount)

    def tracked(self, model: str) -> str:
        """Returns what a model is called of which callers say that they have asked it.

        They may name any number of them, and leave room for those of the fleet all the same.
        """
        if model not in self._served and model not in self._tracked:
            if len(self._tracked) >= _MOST_TRACKED_MODELS:
                return OVERFLOW
            self._tracked.add(model)
        return model

    def add_cached_text(self, mode: str, model: str, *, layer: str, cost_nanos: int) -> None:
        """Measures a text that was not made since it was known.

        Args:
            mode: How the question is answered that it was for.
            model: The model that made it.
            layer: `INFERENCE_LAYER` or `SEMANTIC_LAYER`.
            cost_nanos: What it cost when it was made.
        """
        label = mode_label(mode)
        self.metrics.count("rag_llm_calls_total", label, model, "true")
        amount = cost_nanos / _NANOS
        self.metrics.count("rag_cost_saved_total", self._currency, label, layer, amount=amount)

    def add_question(
        self, mode: str, outcome: str, *, tenant_id: str, generation_count: int
    ) -> None:
        """Measures a question that has ended.

        Args:
            mode: How it was answered.
            outcome: `success`, `error`, `refused` or `cancelled`.
            tenant_id: Who has asked.
            generation_count: Texts that models were asked for.
        """
        tenant = self.tenants.label(tenant_id)
        self.metrics.count("rag_tenant_requests_total", tenant, outcome)
        self.metrics.observe("rag_llm_calls_per_query", generation_count, mode)
