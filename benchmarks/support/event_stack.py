"""The servers that take uploads to the ledger by events: S3, Prefect with one worker, and the event gateway.

They are those of the embedded stack, in a temporary folder and without Label Studio.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from operations.setup import deploy_flows
from operations.stack import (
    Server,
    find_free_port,
    prefect_environment,
    start_gateway,
    start_prefect,
    start_s3,
    start_worker,
)
from trashnet.ledger import Ledger, open_ledger
from trashnet.settings import load_settings
from trashnet.store import ObjectStore, open_store


@dataclass(frozen=True)
class EventStack:
    """The running servers' store, ledger and Prefect; ``start_flows`` starts worker and gateway."""

    store: ObjectStore
    ledger: Ledger
    prefect: Server
    start_flows: Callable[[], None]


@contextmanager
def event_stack() -> Iterator[EventStack]:
    """Start S3 and Prefect, with the flows deployed; sets this process's environment to them."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, port, key, secret = Path(name), find_free_port(), secrets.token_hex(8), secrets.token_hex(16)

        def running(server: Server) -> Server:
            stack.callback(server.stop)
            return server

        s3 = running(start_s3(folder / "s3", find_free_port(), key, secret))
        prefect = running(start_prefect(folder / "prefect", find_free_port()))
        ours = {
            "TRASHNET_S3_ENDPOINT": s3.url,
            "TRASHNET_S3_ACCESS_KEY": key,
            "TRASHNET_S3_SECRET_KEY": secret,
            "TRASHNET_LEDGER_URL": f"sqlite:///{folder}/ledger.sqlite",
            # Not needed until labels are requested, which fails here.
            "TRASHNET_LABEL_STUDIO_URL": "http://127.0.0.1:1",
            "TRASHNET_LABEL_STUDIO_TOKEN": "none",
            "TRASHNET_CLONE": str(folder / "clone"),
            "TRASHNET_GATEWAY_URL": f"http://127.0.0.1:{port}",
            "TRASHNET_GATEWAY_SECRET": secrets.token_hex(16),
        }
        os.environ |= ours | prefect_environment(folder / "prefect", prefect.url)
        settings = load_settings()
        store, ledger = open_store(settings), open_ledger(settings.ledger_url)
        stack.callback(ledger.close)
        store.ensure_bucket()
        deploy_flows()

        def start_flows() -> None:
            running(start_worker(folder / "prefect", prefect.url, ours))
            running(start_gateway(folder / "prefect", port, prefect.url, ours))

        yield EventStack(store, ledger, prefect, start_flows)
