"""Opens an account for each query, and closes it when the query has ended, however it has."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from services.common.baggage import carry
from services.common.clock import Clock
from services.common.errors import ServiceError
from services.common.identity import Identity, current_identity
from services.common.tracing import current_trace_id
from services.rag.books import Books
from services.rag.core.answer import Answer
from services.rag.core.budget import Limit
from services.rag.core.experiment import Experiment, applied_to
from services.rag.core.options import Question
from services.rag.core.profile import WarningKind
from services.rag.core.query_record import LoggedQuery, QueryRecord
from services.rag.core.usage import Amounts
from services.rag.ledger import Ledger
from services.rag.meter import RETRIEVE_MODE, Meter, current_meter
from services.rag.recorder import Recorder
from services.rag.spending import INFERENCE_LAYER, SEMANTIC_LAYER

__all__ = ["REFUSED", "Account", "Bookkeeping"]

REFUSED = "refused"
"""What metrics and traces call a question that its tenant's budget forbids: nothing is out of
order. In the books it has failed."""

_TOOL_PREFIX = "tool_"
# Whoever wants it, the web is asked in a stage of its own.
_WEB_STAGE, _WEB_TOOL = "web_find", "web_search"
_CANCELLED = "CANCELLED"
# Nobody was asked for what was known.
_KNOWN = "hit_local"


class Bookkeeping:
    """Keeps the books of queries.

    Args:
        books: Take down what became of them.
        ledger: Takes down what they used.
        experiments: Decide how some are answered.
        clock: Tells when they arrived.
        keeps_texts: Whether questions and answers are kept too.
    """

    def __init__(
        self,
        books: Books,
        *,
        ledger: Ledger,
        experiments: tuple[Experiment, ...],
        clock: Clock,
        keeps_texts: bool,
    ) -> None:
        self.books = books
        self.ledger = ledger
        self.experiments = experiments
        self.keeps_texts = keeps_texts
        self.clock = clock

    def open(self, question: Question, recorder: Recorder, *, call: str) -> "Account":
        """Opens the account of a query, within the task that works for it.

        Args:
            question: What is asked.
            recorder: Of this query alone; learns of its variants.
            call: `query`, `stream` or `retrieve`.
        """
        identity = current_identity.get()
        self.ledger.spending.tenants.see(identity.tenant_id)
        for experiment in self.experiments:
            variant = experiment.variant_for(
                tenant_id=identity.tenant_id,
                user_id=identity.user_id,
                query_id=recorder.query_id,
            )
            if variant is not None:
                recorder.variants[experiment.name] = variant.name
                question = applied_to(question, variant.overrides)
        mode = RETRIEVE_MODE if call == "retrieve" else question.mode.value
        meter = Meter(mode)
        # Never taken back: what works for a query is a task of its own, and late calls count too.
        current_meter.set(meter)
        return Account(self, question, recorder, meter, identity, call, mode)

    @contextmanager
    def retrieval(self, question: Question, recorder: Recorder) -> Iterator[Question]:
        """Keeps the account of a search, and lends the question with the options of its variants.

        Arguments are those of `open`.
        """
        account = self.open(question, recorder, call="retrieve")
        carry(query_id=recorder.query_id)
        try:
            yield account.question
        except asyncio.CancelledError:
            account.close(None, "cancelled")
            raise
        except Exception as error:
            account.close(None, "error", error)
            raise
        account.close(None, "success")


class Account:
    """The account of one query.

    Args:
        bookkeeping: What it belongs to.
        question: What is asked, with the options of its variants.
        recorder: Its stages.
        meter: What it uses.
        identity: Who asks.
        call: `query`, `stream` or `retrieve`.
        mode: How it is answered.
    """

    def __init__(
        self,
        bookkeeping: Bookkeeping,
        question: Question,
        recorder: Recorder,
        meter: Meter,
        identity: Identity,
        call: str,
        mode: str,
    ) -> None:
        self.question = question
        self._its = bookkeeping
        self._recorder = recorder
        self._meter = meter
        self._identity = identity
        self._call = call
        self._mode = mode
        self._trace_id = current_trace_id()

    def warn(self) -> None:
        """Warns the caller where the tenant's budget is nearly spent."""
        limit = self._its.ledger.budgets.nearest_limit(self._identity.tenant_id)
        if limit is not None:
            self._recorder.warn(WarningKind.BUDGET, _warning(limit))

    @property
    def cost_nanos(self) -> int:
        """What the query has cost so far, in billionths of the currency."""
        return self._meter.amounts.cost_nanos

    def close(
        self, answer: Answer | None, outcome: str, error: BaseException | None = None
    ) -> None:
        """Notes how the query has ended, once.

        Args:
            answer: Its answer; None without one.
            outcome: `success`, `error`, `cancelled` or `REFUSED`.
            error: What it failed with.
        """
        recorder, ledger = self._recorder, self._its.ledger
        for stage in recorder.stages:
            tool = _tool_of(stage.name)
            if tool and not stage.failed and stage.cache_outcome != _KNOWN:
                ledger.add_tool_call(tool)
        model = answer.model if answer is not None else ""
        mode, tenant_id = self._mode, self._identity.tenant_id
        ledger.add_query(mode, model, self._own_amounts(answer, outcome), layer=_layer_of(answer))
        if mode != RETRIEVE_MODE:
            ledger.spending.add_question(
                mode,
                outcome,
                tenant_id=tenant_id,
                generation_count=self._meter.generation_count,
            )
        self._its.books.add_query(
            LoggedQuery(
                QueryRecord(
                    query_id=recorder.query_id,
                    tenant_id=tenant_id,
                    user_id=self._identity.user_id,
                    started_seconds=self._its.clock.now() - recorder.elapsed_seconds(),
                    call=self._call,
                    mode=mode,
                    collection=self.question.collection,
                    model=model,
                    outcome="error" if outcome == REFUSED else outcome,
                    error_reason=_reason(outcome, error),
                    origin=answer.origin.value if answer is not None else "",
                    degradations=tuple(
                        dict.fromkeys(each.reason for each in recorder.degradations)
                    ),
                    quality=(
                        answer.quality.score
                        if answer is not None and answer.quality is not None
                        else None
                    ),
                    amounts=self._meter.amounts,
                    duration_seconds=recorder.elapsed_seconds(),
                    first_text_seconds=recorder.first_text_seconds,
                    trace_id=self._trace_id,
                    variants=dict(recorder.variants),
                    cache_entry=recorder.cache_entry,
                    question=self.question.text if self._its.keeps_texts else "",
                    answer=answer.text if answer is not None and self._its.keeps_texts else "",
                ),
                tuple(recorder.stages),
                recorder.told_profile,
            )
        )

    def _own_amounts(self, answer: Answer | None, outcome: str) -> Amounts:
        """Returns what the query counts for itself, apart from the calls it has made."""
        failed = int(outcome != "success")
        if answer is None or not answer.origin.is_given_again:
            return Amounts(query_count=1, failed_query_count=failed)
        usage = answer.usage
        return Amounts(
            query_count=1,
            failed_query_count=failed,
            cached_query_count=1,
            saved_token_count=usage.prompt_token_count + usage.completion_token_count,
            saved_cost_nanos=self._its.ledger.cost_nanos(answer.model, usage),
        )


def _layer_of(answer: Answer | None) -> str:
    """Returns the layer of the cache that an answer came from; empty where it came from none."""
    if answer is None or not answer.origin.is_given_again:
        return ""
    return INFERENCE_LAYER if answer.earlier is None else SEMANTIC_LAYER


def _tool_of(stage_name: str) -> str:
    """Returns the tool that a stage has asked; empty where it has asked none."""
    if stage_name == _WEB_STAGE:
        return _WEB_TOOL
    tool = stage_name.removeprefix(_TOOL_PREFIX)
    return "" if tool in (stage_name, _WEB_TOOL) else tool


def _reason(outcome: str, error: BaseException | None) -> str:
    if outcome == "success":
        return ""
    if outcome == "cancelled":
        return _CANCELLED
    return error.error_reason if isinstance(error, ServiceError) else "INTERNAL"


def _warning(limit: Limit) -> str:
    period = "day" if limit.is_daily else "month"
    return f"{limit.ratio:.0%} of the {period}'s budget are spent ({limit.name})."
