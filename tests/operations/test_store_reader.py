"""A person looks at the embedded stack's store while the stack is down."""

from pathlib import Path

import pytest

from operations.stack.run_state import StackPaths, ensure_environment, ensure_ports, exclusive_lock
from operations.stack.store_reader import ENDPOINT_VARIABLE, readable_store
from trashnet.settings import load_settings
from trashnet.store import StoreDown, open_store


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackPaths:
    """The folder of a stack that ran once and left an object."""
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    paths = StackPaths(tmp_path / "stack")
    paths.create()
    ensure_environment(paths, ensure_ports(paths))
    (paths.folder / "s3/trashnet/models").mkdir(parents=True)
    (paths.folder / "s3/trashnet/models/newest.json").write_bytes(b"{}")
    return paths


@pytest.mark.server
def test_the_store_of_a_stack_that_is_down_is_read_and_not_written(
    paths: StackPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an address of its own, so that the stack can be started meanwhile; it ends with the block."""
    with readable_store(paths) as reader:
        assert "down" in reader.note
        assert reader.variables[ENDPOINT_VARIABLE] != load_settings(paths.environment).s3_endpoint
        monkeypatch.setenv(ENDPOINT_VARIABLE, reader.variables[ENDPOINT_VARIABLE])
        store = open_store(load_settings(paths.environment))
        assert store.get("models/newest.json") == b"{}"
        with pytest.raises(StoreDown):
            store.put("models/newest.json", b"other")
        assert (paths.folder / "s3/trashnet/models/newest.json").read_bytes() == b"{}"
    with pytest.raises(StoreDown, match="does not answer"):
        store.get("models/newest.json")


def test_nothing_is_started_where_the_store_is_there_or_another_one_is_named(
    paths: StackPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stack was here; the stack runs; the environment names a store."""
    with readable_store(StackPaths(tmp_path / "nothing")) as reader:
        assert reader.variables == {}
    with exclusive_lock(paths), readable_store(paths) as reader:
        assert reader.variables == {}
    monkeypatch.setenv(ENDPOINT_VARIABLE, "http://127.0.0.1:9")
    with readable_store(paths) as reader:
        assert reader.variables == {}
