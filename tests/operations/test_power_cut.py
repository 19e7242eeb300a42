"""The power-cut test: at a random moment of a turn every process of the embedded stack is killed at once.

One undisturbed turn comes first. Every turn after it has the same uploads and answers but for the pictures,
and one power cut; it must end as the undisturbed one did. ``TRASHNET_POWER_CUTS`` is the number of moments (2
unless set; the release is tested with 30), ``TRASHNET_POWER_CUT_SEED`` where they lie. A turn here is ingest,
request, collect and grow: training and publishing take hours on a processor, and are not covered.
"""

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from dataset import Log
from labeling import Client, connect
from operations.stack.run_state import StackPaths, find_run
from tests.flows.conftest import copy_of_repository
from tests.ingest.uploads import jpeg, scene, sidecar, upload
from tests.operations.test_up import MINUTES, trashnet
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.clone import Clone
from trashnet.errors import UserError
from trashnet.ledger import Ledger, State, open_ledger
from trashnet.settings import Settings, load_settings
from trashnet.store import ObjectStore, open_store
from trashnet.taxonomy import Taxonomy

CUTS = int(os.environ.get("TRASHNET_POWER_CUTS", "2"))
SEED = int(os.environ.get("TRASHNET_POWER_CUT_SEED", "20261126"))
GOOD = 3  # frames of a turn that get tasks; a re-encode and a broken one come with them
TURN_SECONDS = 8 * MINUTES  # in which a turn must end, whatever happens
PROGRESS_SECONDS = 2 * MINUTES  # from the stack's being up until the wheel turns


@dataclass
class Flywheel:
    """The embedded stack in a copy of the repository."""

    root: Path
    taxonomy: Taxonomy
    pictures: dict[str, str] = field(default_factory=dict)  # SHA-256 -> what the test calls the picture

    def up(self) -> float:
        """Start it; the moment at which it is up."""
        up = trashnet("up", "--detach", cwd=self.root, seconds=14 * MINUTES)
        assert up.returncode == 0, up.stdout + up.stderr
        return time.monotonic()

    def open(self) -> None:
        """Connect to what the stack's own settings name."""
        self.settings: Settings = load_settings(self.root / ".trashnet/stack.env")
        self.store: ObjectStore = open_store(self.settings)
        self.ledger: Ledger = open_ledger(self.settings.ledger_url)
        self.label_studio: Client = connect(self.settings)

    def cut_power(self) -> int:
        """Kill every process of the stack at once, with no chance to write anything; how many there were."""
        killed, deadline = set[int](), time.monotonic() + 30
        while pids := self._processes():
            assert time.monotonic() < deadline
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed |= pids
            time.sleep(0.02)
        assert find_run(StackPaths(self.root / ".trashnet")) is None
        return len(killed)

    def _processes(self) -> set[int]:
        """Those that are started by the stack's process, and whatever else runs in its folder."""
        parents, ours = dict[int, int](), set[int]()
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                pid, fields = int(path.name), (path / "stat").read_text().rpartition(")")[2].split()
                if fields[0] == "Z":
                    continue
                parents[pid] = int(fields[1])
                told = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
                if os.fsencode(self.root) in told or (path / "cwd").readlink().is_relative_to(self.root):
                    ours.add(pid)
        grown = True
        while grown:
            children = {pid for pid, parent in parents.items() if parent in ours} - ours
            ours, grown = ours | children, bool(children)
        return ours - {os.getpid()}

    def upload(self, turn: int) -> None:
        """What bins do: good frames, a re-encode of the first, and a broken one."""
        bin_id = f"bin{turn:02d}"
        seeds = [1000 * (turn + 1) + number for number in range(GOOD)]
        images = {f"good {number}": jpeg(scene(seed, 320, 240)) for number, seed in enumerate(seeds)}
        images["re-encode"] = jpeg(scene(seeds[0], 320, 240), quality=60)
        whole = jpeg(scene(1000 * (turn + 1) + 99, 320, 240))
        images["broken"] = whole[: len(whole) // 2]  # its head alone would be the same in every turn
        for number, (name, data) in enumerate(images.items()):
            self.pictures[hashlib.sha256(data).hexdigest()] = name
            captured_at = f"2026-11-20T{turn % 24:02d}:{number:02d}:00+00:00"
            told = sidecar(bin_id, captured_at=captured_at, burst=f"{bin_id}-{number}")
            upload(self.store, data, told, bin_id=bin_id)

    def answer(self) -> None:
        """What people do: accept the pre-labels of every task that has no annotation yet."""
        for task in self._tasks():
            if not task.annotations:
                predictions = list(self.label_studio.predictions.list(task=task.id))
                self.label_studio.annotations.create(
                    id=task.id, result=list(predictions[0].result or []), lead_time=3.0
                )

    def _tasks(self) -> list[Any]:
        title = self.settings.label_studio_project
        [project] = [found for found in self.label_studio.projects.list() if found.title == title]
        return list(self.label_studio.tasks.list(project=project.id, fields="all"))

    def progress(self) -> tuple[Any, ...]:
        """What grows while the wheel turns."""
        waiting = sum(1 for _ in self.store.list("inbox/"))
        return self.ledger.count_by_state(), len(self.ledger.finished_turns()), waiting

    def is_done(self, turn: int) -> bool:
        """Whether the inbox is empty and every good frame of this turn is in the dataset's next version."""
        return (
            not list(self.store.list("inbox/"))
            and self.ledger.count_untrained_frames() == GOOD * (turn + 1)
            and len(self.ledger.finished_turns()) >= turn + 1
        )

    def ended(self, turn: int) -> dict[str, Any]:
        """Ledger, store, tasks and dataset, as far as this turn's bin has a part in them."""
        bin_id = f"bin{turn:02d}"
        rows = [row for row in frames_in_state(self.ledger, *get_args(State)) if row.bin_id == bin_id]
        good = {row.sha256 for row in rows if row.state == "labelled"}
        log = Log(Clone(self.settings.clone).path / "data", self.taxonomy)
        boxes = {sha: log.labels(log.row_of[sha]) for sha in good if sha in log.row_of}
        everywhere = [found.key for found in self.store.list("")]
        by_row = {row.sha256: (self.pictures[row.uploaded_sha256], str(row.state)) for row in rows}
        uploaded = {row.uploaded_sha256: self.pictures[row.uploaded_sha256] for row in rows}
        return {
            "ledger": sorted(by_row.values()),
            "annotations": sorted(len(self.ledger.annotations_of(sha)) for sha in by_row),
            "tasks": sorted(
                by_row[task.data["sha256"]][0] for task in self._tasks() if task.data["sha256"] in by_row
            ),
            "dataset": sorted(
                (by_row[sha][0], labels.boxes.tolist(), labels.class_ids.tolist())
                for sha, labels in boxes.items()
                if labels is not None
            ),
            "stored": sorted(
                by_row[sha][0]
                for key in everywhere
                if key.startswith("frames/")
                if (sha := Path(key).stem) in by_row
                if hashlib.sha256(self.store.get(key)).hexdigest() == sha
            ),
            "quarantine": sorted(
                (*key.split("/")[:2], uploaded[Path(key).stem], Path(key).suffix)
                for key in everywhere
                if key.startswith("quarantine/") and Path(key).stem in uploaded
            ),
            "inbox": [key for key in everywhere if key.startswith("inbox/")],
            "turns of the dataset": len(self.ledger.finished_turns()) - turn,
        }


@pytest.fixture
def flywheel(tmp_path: Path, taxonomy: Taxonomy) -> Iterator[Flywheel]:
    """The stack, which is up and grows its dataset as soon as a turn's frames are labelled."""
    root = tmp_path / "repository"
    changes = {
        "growth.min_frames": str(GOOD),
        "retraining.min_new_frames": "100000",
        "labeling.double_share": "0",
    }
    copy_of_repository(root, changes)
    made = Flywheel(root, taxonomy)
    made.up()
    made.open()
    yield made
    made.ledger.close()
    trashnet("down", cwd=root, seconds=5 * MINUTES)


def turn_once(flywheel: Flywheel, turn: int, cut_after: float | None) -> float:
    """Turn the wheel once, with a power cut after so many seconds; how long it took without the cut."""
    flywheel.upload(turn)
    began, is_cut = time.monotonic(), cut_after is None
    up_at: float | None = None
    at_up: tuple[Any, ...] = ()
    while not (is_cut and flywheel.is_done(turn)):
        elapsed = time.monotonic() - began
        assert elapsed < TURN_SECONDS, flywheel.progress()
        if not is_cut and cut_after is not None and elapsed >= cut_after:
            before = flywheel.progress()
            count, is_cut = flywheel.cut_power(), True
            up_at = flywheel.up()
            at_up = flywheel.progress()
            print(f"turn {turn}: {count} processes killed after {cut_after:.1f} s at {before}", flush=True)
            began += time.monotonic() - began - elapsed
        if up_at is not None and flywheel.progress() != at_up:
            print(
                f"turn {turn}: the wheel turns {time.monotonic() - up_at:.1f} s after its being up",
                flush=True,
            )
            up_at = None
        if up_at is not None and not flywheel.is_done(turn):
            assert time.monotonic() - up_at < PROGRESS_SECONDS, at_up
        with suppress(httpx.HTTPError, UserError):
            flywheel.answer()
        time.sleep(0.5)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout((10 + 6 * (CUTS + 1)) * MINUTES)
def test_a_power_cut_at_any_moment_of_a_turn_changes_nothing(flywheel: Flywheel) -> None:
    """Within 2 minutes of its being up the wheel turns on by itself, and the turn ends as one without it."""
    seconds = turn_once(flywheel, 0, None)
    undisturbed = flywheel.ended(0)
    print(f"undisturbed: {seconds:.0f} s, {undisturbed}", flush=True)
    assert undisturbed["ledger"] == [
        ("broken", "quarantined"),
        *((f"good {number}", "labelled") for number in range(GOOD)),
        ("re-encode", "duplicate"),
    ]
    assert len(undisturbed["dataset"]) == GOOD
    assert undisturbed["turns of the dataset"] == 1
    assert len(undisturbed["quarantine"]) == 3  # the broken picture, its sidecar, and the re-encode
    moments = [random.Random(SEED + number).uniform(0, seconds) for number in range(CUTS)]
    print(f"seed {SEED}, power cuts after {[round(moment, 1) for moment in moments]} s", flush=True)
    for turn, moment in enumerate(moments, start=1):
        turn_once(flywheel, turn, moment)
        assert flywheel.ended(turn) == undisturbed, f"seed {SEED}, power cut after {moment:.1f} s"
