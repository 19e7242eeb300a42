"""What the tests of candidates share: a bucket of a real object store."""

import pytest

from tests.servers import S3Server
from trashnet.store import ObjectStore


@pytest.fixture
def store(s3_server: S3Server, fresh_bucket: str) -> ObjectStore:
    """An empty bucket."""
    made = ObjectStore(s3_server.url, s3_server.access_key, s3_server.secret_key, fresh_bucket, "us-east-1")
    made.ensure_bucket()
    return made
