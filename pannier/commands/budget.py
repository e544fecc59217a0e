"""`pannier budget`: how much a tenant may spend."""

from typing import Annotated

import typer

from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.formatting import format_ratio
from pannier.commands.listing_group import LISTING_COMMAND, ListingGroup
from pannier.commands.money import format_cost, to_nanos
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import usage_service_pb2 as pb
from pannier.rag.v1 import usage_service_pb2_grpc

__all__ = ["application"]

_COST_LIMITS = {"daily_cost_nanos": "cost of a day", "monthly_cost_nanos": "cost of a month"}
_TOKEN_LIMITS = {
    "daily_token_count": "tokens of a day",
    "monthly_token_count": "tokens of a month",
}
_MOST = 10**9

application = typer.Typer(cls=ListingGroup, help="Show and set how much a tenant may spend.")


@application.command(LISTING_COMMAND)
def show(
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show the limits and what is spent of them. So does no command at all."""

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub = usage_service_pb2_grpc.UsageServiceStub(connection.channel)
            response = await stub.GetBudget(pb.GetBudgetRequest(), timeout=timeout)
        if as_json:
            output.json(to_plain(response))
            return 0
        rows = [
            _row(response, name, label) for name, label in (_COST_LIMITS | _TOKEN_LIMITS).items()
        ]
        output.table(("what", ">spent", ">limit", ">share"), rows)
        if response.exceeded:
            output.line("no model is asked any more until the period ends", style="red")
        return 0

    run(main)


@application.command("set")
def set_budget(
    *,
    daily_cost: Annotated[
        float | None, typer.Option(min=0, max=_MOST, help="Most cost of a day.")
    ] = None,
    monthly_cost: Annotated[
        float | None, typer.Option(min=0, max=_MOST, help="Most cost of a month.")
    ] = None,
    daily_tokens: Annotated[
        int | None, typer.Option(min=0, max=10**18, help="Most tokens of a day.")
    ] = None,
    monthly_tokens: Annotated[
        int | None, typer.Option(min=0, max=10**18, help="Most tokens of a month.")
    ] = None,
    no_limits: Annotated[bool, typer.Option("--none", help="Take the budget away.")] = False,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Set the limits; they replace those before. Days and months are those of UTC."""
    budget = pb.Budget(daily_token_count=daily_tokens, monthly_token_count=monthly_tokens)
    if daily_cost is not None:
        budget.daily_cost_nanos = to_nanos(daily_cost)
    if monthly_cost is not None:
        budget.monthly_cost_nanos = to_nanos(monthly_cost)
    if no_limits == bool(budget.ListFields()):
        raise typer.BadParameter("give at least one limit, or --none and no limit")

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub = usage_service_pb2_grpc.UsageAdminServiceStub(connection.channel)
            request = pb.SetBudgetRequest(budget=budget)
            response = await stub.SetBudget(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response.budget))
        else:
            output.line(f"the budget of tenant {tenant} is {'gone' if no_limits else 'set'}")
        return 0

    run(main)


def _row(response: pb.GetBudgetResponse, name: str, label: str) -> tuple[str, ...]:
    spent = getattr(response.spent, name)
    limits = {field.name: amount for field, amount in response.budget.ListFields()}
    limit = limits.get(name)

    def written(amount: int) -> str:
        return format_cost(amount, response.currency) if name in _COST_LIMITS else f"{amount:,}"

    share = format_ratio(spent / limit) if limit else "-"
    return (label, written(spent), "-" if limit is None else written(limit), share)
