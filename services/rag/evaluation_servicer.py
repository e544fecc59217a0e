"""EvaluationService over gRPC: read the request, call, write the response."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from pannier.rag.v1 import evaluation_service_pb2 as pb
from pannier.rag.v1.evaluation_service_pb2_grpc import EvaluationServiceServicer
from services.common.identity import current_identity
from services.rag.core.evaluation import Report
from services.rag.evaluate import Evaluation
from services.rag.evaluation_convert import task_of, to_progress, to_report

__all__ = ["EvaluationServicer"]

Context = grpc.aio.ServicerContext[Any, Any]

# So many messages tell of the progress at the most.
_PROGRESS_COUNT = 200


class EvaluationServicer(EvaluationServiceServicer):
    """Measures how good a collection's search is.

    Args:
        evaluation: Measures.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation

    async def Evaluate(
        self, request: pb.EvaluateRequest, context: Context
    ) -> AsyncIterator[pb.EvaluateResponse]:
        """Searches for every query and compares what is found with the judgements."""
        task = task_of(request)
        tenant_id = current_identity.get().tenant_id
        step = max(len(task.queries) * len(task.variants) // _PROGRESS_COUNT, 1)
        async with aclosing(self._evaluation.run(tenant_id, task)) as events:
            async for event in events:
                if isinstance(event, Report):
                    yield to_report(event, include_queries=request.include_queries)
                elif event.done_count % step == 0:
                    yield to_progress(event)
