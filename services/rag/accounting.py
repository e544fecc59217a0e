"""Makes the parts that keep the books."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from pannier.rag.v1 import usage_service_pb2
from pannier.rag.v1.usage_service_pb2_grpc import (
    add_UsageAdminServiceServicer_to_server,
    add_UsageServiceServicer_to_server,
)
from services.common.server import Runtime
from services.rag.bookkeeping import Bookkeeping
from services.rag.books import BookLimits, Books
from services.rag.budgets import Budgets
from services.rag.cache_port import CachePort
from services.rag.give_feedback import FeedbackDesk
from services.rag.ledger import Ledger
from services.rag.read_books import BookReader
from services.rag.semantic_port import SemanticCachePort
from services.rag.settings import RagSettings
from services.rag.spending import Spending
from services.rag.tenants import Tenants
from services.rag.track_calls import CallTracker
from services.rag.usage_port import FeedbackStore, Retention, UsageStore
from services.rag.usage_servicer import UsageAdminServicer, UsageServicer

__all__ = ["Accounting", "make_accounting"]

Registration = tuple[str, Callable[[grpc.aio.Server], None]]

_SERVICES = usage_service_pb2.DESCRIPTOR.services_by_name
_USAGE_SERVICE = _SERVICES["UsageService"].full_name
_USAGE_ADMIN_SERVICE = _SERVICES["UsageAdminService"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What keeps the books.

    Attributes:
        books: Write them; `run` is to run beside the service and `close` to end it.
        ledger: Counts calls to models.
        bookkeeping: Keeps the accounts of queries.
        registrations: Names of services, with what adds each to a server.
    """

    books: Books
    ledger: Ledger
    bookkeeping: Bookkeeping
    registrations: tuple[Registration, ...]


def make_accounting(
    settings: RagSettings,
    runtime: Runtime,
    *,
    store: UsageStore,
    feedback: FeedbackStore,
    answers: CachePort,
    cache: SemanticCachePort,
) -> Accounting:
    """Makes what keeps the books.

    Args:
        settings: Settings of the service.
        runtime: Clock and metrics.
        store: Keeps queries, usage and budgets.
        feedback: Keeps feedback.
        answers: Forgets models' answers that are wrong.
        cache: Is told of answers that are wrong.
    """
    clock, metrics = runtime.clock, runtime.metrics
    budgets = Budgets(clock=clock, metrics=metrics)
    books = Books(
        store,
        budgets=budgets,
        clock=clock,
        metrics=metrics,
        limits=BookLimits(
            waiting_count=settings.query_log_waiting_count,
            recent_count=settings.query_log_recent_count,
            slow_seconds=settings.slow_query_seconds,
            retention=Retention(
                queries=settings.query_log_retention_seconds,
                usage=settings.usage_retention_seconds,
            ),
        ),
    )
    spending = Spending(
        metrics,
        tenants=Tenants(metrics, limit=settings.tenant_label_count, clock=clock),
        currency=settings.currency,
    )
    ledger = Ledger(books, budgets=budgets, prices=settings.prices, clock=clock, spending=spending)
    servicer = UsageServicer(
        BookReader(
            books=books,
            store=store,
            feedback=feedback,
            experiments=settings.experiments,
            clock=clock,
            currency=settings.currency,
        ),
        desk=FeedbackDesk(
            books=books,
            queries=store,
            feedback=feedback,
            answers=answers,
            cache=cache,
            metrics=metrics,
        ),
        tracker=CallTracker(store, budgets=budgets, ledger=ledger),
    )
    admin_servicer = UsageAdminServicer(store, books=books)
    return Accounting(
        books=books,
        ledger=ledger,
        bookkeeping=Bookkeeping(
            books,
            ledger=ledger,
            experiments=settings.experiments,
            clock=clock,
            keeps_texts=settings.query_log_text,
        ),
        registrations=(
            (_USAGE_SERVICE, lambda server: add_UsageServiceServicer_to_server(servicer, server)),
            (
                _USAGE_ADMIN_SERVICE,
                lambda server: add_UsageAdminServiceServicer_to_server(admin_servicer, server),
            ),
        ),
    )
