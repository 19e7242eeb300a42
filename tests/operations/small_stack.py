"""A program for the tests: runs the stack's supervisor over small servers that start at once.

The first argument is the stack's folder, the others are the setup command.
"""

import sys
from functools import partial
from pathlib import Path

from operations.stack import process, watcher
from operations.stack.process import LOOPBACK, Server, spawn
from operations.stack.run_state import SERVERS_WITH_PORT, StackPaths
from operations.stack.server_factories import ServerFactories, StackConfig
from operations.stack.servers import is_answering
from operations.stack.supervisor import StackOptions, run_stack
from trashnet.errors import UserError

process.STOP_GRACE_SECONDS = 1.0
watcher.CHECK_SECONDS, watcher.MIN_RESTART_DELAY = 0.2, 0.2


def make_small_factories(config: StackConfig) -> ServerFactories:
    """Static file servers with the names of the real servers; the worker listens nowhere."""
    factories = {name: partial(start, config.paths, name, config.ports[name]) for name in SERVERS_WITH_PORT}
    return factories | {"worker": partial(start, config.paths, "worker", 0)}


def start(paths: StackPaths, name: str, port: int) -> Server:
    """Start the small server ``name``, which serves the folder of the logs."""
    url = f"http://{LOOPBACK}:{port}" if port else ""
    options = ["--bind", LOOPBACK, "--directory", str(paths.logs)]
    return spawn(
        name,
        [sys.executable, "-m", "http.server", str(port), *options],
        url=url,
        log=paths.logs / f"{name}.log",
        is_healthy=lambda: not url or is_answering(url),
    )


if __name__ == "__main__":
    paths, setup_command = StackPaths(Path(sys.argv[1])), tuple(sys.argv[2:])
    options = StackOptions(paths, paths.folder.parent, setup_command, make_factories=make_small_factories)
    try:
        run_stack(options, partial(print, flush=True))
    except UserError as error:
        sys.exit(str(error))
