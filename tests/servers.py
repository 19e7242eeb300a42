"""Real servers for the tests, one of each per session, on loopback and free ports, and stopped at the end.

Every test sees these fixtures by their names alone: ``tests/conftest.py`` names this module in
``pytest_plugins``. Tests share the servers, so each takes a bucket, a database or a project of its own:
``fresh_bucket`` and ``postgres_url`` do that.
"""

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from benchmarks.support.postgres import PostgresCluster, new_database
from operations.stack import Server, find_free_port, start_label_studio, start_prefect, start_s3

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class S3Server:
    """An S3 server and its keys."""

    server: Server
    url: str
    access_key: str
    secret_key: str


@dataclass(frozen=True)
class LabelStudioServer:
    """Label Studio, its one user and that user's legacy API token.

    ``s3_server`` is where its storages look for frames.
    """

    server: Server
    url: str
    token: str
    email: str
    password: str


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The embedded stack's S3 server, over an empty folder (0.2 s)."""
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(20)
    server = start_s3(tmp_path_factory.mktemp("s3") / "data", find_free_port(), access_key, secret_key)
    yield S3Server(server, server.url, access_key, secret_key)
    server.stop()


@pytest.fixture(scope="module")  # while it is there, no other test can run an asyncio loop in its thread
def browser() -> Iterator[Browser]:
    """A browser of this machine, else playwright's own.

    None is a failure, since nothing else tests the pages.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
        except Error as error:
            pytest.fail(f"no browser to drive: `make browser` installs one ({str(error).splitlines()[0]})")
        yield browser
        browser.close()


@pytest.fixture
def fresh_bucket() -> str:
    """A bucket's name that no other test has; the bucket is not made."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture(scope="session")
def label_studio_server(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server
) -> Iterator[LabelStudioServer]:
    """Label Studio on a new data folder (about a minute), wired to ``s3_server``."""
    token, password, email = secrets.token_hex(20), secrets.token_hex(12), "annotator@example.org"
    server = start_label_studio(
        tmp_path_factory.mktemp("label-studio") / "data",
        find_free_port(),
        token,
        email,
        password,
        s3_server.url,
    )
    yield LabelStudioServer(server, server.url, token, email, password)
    server.stop()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server on a new SQLite database (about 15 s)."""
    server = start_prefect(tmp_path_factory.mktemp("prefect") / "home", find_free_port())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server on a new cluster.

    Its address without a database, ``postgresql+psycopg://postgres@127.0.0.1:PORT``.
    """
    server = PostgresCluster.create(tmp_path_factory.mktemp("postgres")).start(durable=False)
    yield server.url
    server.stop()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """A new empty database on the session's PostgreSQL, as an address for SQLAlchemy."""
    return new_database(postgres_server)
