"""All that can be compared."""

from pathlib import Path

from tests.bench.balancer.contenders import direct, haproxy, litellm, nginx, pannier
from tests.bench.balancer.contenders.port import Contender

__all__ = ["everyone"]


def everyone(pannier_root: Path, litellm_home: Path) -> tuple[Contender, ...]:
    """Lists all contenders, installed or not.

    Args:
        pannier_root: Source tree of the balancer that is measured.
        litellm_home: Virtual environment with `litellm[proxy]`.
    """
    return (
        *pannier.contenders(pannier_root),
        *nginx.CONTENDERS,
        *haproxy.CONTENDERS,
        *litellm.contenders(litellm_home),
        direct.CENTRAL_FIFO,
        direct.ONE_HOST,
    )
