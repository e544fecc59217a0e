"""Writes everything that is generated for monitoring, or checks it.

Run as `python -m tools.monitoring` after a change of the sources, and with `--check` to compare.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.monitoring import dashboards, rules

__all__ = ["differences", "main", "render"]

ROOT = Path(__file__).resolve().parents[2]


def render(root: Path) -> dict[Path, str]:
    """Writes all texts.

    Args:
        root: The project's folder; the runbook there is kept but for its table.

    Returns:
        Path below the root of the project to text.
    """
    return {
        **dashboards.render(),
        **{Path(path): text for path, text in rules.render(root).items()},
    }


def differences(texts: Mapping[Path, str], root: Path) -> list[str]:
    """Compares texts with files.

    Args:
        texts: Path below the root to the text that should stand there.
        root: Where the paths begin.

    Returns:
        What is wrong, a sentence for each file; dashboards without a source are wrong, too.
    """
    wrong = []
    for path, text in texts.items():
        if not (root / path).exists():
            wrong.append(f"{path} is missing")
        elif (root / path).read_text(encoding="utf-8") != text:
            wrong.append(f"{path} differs from its source")
    wrong += [
        f"{path.relative_to(root)} has no source"
        for path in sorted((root / dashboards.FOLDER).glob("*.json"))
        if path.relative_to(root) not in texts
    ]
    return wrong


def main(arguments: Sequence[str], *, root: Path = ROOT) -> int:
    """Runs the command line.

    Args:
        arguments: What stands behind the command.
        root: Where files are written or compared.

    Returns:
        The exit status, 1 where a file differs.
    """
    parser = argparse.ArgumentParser(description="Write what is generated for monitoring.")
    parser.add_argument("--check", action="store_true", help="only compare, and fail if it differs")
    check = parser.parse_args(arguments).check
    texts = render(root)
    if check:
        wrong = differences(texts, root)
        for each in wrong:
            print(f"{each}; run `python -m tools.monitoring`", file=sys.stderr)
        return 1 if wrong else 0
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    print(f"{len(texts)} files written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
