"""Entry point of the `pannier` command."""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line."""
    # Else gRPC writes notes about connections between our lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from pannier.commands.application import application  # noqa: PLC0415 - may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("rich", "typer"):
            raise
        sys.stderr.write(
            "The pannier command needs two more packages: pip install 'pannier[cli]'\n"
        )
        sys.exit(1)
    application()


if __name__ == "__main__":
    main()
