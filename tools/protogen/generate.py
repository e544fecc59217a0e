"""Regenerates the stubs in `pannier/` from `protos/`, or checks that they are up to date.

Run through `make protos` and `make protos-check`, which provide the generator's own environment.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
GENERATED_SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(target: Path) -> None:
    """Writes the stubs of all protos below `target`.

    Args:
        target: Folder that becomes the root of the `pannier` package.

    Raises:
        subprocess.CalledProcessError: The protos do not compile.
    """
    protos = sorted(PROTOS.rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}"]
    command += [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    subprocess.run(
        [*command, *(str(proto.relative_to(PROTOS)) for proto in protos)],
        check=True,
        cwd=PROTOS,
        env={"PATH": str(Path(sys.executable).parent)},
        stderr=subprocess.DEVNULL,
    )
    for proto in protos:
        if "\nservice " in proto.read_text(encoding="utf-8"):
            continue
        # protoc writes an empty service stub for each file without a service.
        for suffix in ("_pb2_grpc.py", "_pb2_grpc.pyi"):
            (target / proto.relative_to(PROTOS)).with_name(proto.stem + suffix).unlink(
                missing_ok=True
            )


def generated_files(root: Path) -> dict[Path, Path]:
    """Finds generated files by path relative to `root`."""
    return {
        path.relative_to(root): path
        for path in root.rglob("*_pb2*")
        if path.name.endswith(GENERATED_SUFFIXES)
    }


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail on a difference")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = generated_files(Path(scratch))
        current = {
            path: file for path, file in generated_files(ROOT).items() if path.parts[0] == "pannier"
        }
        stale = sorted(
            str(path)
            for path in fresh.keys() | current.keys()
            if path not in fresh
            or path not in current
            or not filecmp.cmp(fresh[path], current[path], shallow=False)
        )
        if arguments.check:
            for name in stale:
                print(f"not up to date: {name}", file=sys.stderr)
            print(
                f"{len(fresh)} generated files, {len(stale)} not up to date: run `make protos`"
                if stale
                else f"{len(fresh)} generated files are up to date"
            )
            return 1 if stale else 0
        for file in current.values():
            file.unlink()
        for path, file in fresh.items():
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, ROOT / path)
        print(f"{len(fresh)} files generated, {len(stale)} changed")
        return 0


if __name__ == "__main__":
    sys.exit(main())
