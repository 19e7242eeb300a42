"""`trashnet withdraw` on a real store, Label Studio, git and DVC: nothing of a frame is left or returns."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.support.fault_injection import Killed
from benchmarks.support.inbox import pending_uploads
from dataset import GrowthParams, Log
from dataset.growth import grow_turn
from dataset.splits.params import SplitParams
from export import publish_candidate
from flows.context import FlowContext, open_context
from ingest import IngestParams, receive
from labeling import LabelingParams, request_labels
from labeling.tasks import tasks_of
from operations import withdrawal as withdrawal_module
from operations.cli import cli
from operations.status import collect_status
from operations.withdrawal import Selection, find, finish, finish_all, withdraw
from synthetic import draw_scene
from tests.clones import run
from tests.conftest import REPOSITORY
from tests.ingest.uploads import jpeg, scene, upload
from tests.servers import LabelStudioServer, S3Server
from trashnet.boxes import Box
from trashnet.clone import BRANCH
from trashnet.errors import UserError
from trashnet.ledger import AnnotationRow, FrameRow, Ledger, TurnRow
from trashnet.params import load_params
from trashnet.store import StoreDown

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GROWTH, SPLIT = (
    GrowthParams(min_frames=1, max_frames=1000),
    SplitParams(group_hash_distance=6, val=0.15, test=0.15),
)


@dataclass
class Deployment:
    """Flow context and origin, with verbs that bring frames as far as a test wants."""

    context: FlowContext
    origin: Path

    def accept(self, number: int, bin_id: str = "bin1", **columns: Any) -> str:
        """A drawn frame in the store and, as accepted, in the ledger; its SHA-256."""
        rng = np.random.default_rng([9, number])
        image, _, _ = draw_scene(rng, [5, 12], 96, self.context.taxonomy)
        data = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
        sha = hashlib.sha256(data).hexdigest()
        self.context.store.put(f"frames/{sha}.jpg", data)
        values: dict[str, Any] = {"state": "accepted", "inbox_key": f"inbox/{bin_id}/2026-03-01/{sha}.json"}
        values |= {"key": f"frames/{sha}.jpg", "width": 96, "height": 96, "bin_id": bin_id}
        values |= {"burst": f"b{number}", "captured_at": NOON, "phash": f"{number:016x}"}
        assert self.context.ledger.add(FrameRow(sha256=sha, uploaded_sha256=sha, **values | columns))
        return sha

    def ask(self, *shas: str) -> None:
        """Tasks of these frames."""
        context, params = self.context, load_params("labeling", LabelingParams)
        request_labels(context.label_studio, context.project, context.ledger, context.store, shas, params)

    def label(self, number: int, sha: str) -> None:
        """The frame's annotation, as collecting records it."""
        row = self.context.ledger.frame(sha)
        assert row is not None
        assert row.task_id is not None
        annotation = AnnotationRow(
            annotation_id=number,
            task_id=row.task_id,
            sha256=sha,
            annotator="ann",
            labelled_at=NOON,
            outcome="boxes",
            boxes=(Box("Drink can", 1, 2, 30, 40),),
        )
        self.context.ledger.record_annotations(sha, [annotation], finished=True)

    def grow(self) -> str:
        """One turn of what is labelled; its name."""
        context = self.context
        grown = grow_turn(context.clone, context.store, context.ledger, context.taxonomy, GROWTH, SPLIT)
        assert grown is not None
        return grown.turn

    def objects(self) -> set[str]:
        """Every object but DVC's own and the models."""
        prefixes = ("inbox/", "frames/", "quarantine/")
        return {stored.key for prefix in prefixes for stored in self.context.store.list(prefix)}

    def state(self, sha: str) -> str | None:
        """A frame's state."""
        row = self.context.ledger.frame(sha)
        return row and row.state


@pytest.fixture
def deployment(
    begun: Path,
    tmp_path: Path,
    s3_server: S3Server,
    label_studio_server: LabelStudioServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployment]:
    """A deployment without frames."""
    shutil.copytree(begun, tmp_path / "here")
    name = f"gone-{secrets.token_hex(4)}"
    for variable, value in {
        "S3_ENDPOINT": s3_server.url,
        "S3_ACCESS_KEY": s3_server.access_key,
        "S3_SECRET_KEY": s3_server.secret_key,
        "S3_BUCKET": name,
        "LEDGER_URL": f"sqlite:///{tmp_path}/ledger.sqlite",
        "LABEL_STUDIO_URL": label_studio_server.url,
        "LABEL_STUDIO_TOKEN": label_studio_server.token,
        "LABEL_STUDIO_PROJECT": name,
        "CLONE": str(tmp_path / "here" / "clone"),
        "GATEWAY_URL": "http://127.0.0.1:9",
        "GATEWAY_SECRET": "a-secret-of-16-letters",
    }.items():
        monkeypatch.setenv(f"TRASHNET_{variable}", value)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(REPOSITORY)
    with open_context() as context:
        context.store.ensure_bucket()
        yield Deployment(context, tmp_path / "here" / "origin")


def test_a_frame_is_forgotten_everywhere_and_the_report_names_who_learnt_from_it(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Of three grown frames one is withdrawn, and its re-encode: nothing of them is left anywhere.

    The candidate that was trained before is named, with the split; the one trained afterwards is not.
    """
    context, store = deployment.context, deployment.context.store
    shas = [deployment.accept(number) for number in range(3)]
    gone = shas[1]
    deployment.ask(*shas)
    for number, sha in enumerate(shas):
        deployment.label(number, sha)
    turn = deployment.grow()
    copy = "c" * 64
    twin = {"state": "duplicate", "inbox_key": f"inbox/bin1/2026-03-01/{copy}.json", "duplicate_of": gone}
    context.ledger.add(
        FrameRow(sha256=copy, uploaded_sha256=copy, key=f"quarantine/duplicate/{copy}.jpg", **twin)  # type: ignore[arg-type]
    )
    for key in (
        f"quarantine/duplicate/{copy}.jpg",
        f"quarantine/duplicate/{copy}.json",
        f"quarantine/broken-image/{gone}.jpg",
        f"inbox/bin1/2026-03-02/{gone}.jpg",
        f"inbox/bin1/2026-03-02/{gone}.json",
    ):
        store.put(key, b"x")
    (tmp_path / "m").write_bytes(b"model")

    def publish(dataset: str) -> str:
        turns = tuple(Log(context.clone.path / "data", context.taxonomy).turns)
        models = {"m": tmp_path / "m"}
        made = publish_candidate(store, models, {}, dataset=dataset, turns=turns, commit="c", scores={})
        return made.version

    before = publish("data-00001")
    split = Log(context.clone.path / "data", context.taxonomy)
    split_of = dict(zip(split.column("sha256"), split.splits.tolist(), strict=True))[gone]
    found = find(store, context.ledger, Selection((gone,)))
    assert {frame.sha256 for frame in found.frames} == {gone, copy}
    assert "2 frames (1 duplicate, 1 labelled; 1 of them in the dataset)" in found.summary()
    report = withdraw(context, found, reason="a face", by="ann")

    assert {deployment.state(gone), deployment.state(copy)} == {"withdrawn"}
    assert [deployment.state(sha) for sha in (shas[0], shas[2])] == ["labelled", "labelled"]
    row = context.ledger.frame(gone)
    assert row is not None
    assert (row.key, row.task_id, row.descriptor, row.phash) == (None, None, None, None)
    assert (row.bin_id, row.quarantine_reason) == ("bin1", "withdrawn")
    assert deployment.objects() == {f"frames/{sha}.jpg" for sha in (shas[0], shas[2])}
    assert set(tasks_of(context.label_studio, context.project, shas)) == {shas[0], shas[2]}
    log = Log(context.clone.path / "data", context.taxonomy)
    assert set(log.column("sha256")) == {shas[0], shas[2]}
    assert run(deployment.origin, "git", "tag").split() == ["data-00001", "data-00002"]
    assert "1 frames withdrawn: a face" in run(deployment.origin, "git", "log", "-1", "--format=%s", BRANCH)
    assert [(one.version, dict(one.splits)) for one in report.learnt] == [(before, {split_of: 1})]
    assert (report.tasks, report.objects) == (1, 6)
    assert f"candidate {before} of data-00001 knew 1 {split_of} frames of these" in report.text()
    after = publish("data-00002")
    tombstones = withdrawal_module.withdraw_from_dataset(context.clone, context.taxonomy, [gone], "a face")
    assert [one.version for one in withdrawal_module._learnt(store, tombstones)] == [before] != [after]
    assert tombstones[0].turn == turn
    with pytest.raises(UserError, match="no such frame that is not withdrawn yet"):
        find(store, context.ledger, Selection((gone,)))


def test_a_withdrawal_that_dies_at_any_step_is_finished_later(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the dataset, the tasks, each object and the ledger's last word; the status names it."""
    context = deployment.context
    shas = [deployment.accept(number, "bin2") for number in range(2)]
    deployment.ask(*shas)
    deployment.label(0, shas[0])
    deployment.grow()

    def die(*_: Any, **__: Any) -> Any:
        raise Killed

    found = find(context.store, context.ledger, Selection(bin_id="bin2"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(withdrawal_module, "withdraw_from_dataset", die)
        withdraw(context, found, reason="a face", by="ann")
    assert [deployment.state(sha) for sha in shas] == ["withdrawn"] * 2
    (unfinished,) = context.ledger.unfinished_withdrawals()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(withdrawal_module, "delete_tasks", die)
        finish(context, unfinished)
    assert len(Log(context.clone.path / "data", context.taxonomy)) == 0
    for number in range(2):
        real, calls = context.store.remove, list[str]()

        def dying(key: str, number: int = number, real: Any = real, calls: list[str] = calls) -> None:
            calls.append(key)
            if len(calls) > number:
                raise StoreDown("down")
            real(key)

        with monkeypatch.context() as patch, pytest.raises(StoreDown):
            patch.setattr(context.store, "remove", dying)
            finish(context, unfinished)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Ledger, "finish_withdrawal", die)
        finish(context, unfinished)
    status = collect_status(context.settings)
    assert any("trashnet withdraw --finish" in note for note in status.degraded)
    assert any("trashnet compact" in note for note in status.degraded)
    (report,) = finish_all(context)
    assert (report.frames, len(report.tombstones)) == (2, 1)
    assert context.ledger.unfinished_withdrawals() == []
    assert deployment.objects() == set()
    assert tasks_of(context.label_studio, context.project, shas) == {}
    assert list(finish_all(context)) == []
    assert not any("--finish" in note for note in collect_status(context.settings).degraded)


def test_an_upload_of_withdrawn_bytes_is_refused_and_kept_nowhere(deployment: Deployment) -> None:
    """The same bytes, and the same picture with other metadata; another picture of that bin comes in."""
    context, params = deployment.context, load_params("ingest", IngestParams)
    store, ledger = context.store, context.ledger
    picture, other = scene(1), scene(2)
    same = jpeg(picture)
    commented = jpeg(picture, comment=b"taken again")
    assert same != commented

    def ingest() -> None:
        receive(store, ledger, pending_uploads(store), context.taxonomy, params)

    upload(store, same)
    ingest()
    (key,) = deployment.objects()
    sha = Path(key).stem
    withdraw(context, find(store, ledger, Selection((sha,))), reason="a face", by="ann")
    upload(store, same)
    upload(store, commented)
    upload(store, jpeg(other))
    ingest()
    (left,) = deployment.objects()
    assert left.startswith("frames/")
    assert Path(left).stem != sha
    assert ledger.count_by_state() == {"withdrawn": 2, "received": 1}
    again = ledger.frame_by_upload(hashlib.sha256(commented).hexdigest())
    assert again is not None
    assert (again.quarantine_reason, again.key, again.duplicate_of) == ("withdrawn", None, sha)


def test_uploads_that_wait_are_withdrawn_with_their_bin_or_day(deployment: Deployment) -> None:
    """They never reach the ledger as received, also when the bin sends them once more."""
    context, params = deployment.context, load_params("ingest", IngestParams)
    mine, theirs = jpeg(scene(3)), jpeg(scene(4))
    upload(context.store, mine, bin_id="bin7")
    upload(context.store, theirs, bin_id="bin70")
    found = find(context.store, context.ledger, Selection(bin_id="bin7"))
    assert (len(found.frames), [row.bin_id for row in found.uploads]) == (0, ["bin7"])
    withdraw(context, found, reason="a face", by="ann")
    assert {key.split("/")[1] for key in deployment.objects()} == {"bin70"}
    upload(context.store, mine, bin_id="bin7")
    receive(context.store, context.ledger, pending_uploads(context.store), context.taxonomy, params)
    assert context.ledger.count_by_state() == {"withdrawn": 1, "received": 1}
    # The inbox' day is 2026-11-20, and so is the capture of what was received: the day itself is not before.
    with pytest.raises(UserError, match="no such frame"):
        find(context.store, context.ledger, Selection(before=datetime(2026, 11, 20, tzinfo=UTC)))
    found = find(context.store, context.ledger, Selection(before=datetime(2026, 11, 21, tzinfo=UTC)))
    assert [frame.state for frame in found.frames] == ["received"]


def test_a_turn_under_way_elsewhere_cannot_bring_a_withdrawn_frame_back(deployment: Deployment) -> None:
    """Another machine may push the turn that it planned before: the withdrawal stays open until then."""
    context = deployment.context
    sha = deployment.accept(1, "bin4")
    deployment.ask(sha)
    deployment.label(1, sha)
    plan = TurnRow(digest="d" * 64, state="planned", started_at=datetime.now(UTC), frames=1, boxes=1)
    context.ledger.plan_turn(plan, [("", 1)])
    found = find(context.store, context.ledger, Selection((sha,)))
    with pytest.raises(UserError, match="run `trashnet withdraw --finish` after grow has finished it"):
        withdraw(context, found, reason="a face", by="ann")
    assert deployment.objects() == set()
    assert len(context.ledger.unfinished_withdrawals()) == 1
    context.ledger.finish_turn(plan.digest, turn=None, version=None)
    assert [report.frames for report in finish_all(context)] == [1]
    assert context.ledger.unfinished_withdrawals() == []


def test_the_commands_ask_first_and_a_dry_run_changes_nothing(deployment: Deployment) -> None:
    """Counts come before the question; `compact` names the older files, and removes them if it is told to."""
    context = deployment.context
    shas = [deployment.accept(number, "bin3") for number in range(2)]
    deployment.ask(*shas)
    for number, sha in enumerate(shas):
        deployment.label(number, sha)
    deployment.grow()

    def trashnet(*arguments: str, answer: str = "") -> str:
        done = CliRunner().invoke(cli, arguments, input=answer, catch_exceptions=False)
        return done.output

    with pytest.raises(UserError, match="one of --frame, --bin and --before"):
        trashnet("withdraw", "--bin", "bin3", "--frame", shas[0], "--reason", "a face")
    with pytest.raises(UserError, match="give --reason"):
        trashnet("withdraw", "--bin", "bin3")
    assert "2 frames (2 labelled; 2 of them in the dataset)" in trashnet(
        "withdraw", "--bin", "bin3", "--dry-run"
    )
    assert "Aborted" in trashnet("withdraw", "--frame", shas[0], "--reason", "a face", answer="n\n")
    assert deployment.state(shas[0]) == "labelled"
    done = trashnet("withdraw", "--frame", shas[0], "--reason", "a face", "--yes")
    assert "1 frames withdrawn (a face): 1 of them left the dataset, 1 tasks deleted" in done
    data = context.store.get(f"frames/{shas[1]}.jpg")
    named = trashnet("compact")
    cached = [word for word in named.split() if word.startswith(os.sep) and "files/md5" in word]
    (cache,) = map(Path, cached)
    assert data in cache.read_bytes()
    assert cache.as_posix().endswith(named.split("dvc/")[-1].strip())
    assert trashnet("compact") == "no file of the dataset holds a withdrawn frame\n"
    withdrawn = trashnet("withdraw", "--frame", shas[1], "--reason", "another face", "--yes")
    assert "1 of them left the dataset" in withdrawn
    purged = trashnet("compact", "--purge", "--yes")
    (gone,) = [Path(w) for w in purged.split() if w.startswith(os.sep) and "files/md5" in w]
    assert not gone.exists()
    assert (
        json.loads(collect_status(context.settings).as_json())["facts"]["dataset"]["needs_compaction"]
        is False
    )
