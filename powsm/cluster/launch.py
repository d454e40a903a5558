"""Start the ranks of a run on this machine, hand signals on to them, and wait.

PyTorch's own launcher, as torchrun is, for one machine: its ranks meet at 127.0.0.1,
so the name of the machine need not resolve, they have time to save when a signal comes,
and their end is a status, not a traceback beside what they said themselves.
"""

import logging
import os
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

HERE = "127.0.0.1"
SAVE_S = 600  # seconds that ranks have to save at a signal, before they are killed


def launch(command: Sequence[str], n_ranks: int) -> int:
    """Run a command as ranks 0 to `n_ranks` - 1.

    RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT tell each which it is.
    When one fails, the others are ended.

    Returns:
        0, the status of the rank that failed first, or 128 + number of a signal that
        ended the run.
    """
    for name in ("agent.server.api", "multiprocessing.api"):
        # their warnings say what the status and the ranks' own lines say
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n_ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{HERE}:0",
        local_addr=HERE,
        max_restarts=0,
        monitor_interval=0.1,
        shutdown_timeout=SAVE_S,
    )
    program, *arguments = command
    try:
        elastic_launch(config, program)(*arguments)
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as err:
        status = err.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status
    return 0
