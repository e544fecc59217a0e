"""Read-only, memory-mapped access to a safetensors file.

Layout (safetensors format documentation): an unsigned little-endian 64-bit header length, a JSON
header of that length naming each tensor's type, shape and byte range, then the tensors' bytes.
Mapping instead of reading lets all processes of one machine share one copy of the weights.
"""

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Map every tensor of a safetensors file without copying it.

    Args:
        path: The file; it must stay unchanged while the arrays are in use.

    Returns:
        Read-only arrays by tensor name. They keep the mapping alive.

    Raises:
        ValueError: A tensor has a type other than F32 or I64.
    """
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header_bytes = int.from_bytes(mapping[:8], "little")
    header = json.loads(mapping[8 : 8 + header_bytes])
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name} has unsupported type {entry['dtype']}")
        dtype = _DTYPES[entry["dtype"]]
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(
            mapping, dtype, (end - begin) // dtype.itemsize, 8 + header_bytes + begin
        )
        tensors[name] = flat.reshape(entry["shape"])
    return tensors
