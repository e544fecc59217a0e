"""Puts together what looks beyond the documents, for the composition root."""

from collections.abc import Callable

from services.common.server import Runtime
from services.rag.agent import Agent, AgentLimits
from services.rag.agent_tools import CalculatorTool, ClockTool, RetrieveTool, WebTool
from services.rag.core.prompt_size import PromptSizes
from services.rag.core.web_rules import WebRules
from services.rag.embed import EmbeddingSource
from services.rag.models import ModelCatalogue
from services.rag.parse_port import DocumentWorker
from services.rag.ports import ToolModels, WebSearch
from services.rag.retrieve import Retriever
from services.rag.settings import RagSettings
from services.rag.statistics import RagStatistics
from services.rag.web import PagedWeb, WebLimits
from services.rag.web_port import PageFetcher, SearchProvider

__all__ = ["make_agent", "make_web", "web_rules_of"]


def make_agent(
    settings: RagSettings,
    runtime: Runtime,
    *,
    models: ToolModels,
    catalogue: ModelCatalogue,
    retriever: Retriever,
    web: WebSearch | None,
    sizes: PromptSizes,
    statistics: RagStatistics,
    remaining_seconds: Callable[[], float | None],
) -> Agent:
    """Makes what has models look for passages, from the ports it needs."""
    return Agent(
        models=models,
        catalogue=catalogue,
        tools=(
            RetrieveTool(retriever),
            WebTool(web),
            CalculatorTool(),
            ClockTool(runtime.clock),
        ),
        sizes=sizes,
        limits=AgentLimits(
            step_count=settings.agent_step_count,
            call_count=settings.agent_call_count,
            tool_seconds=settings.agent_tool_time_limit_seconds,
            token_count=settings.agent_token_count,
        ),
        clock=runtime.clock,
        note=statistics.add_tool,
        remaining_seconds=remaining_seconds,
    )


def web_rules_of(settings: RagSettings) -> WebRules:
    """Returns which pages of the web may be fetched."""
    return WebRules(
        ports=frozenset(settings.web_ports),
        allowed_domains=settings.web_allowed_domains,
        denied_domains=settings.web_denied_domains,
        private_hosts=frozenset(settings.web_private_hosts),
    )


def make_web(
    settings: RagSettings,
    runtime: Runtime,
    *,
    provider: SearchProvider,
    fetcher: PageFetcher,
    worker: DocumentWorker,
    embeddings: EmbeddingSource,
    catalogue: ModelCatalogue,
) -> PagedWeb:
    """Makes what searches the web, from the ports it needs."""
    return PagedWeb(
        provider=provider,
        fetcher=fetcher,
        worker=worker,
        embeddings=embeddings,
        catalogue=catalogue,
        clock=runtime.clock,
        metrics=runtime.metrics,
        limits=WebLimits(
            page_count=settings.web_page_count,
            retention_seconds=settings.web_retention_seconds,
            retention_bytes=settings.web_retention_bytes,
        ),
    )
