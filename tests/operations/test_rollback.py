"""`trashnet rollback` as an operator meets it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from export import load_newest_candidate, publish_candidate
from operations.cli import cli
from operations.status import collect_status
from operations.status.text import format_status
from tests.servers import S3Server
from trashnet.settings import Settings, load_settings
from trashnet.store import open_store


@pytest.fixture
def settings(
    tmp_path: Path, s3_server: S3Server, fresh_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A deployment of which only the store is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    nobody = "http://127.0.0.1:9"
    for name, value in {
        "S3_ENDPOINT": s3_server.url,
        "S3_ACCESS_KEY": s3_server.access_key,
        "S3_SECRET_KEY": s3_server.secret_key,
        "S3_BUCKET": fresh_bucket,
        "LABEL_STUDIO_URL": nobody,
        "LABEL_STUDIO_TOKEN": "none",
        "GATEWAY_URL": nobody,
        "GATEWAY_SECRET": "a-secret-of-16-letters",
    }.items():
        monkeypatch.setenv(f"TRASHNET_{name}", value)
    return load_settings()


def test_an_operator_goes_back_and_the_status_says_so(settings: Settings, tmp_path: Path) -> None:
    """Bins get the earlier candidate; who went back and why are shown until a newer one is published."""
    store, model = open_store(settings), tmp_path / "model"
    store.ensure_bucket()

    def publish(contents: bytes, dataset: str) -> str:
        model.write_bytes(contents)
        made = publish_candidate(store, {"m": model}, {}, dataset=dataset, turns=(), commit="c", scores={})
        return made.version

    first, second = publish(b"1", "data-00001"), publish(b"2", "data-00002")
    arguments = ["rollback", first, "--reason", "takes cups for cans", "--by", "ann"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.output == f"bins get candidate {first} instead of {second}: takes cups for cans\n"
    newest = load_newest_candidate(store)
    assert newest is not None
    assert newest.version == first
    shown = format_status(seen := collect_status(settings))
    assert f"rolled back from {second}" in shown
    assert any("ann went back because: takes cups for cans" in note for note in seen.degraded)
    publish(b"3", "data-00003")
    assert "rolled back" not in format_status(seen := collect_status(settings))
    assert not any("went back" in note for note in seen.degraded)


def test_a_rollback_without_a_reason_is_refused(settings: Settings) -> None:
    """The command asks for it."""
    refused = CliRunner().invoke(cli, ["rollback", "00001-0123456789ab"])
    assert refused.exit_code == 2
    assert "--reason" in refused.output
