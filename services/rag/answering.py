"""Puts together what answers questions, for the composition root."""

from services.common.deadline import remaining_seconds
from services.common.server import Runtime
from services.rag.answer import Answerer
from services.rag.background import BackgroundWork
from services.rag.brief import BriefAnswers
from services.rag.cache_port import CachePort
from services.rag.compose import Composer
from services.rag.core.prompt_size import PromptSizes
from services.rag.embed import EmbeddingSource
from services.rag.infer import ModelAnswers
from services.rag.make_agent import make_agent
from services.rag.models import ModelCatalogue
from services.rag.ports import ModelsPort, ToolModels, WebSearch
from services.rag.retrieve import Retriever
from services.rag.reuse import AnswerReuse
from services.rag.rewrite import Rewriter
from services.rag.search_web import WebFallback
from services.rag.settings import RagSettings
from services.rag.statistics import RagStatistics
from services.rag.support import MeaningSupport
from services.rag.task import AnswerDefaults

__all__ = ["make_answerer"]


def make_answerer(
    settings: RagSettings,
    runtime: Runtime,
    *,
    cache: CachePort,
    models: ModelsPort,
    tool_models: ToolModels,
    catalogue: ModelCatalogue,
    sizes: PromptSizes,
    embeddings: EmbeddingSource,
    retriever: Retriever,
    reuse: AnswerReuse,
    understanding: BriefAnswers,
    web: WebSearch | None,
    background: BackgroundWork,
    statistics: RagStatistics,
) -> Answerer:
    """Makes what answers questions, from the ports and parts it needs."""
    return Answerer(
        retriever=retriever,
        reuse=reuse,
        composer=Composer(
            model_answers=ModelAnswers(
                cache=cache,
                models=models,
                catalogue=catalogue,
                background=background,
                sizes=sizes,
                wait_limit_seconds=settings.cache_wait_limit_seconds,
                remaining_seconds=remaining_seconds,
            ),
            support=MeaningSupport(
                embeddings=embeddings, catalogue=catalogue, remaining_seconds=remaining_seconds
            ),
            sizes=sizes,
        ),
        web=WebFallback(
            web,
            metrics=runtime.metrics,
            limit_seconds=settings.web_time_limit_seconds,
            remaining_seconds=remaining_seconds,
        ),
        agent=make_agent(
            settings,
            runtime,
            models=tool_models,
            catalogue=catalogue,
            retriever=retriever,
            web=web,
            sizes=sizes,
            statistics=statistics,
            remaining_seconds=remaining_seconds,
        ),
        catalogue=catalogue,
        sizes=sizes,
        rewriter=Rewriter(
            understanding,
            time_limit_seconds=settings.rewrite_time_limit_seconds,
            context_token_count=settings.context_token_count,
        ),
        defaults=AnswerDefaults(
            temperature=settings.temperature,
            answer_token_count=settings.answer_token_count,
            context_token_count=settings.context_token_count,
        ),
    )
