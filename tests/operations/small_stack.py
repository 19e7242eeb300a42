"""A program for the tests: runs the stack's supervisor over small servers that start in a moment, in the
folder of the first argument.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from operations.stack import process, watcher
from operations.stack.process import LOOPBACK, Server, spawn
from operations.stack.run_state import SERVERS_WITH_PORT, StackPaths
from operations.stack.servers import answers
from operations.stack.supervisor import StackPlan, run_stack
from trashnet.errors import UserError

process.GRACE_SECONDS = 1.0
watcher.CHECK_SECONDS, watcher.MIN_RESTART_DELAY = 0.2, 0.2


def small(
    paths: StackPaths, _root: Path, _environment: Mapping[str, str], ports: Mapping[str, int], _flows: int
) -> dict[str, Callable[[], Server]]:
    """Servers of files, one per name of the real stack; the worker listens nowhere."""
    return {name: partial(one, paths, name, ports[name]) for name in SERVERS_WITH_PORT} | {
        "worker": partial(one, paths, "worker", 0)
    }


def one(paths: StackPaths, name: str, port: int) -> Server:
    """The small server ``name``; it serves its own log's folder."""
    url = f"http://{LOOPBACK}:{port}" if port else ""
    command = [
        sys.executable,
        "-m",
        "http.server",
        str(port),
        "--bind",
        LOOPBACK,
        "--directory",
        str(paths.logs),
    ]
    return spawn(
        name, command, url=url, log=paths.logs / f"{name}.log", healthy=lambda: not url or answers(url)
    )


if __name__ == "__main__":
    paths = StackPaths(Path(sys.argv[1]))
    try:
        run_stack(
            StackPlan(paths, paths.folder.parent, tuple(sys.argv[2:]), makers=small),
            partial(print, flush=True),
        )
    except UserError as error:
        sys.exit(str(error))
