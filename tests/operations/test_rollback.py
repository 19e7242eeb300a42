"""`trashnet rollback`, `override` and `credit` as an operator meets them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from dataset.new_labels import TurnShare
from evaluation.gate import GateParams, SliceChange, Verdict
from export import Candidate, Judgement, promote, publish_candidate
from export.credit import SliceCredit
from export.judgement import ModelJudgement
from operations.cli import cli
from operations.status import collect_status
from operations.status.text import format_status
from tests.servers import S3Server
from trashnet.errors import UserError
from trashnet.models import ROLES, STUDENT, TEACHER
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
    """The earlier models are in use again; who went back and why are shown until the gate goes on."""
    store = open_store(settings)
    store.ensure_bucket()

    def publish(number: int) -> Candidate:
        models = {name: tmp_path / name for name in (TEACHER.file, STUDENT.file)}
        for path in models.values():
            path.write_bytes(f"model {number}".encode())
        dataset = f"data-{number:05}"
        candidate = publish_candidate(store, models, {}, dataset=dataset, turns=(), commit="c", scores={})
        promote(store, candidate, "teacher", "no worse")
        promote(store, candidate, "student", "no worse")
        return candidate

    first, second = publish(1).version, publish(2).version
    arguments = ["rollback", first, "--reason", "takes cups for cans", "--by", "ann"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.output.splitlines() == [
        f"the {role} is now that of candidate {first} instead of {second}: takes cups for cans"
        for role in ROLES
    ]
    shown = format_status(seen := collect_status(settings))
    assert f"rolled back from {second}" in shown
    assert [note for note in seen.degraded if "ann went back because: takes cups for cans" in note]
    publish(3)
    assert "rolled back" not in format_status(seen := collect_status(settings))
    assert not any("went back" in note for note in seen.degraded)


def test_a_person_overrides_the_gate_and_the_status_says_so(settings: Settings, tmp_path: Path) -> None:
    """One model alone may be taken; the reason stands in the status for as long as it is in use."""
    store, model = open_store(settings), tmp_path / STUDENT.file
    store.ensure_bucket()
    model.write_bytes(b"model")
    models = {STUDENT.file: model}
    made = publish_candidate(store, models, {}, dataset="data-00001", turns=(), commit="c", scores={})
    arguments = ["override", made.version, "--model", "student", "--reason", "a field test", "--by", "ann"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.output == f"the student is now that of candidate {made.version}: a field test\n"
    seen = collect_status(settings)
    assert "by an override of ann" in format_status(seen)
    assert any("ann overrode it because: a field test" in note for note in seen.degraded)


def test_a_rollback_without_a_reason_is_refused(settings: Settings) -> None:
    """The command asks for it."""
    refused = CliRunner().invoke(cli, ["rollback", "00001-0123456789ab"])
    assert refused.exit_code == 2
    assert "--reason" in refused.output


def test_credit_says_what_changed_and_whose_labels_are_new(settings: Settings, tmp_path: Path) -> None:
    """Of a candidate that was never judged it says how to; the page with pictures is saved where asked."""
    store, model = open_store(settings), tmp_path / STUDENT.file
    store.ensure_bucket()
    model.write_bytes(b"model")
    models = {STUDENT.file: model}
    made = publish_candidate(store, models, {}, dataset="data-00001", turns=(), commit="c", scores={})
    with pytest.raises(UserError, match=f"never judged; `trashnet gate {made.version}` does it now"):
        CliRunner().invoke(cli, ["credit", made.version], catch_exceptions=False)
    change = SliceChange(
        kind="class", name="Cup", boxes=40, groups=20, before=0.5, after=0.75, p=0.01, moved=True
    )
    turn = TurnShare(
        turn="00002-bins-0123456789ab", boxes=9, frames=4, corrected=1, chosen={"drawn at random": 4}, bins={}
    )
    verdict = Verdict(
        outcome="passes",
        findings=(),
        slices={},
        watch={},
        frames=40,
        groups=20,
        items=40,
        params=GateParams(),
    )
    credit = SliceCredit(change=change, turns=(turn,), frames=("ab" * 32,))
    judged = ModelJudgement(champion=None, best=None, verdict=verdict, credit=(credit,))
    judgement = Judgement(
        challenger=made.version,
        at=datetime.now(UTC),
        gate_set="gate-00002",
        digest="d",
        frames={"exploration": 40},
        models={"student": judged},
    )
    store.put(judgement.key, judgement.model_dump_json().encode())
    store.put(judgement.page_key, b"a page")
    page = tmp_path / "credit.html"
    done = CliRunner().invoke(cli, ["credit", made.version, "--page", str(page)], catch_exceptions=False)
    assert (
        "75 % of its 40 items are recognised as what they are, 50 % before: +25 points (p = 0.0100"
        in done.output
    )
    assert "turn 00002-bins-0123456789ab brought 9 boxes on 4 frames (4 drawn at random, 1 corrected)" in (
        done.output
    )
    assert page.read_bytes() == b"a page"
