"""`python -m services.balancer`: the balancer as a process."""

import os
import sys

from services.balancer.app import start
from services.balancer.metrics import CATALOGUE
from services.balancer.settings import BalancerSettings
from services.common.server import run_main

if __name__ == "__main__":
    sys.exit(
        run_main(
            "balancer",
            BalancerSettings,
            CATALOGUE,
            start,
            arguments=sys.argv[1:],
            environment=os.environ,
        )
    )
