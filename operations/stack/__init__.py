"""The embedded stack: the flywheel's servers on one machine's loopback.

``trashnet up`` and the tests start the same servers.
"""

from operations.stack.process import Server, find_free_port
from operations.stack.servers import (
    WORK_POOL,
    prefect_environment,
    start_gateway,
    start_label_studio,
    start_prefect,
    start_s3,
    start_worker,
)

__all__ = [
    "WORK_POOL",
    "Server",
    "find_free_port",
    "prefect_environment",
    "start_gateway",
    "start_label_studio",
    "start_prefect",
    "start_s3",
    "start_worker",
]
