"""Wraps a dashboard as `POST /api/dashboards/db` of Grafana wants it.

Run as `python -m tools.monitoring.dashboards.wrap dashboards/traces.json`; the result goes to
standard output:

    python -m tools.monitoring.dashboards.wrap dashboards/traces.json |
        curl --fail --json @- --user "$USER_AND_PASSWORD" "$GRAFANA/api/dashboards/db"
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["main", "wrap"]


def wrap(dashboard: Mapping[str, Any], *, folder_uid: str | None = None) -> dict[str, Any]:
    """Makes a request of Grafana's HTTP API from a dashboard.

    Args:
        dashboard: The dashboard as its file has it.
        folder_uid: The folder that it goes into; the top if None.
    """
    request: dict[str, Any] = {"dashboard": dict(dashboard), "overwrite": True}
    if folder_uid is not None:
        request["folderUid"] = folder_uid
    return request


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
        arguments: What stands behind the command.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a dashboard's JSON")
    parser.add_argument("--folder-uid", help="the folder in Grafana that it goes into")
    chosen = parser.parse_args(arguments)
    dashboard = json.loads(chosen.file.read_text(encoding="utf-8"))
    print(json.dumps(wrap(dashboard, folder_uid=chosen.folder_uid)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
