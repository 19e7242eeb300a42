"""Real servers for the tests, one of each per session, on loopback and free ports, and stopped at the end.

Every test sees these fixtures by their names alone: ``tests/conftest.py`` names this module in
``pytest_plugins``. Tests share the servers, so each takes a bucket, a database or a project of its own:
``fresh_bucket`` and ``postgres_url`` do that.
"""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from operations.stack import Server, find_free_port, start_label_studio, start_prefect, start_s3
from operations.stack.process import spawn

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


@dataclass(frozen=True)
class PostgresCluster:
    """A PostgreSQL server's data in a folder of its own, which nobody but the server writes to."""

    folder: Path
    port: int

    @classmethod
    def create(cls, folder: Path) -> "PostgresCluster":
        """A new cluster, whose server does not run yet."""
        folder.mkdir(exist_ok=True)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        initdb = postgres_program("initdb")
        run_quietly([*unprivileged(folder), initdb, "-D", folder / "data", *options], folder)
        return cls(folder, find_free_port())

    @property
    def url(self) -> str:
        """The server's address without a database, for SQLAlchemy."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}"

    def start(self, **settings: str) -> Server:
        """Start the server, and wait until it answers. A server that was killed recovers first."""
        local = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
        flags = [flag for name, value in (local | settings).items() for flag in ("-c", f"{name}={value}")]
        program, data = postgres_program("postgres"), self.folder / "data"
        server = spawn(
            "PostgreSQL",
            [*unprivileged(self.folder), program, "-D", data, "-p", str(self.port), *flags],
            url="",
            log=self.folder / "postgres.log",
            is_healthy=lambda: _accepts(self.port),
            cwd=data,
            stop_signal=signal.SIGINT,  # after SIGTERM it would wait for every connection to be closed
        )
        return server.wait_until_healthy(60)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server on a new cluster.

    Its address without a database, ``postgresql+psycopg://postgres@127.0.0.1:PORT``.
    """
    cluster = PostgresCluster.create(tmp_path_factory.mktemp("postgres"))
    server = cluster.start(fsync="off", full_page_writes="off", synchronous_commit="off")
    yield cluster.url
    server.stop()


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """A new empty database on the session's PostgreSQL, as an address for SQLAlchemy."""
    return new_postgres_database(postgres_server)


def new_postgres_database(postgres_server: str) -> str:
    """Make an empty database on a PostgreSQL server; its address for SQLAlchemy."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(
        f"{postgres_server}/postgres".replace("+psycopg", ""), autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgres_server}/{name}"


def _accepts(port: int) -> bool:
    try:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def postgres_program(name: str) -> str:
    """Where one of PostgreSQL's programs lies, the newest version's; the test fails if there is none."""
    # Debian keeps the servers off the path, one folder per version.
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        pytest.fail(f"no PostgreSQL on this machine ({name} was not found): `make postgres` installs it")
    return found


def unprivileged(folder: Path) -> list[str]:
    """What to put before a command so that it does not run as root, which PostgreSQL refuses.

    ``folder`` is made that user's.
    """
    if os.geteuid() != 0:
        return []
    shutil.chown(folder, "nobody", "nogroup")
    for parent in (folder, *folder.parents):  # pytest keeps its folders to their owner
        if parent.owner() in {"root", "nobody"} and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def run_quietly(command: list[str | Path], folder: Path) -> None:
    """Run a command in a folder; its error output is shown if it fails."""
    done = subprocess.run(
        [*map(str, command)], cwd=folder, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}
    )
    assert done.returncode == 0, done.stderr
