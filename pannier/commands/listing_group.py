"""Groups of commands that list what there is where no command is named."""

from typing import Any

from typer.core import TyperGroup

__all__ = ["LISTING_COMMAND", "ListingGroup"]

LISTING_COMMAND = "list"


class ListingGroup(TyperGroup):
    """A group whose command `list` needs not be named: `pannier models --json` lists too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the command's name, and leaves the rest to the command."""
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = [LISTING_COMMAND, *args]
        return super().parse_args(ctx, args)
