"""A database server behind the embedded stack's ledger and Prefect, instead of SQLite files."""

from pathlib import Path

import psycopg
import pytest

from operations.backup import back_up
from operations.stack import find_free_port
from operations.stack.run_state import (
    PREFECT_DATABASE_VARIABLE,
    StackPaths,
    ensure_environment,
    ensure_ports,
    read_environment_file,
)
from operations.stack.servers import PREFECT_TIMEOUT_SECONDS, spawn_prefect
from trashnet.errors import UserError
from trashnet.settings import load_settings

LEDGER = "postgresql+psycopg://me:secret@db.example.org/ledger"
PREFECT = "postgresql+asyncpg://me:secret@db.example.org/prefect"


@pytest.fixture
def paths(tmp_path: Path) -> StackPaths:
    """The folder of a stack that was never started."""
    paths = StackPaths(tmp_path / ".trashnet")
    paths.create()
    return paths


@pytest.mark.server  # it looks for free ports
def test_database_servers_of_the_first_start_are_kept(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts the stack again need not name them; naming others changes them."""
    ports = ensure_ports(paths)
    monkeypatch.setenv("TRASHNET_LEDGER_URL", LEDGER)
    monkeypatch.setenv(PREFECT_DATABASE_VARIABLE, PREFECT)
    first = ensure_environment(paths, ports)
    assert (first["TRASHNET_LEDGER_URL"], first[PREFECT_DATABASE_VARIABLE]) == (LEDGER, PREFECT)
    monkeypatch.delenv("TRASHNET_LEDGER_URL")
    monkeypatch.delenv(PREFECT_DATABASE_VARIABLE)
    assert ensure_environment(paths, ports) == first
    assert load_settings(paths.environment).ledger_url == LEDGER
    monkeypatch.setenv("TRASHNET_LEDGER_URL", f"{LEDGER}2")
    assert ensure_environment(paths, ports)["TRASHNET_LEDGER_URL"] == f"{LEDGER}2"


@pytest.mark.server
def test_another_stack_s_ledger_file_is_not_taken_over(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody whose shell has the variables of one stack starts another: its files are its own."""
    monkeypatch.setenv("TRASHNET_LEDGER_URL", "sqlite:////elsewhere/.trashnet/ledger.sqlite")
    environment = ensure_environment(paths, ensure_ports(paths))
    assert environment["TRASHNET_LEDGER_URL"] == f"sqlite:///{paths.folder}/ledger.sqlite"
    assert PREFECT_DATABASE_VARIABLE not in environment


@pytest.mark.server
@pytest.mark.parametrize(
    ("variable", "what"),
    [("TRASHNET_LEDGER_URL", "the ledger"), (PREFECT_DATABASE_VARIABLE, "Prefect's data")],
)
def test_a_backup_says_what_it_cannot_copy(
    paths: StackPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, what: str
) -> None:
    """A database server has tools of its own; half a backup is none."""
    monkeypatch.setenv(variable, LEDGER)
    ensure_environment(paths, ensure_ports(paths))
    assert variable in read_environment_file(paths.environment)
    with pytest.raises(UserError, match=f"{what} is in a database server .*pg_dump"):
        back_up(paths, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@pytest.mark.heavy
def test_prefect_keeps_its_data_in_the_database_that_it_is_given(tmp_path: Path, postgres_url: str) -> None:
    """Its tables are there, and no SQLite file is made."""
    database = postgres_url.replace("psycopg", "asyncpg")
    server = spawn_prefect(tmp_path / "prefect", find_free_port(), database=database)
    try:
        server.wait_until_healthy(PREFECT_TIMEOUT_SECONDS)
        with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT count(*) FROM flow_run").fetchone() == (0,)
    finally:
        server.stop()
    assert not list((tmp_path / "prefect").glob("*.db"))
