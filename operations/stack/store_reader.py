"""The embedded stack's object store for a person who only looks at it while the stack is down."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from operations.stack.process import find_free_port
from operations.stack.run_state import StackPaths, find_run, read_environment_file
from operations.stack.servers import S3_TIMEOUT_SECONDS, spawn_s3

ENDPOINT_VARIABLE = "TRASHNET_S3_ENDPOINT"


@dataclass(frozen=True)
class StoreReader:
    """Where to read the store: variables that say it, and what it is called; empty where settings say it."""

    variables: dict[str, str] = field(default_factory=dict)
    note: str = ""


@contextmanager
def readable_store(paths: StackPaths | None = None) -> Iterator[StoreReader]:
    """The store of the stack of this folder; while the stack is down, by a read-only server of our own.

    That one has a free port of its own, so that the stack can be started meanwhile. Where there is no stack,
    where it runs, or where the environment names another store, nothing is started.

    Raises :class:`UserError` if the server does not come up.
    """
    paths = paths or StackPaths()
    stored, folder = read_environment_file(paths.environment), paths.folder / "s3"
    if os.environ.get(ENDPOINT_VARIABLE) or not stored or not folder.is_dir() or find_run(paths) is not None:
        yield StoreReader()
        return
    server = spawn_s3(
        folder,
        find_free_port(),
        stored["TRASHNET_S3_ACCESS_KEY"],
        stored["TRASHNET_S3_SECRET_KEY"],
        log=paths.logs / "store-reader.log",
        read_only=True,
    )
    try:
        server.wait_until_healthy(S3_TIMEOUT_SECONDS)
        yield StoreReader(
            {ENDPOINT_VARIABLE: server.url}, "The stack is down; its object store is read from its folder"
        )
    finally:
        server.stop()
