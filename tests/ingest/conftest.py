from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest import IngestParams
from tests.servers import S3Server
from trashnet.ledger import Ledger, open_ledger
from trashnet.store import ObjectStore

PARAMS = IngestParams(threads=4, decoders=1, batch_size=8)


@pytest.fixture
def params() -> IngestParams:
    """The shipped parameters, but for few frames on few cores."""
    return PARAMS


@pytest.fixture
def store(s3_server: S3Server, fresh_bucket: str) -> ObjectStore:
    """An empty bucket on a real S3 server."""
    store = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    store.ensure_bucket()
    return store


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger in SQLite."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield ledger
    ledger.close()
