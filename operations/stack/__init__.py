"""The embedded_servers stack: the flywheel's servers on one machine's loopback as functions.

``trashnet up`` and the tests start the same ones.
"""

from operations.stack.process import Server, free_port
from operations.stack.servers import (
    POOL,
    prefect_environment,
    start_gateway,
    start_label_studio,
    start_prefect,
    start_s3,
    start_worker,
)

__all__ = [
    "POOL",
    "Server",
    "free_port",
    "prefect_environment",
    "start_gateway",
    "start_label_studio",
    "start_prefect",
    "start_s3",
    "start_worker",
]
