"""`make demo`: the whole stack at work on documents every Python brings along."""

import argparse
import asyncio
import os
import sys

EXIT_INTERRUPTED = 130


def main() -> int:
    """Runs the demo."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.demo", description=__doc__)
    parser.add_argument(
        "--stay",
        action="store_true",
        help="start the stack in PANNIER_HOME or .pannier, take in the documents, leave it running",
    )
    options = parser.parse_args()
    # Else gRPC, which reads this when it is imported, writes notes about connections.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from deploy.local.demonstration import run_demo  # noqa: PLC0415 - brings gRPC along
    from pannier.commands.output import Output  # noqa: PLC0415 - brings gRPC along

    try:
        return asyncio.run(run_demo(Output(), stay=options.stay))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
