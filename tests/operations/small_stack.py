"""A program for the tests: runs the stack's supervisor over small servers that start in a moment, in the folder of the first argument."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from operations.stack import process, watching
from operations.stack.process import LOOPBACK, Server, spawn
from operations.stack.run_state import PORTED, Places
from operations.stack.servers import answers
from operations.stack.supervisor import Plan, run_stack
from trashnet.errors import UserError

process.GRACE_SECONDS = 1.0
watching.LOOK_SECONDS, watching.FIRST_DELAY = 0.2, 0.2


def small(
    places: Places, _root: Path, _environment: Mapping[str, str], ports: Mapping[str, int], _flows: int
) -> dict[str, Callable[[], Server]]:
    """Servers of files, one per name of the real stack; the worker listens nowhere."""
    return {name: partial(one, places, name, ports[name]) for name in PORTED} | {
        "worker": partial(one, places, "worker", 0)
    }


def one(places: Places, name: str, port: int) -> Server:
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
        str(places.logs),
    ]
    return spawn(
        name, command, url=url, log=places.logs / f"{name}.log", healthy=lambda: not url or answers(url)
    )


if __name__ == "__main__":
    places = Places(Path(sys.argv[1]))
    try:
        run_stack(
            Plan(places, places.folder.parent, tuple(sys.argv[2:]), makers=small), partial(print, flush=True)
        )
    except UserError as error:
        sys.exit(str(error))
