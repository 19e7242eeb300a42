"""`trashnet status`: what cannot be read is reported, and nothing makes it crash."""

import ast
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from operations.stack import find_free_port
from operations.status import collect_status
from operations.status.text import format_status
from tests.conftest import REPOSITORY
from tests.servers import S3Server
from trashnet.errors import UserError
from trashnet.ledger import FrameRow, open_ledger
from trashnet.settings import Settings
from trashnet.store import open_store

NOBODY = f"http://127.0.0.1:{find_free_port()}"


@pytest.fixture
def settings(
    tmp_path: Path, s3_server: S3Server, fresh_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A deployment of which only the store is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return Settings(
        s3_endpoint=s3_server.url,
        s3_access_key=s3_server.access_key,
        s3_secret_key=s3_server.secret_key,
        s3_bucket=fresh_bucket,
        ledger_url=f"sqlite:///{tmp_path}/ledger.sqlite",
        label_studio_url=NOBODY,
        label_studio_token="none",
        clone=tmp_path / "clone",
        gateway_url=NOBODY,
        gateway_secret="a-secret-of-16-letters",
    )


def test_what_is_down_is_reported_and_the_rest_is_shown(settings: Settings) -> None:
    """The store's part is known; tasks and runs are unknown, with the reason.

    A script sees by `ok` that something is down.
    """
    store = open_store(settings)
    store.ensure_bucket()
    store.put("inbox/bin/2026-01-01/a.jpg", b"x")
    store.put("inbox/bin/2026-01-01/a.json", b"{}")
    seen = collect_status(settings)
    assert not seen.ok
    assert seen.facts["inbox"]["objects"] == 1
    assert seen.facts["tasks"] == {"unknown": "Label Studio is down"}
    assert seen.facts["runs"]["unknown"].startswith("Prefect is unknown")
    assert seen.facts["ledger"] == {"unknown": "there is no ledger yet; `trashnet setup` makes it"}
    assert "no clone of the flywheel" in seen.facts["dataset"]["unknown"]
    assert seen.facts["candidate"] == {"version": None}
    assert any("no teacher is in use yet" in note for note in seen.degraded)
    assert "1 uploads waiting, the oldest for" in format_status(seen)
    assert json.loads(seen.as_json())["ok"] is False


def test_makes_nothing(settings: Settings, tmp_path: Path) -> None:
    """Neither a ledger nor a bucket: it can be asked at any time, by anybody."""
    seen = collect_status(settings)
    assert "bucket" in seen.facts["inbox"]["unknown"].lower()
    assert list(tmp_path.iterdir()) == []


def test_the_ledgers_counts_are_shown(settings: Settings) -> None:
    """By state, and which turn was the last."""
    open_ledger(settings.ledger_url).close()
    facts = collect_status(settings).facts["ledger"]
    assert facts["frames"] == {}
    assert facts["last_turn"] is None


def test_what_waits_over_a_quota_is_shown(settings: Settings) -> None:
    """Per bin, uploads and frames apart, and where the number stands that can be raised."""
    ledger = open_ledger(settings.ledger_url)
    assert "nothing waits over a bin's quota" in format_status(collect_status(settings))
    today = datetime.now(UTC).date()
    ledger.record_waiting(today - timedelta(days=1), "uploads_waiting", {"bin02": 9})
    ledger.record_waiting(today, "uploads_waiting", {"bin01": 3, "bin07": 10_000})
    ledger.record_waiting(today, "frames_waiting", {"bin01": 2980})
    ledger.close()
    seen = collect_status(settings)
    assert seen.facts["quotas"] == {"uploads": {"bin01": 3, "bin07": 10_000}, "frames": {"bin01": 2980}}
    text = format_status(seen)
    assert "bin bin01: 3 uploads wait over its quota of today (ingest.uploads_per_bin_and_day" in text
    assert "bin bin07: 10,000 or more uploads wait" in text
    assert "bin bin01: 2,980 frames wait over its share of this turn's tasks (selection.bin_share)" in text


def test_frames_that_are_set_aside_are_shown_with_a_reason(settings: Settings) -> None:
    """They do not grow until somebody repairs them, so somebody has to see them."""
    ledger = open_ledger(settings.ledger_url)
    sha = "a" * 64
    ledger.add(FrameRow(sha256=sha, uploaded_sha256=sha, state="labelled", inbox_key="inbox/x.json"))
    ledger.set_aside("no plan", {sha: "there is no object frames/a.jpg in the store"})
    ledger.close()
    seen = collect_status(settings)
    assert seen.facts["ledger"]["set_aside"] == 1
    assert any("1 labelled frames cannot grow" in note and "frames/a.jpg" in note for note in seen.degraded)


def test_without_any_settings_the_way_to_get_them_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing to ask."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="`trashnet up` starts an embedded stack"):
        collect_status()


def test_the_runbook_has_an_entry_for_every_degraded_mode() -> None:
    """Each sentence stands in docs/runbook.md as status prints it, with dots for what differs."""
    tree = ast.parse((REPOSITORY / "operations/status/degraded.py").read_text(encoding="utf-8"))
    sentences = [
        _with_dots(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append"
    ]
    runbook = (REPOSITORY / "docs/runbook.md").read_text(encoding="utf-8")
    quoted = [line.removeprefix("> ") for line in runbook.splitlines() if line.startswith("> ")]
    assert len(sentences) > 8
    assert sorted(quoted) == sorted(sentences)


def _with_dots(text: ast.expr) -> str:
    if isinstance(text, ast.Constant):
        return str(text.value)
    assert isinstance(text, ast.JoinedStr)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in text.values)
