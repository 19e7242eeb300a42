"""The embedded stack in a copy of the repository, with bins and annotators that are simulated.

Turns differ in their pictures only. Some of them retrain, on a dataset and with parameters so small that
each stage takes little longer than its imports.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import httpx
import stamina

from benchmarks.support.postgres import PostgresCluster, new_database
from dataset import Log
from export import judgement_due, list_candidates, load_newest_candidate
from flows.active_runs import ACTIVE
from flows.prefect_api import open_api
from labeling import Client, connect
from labeling.interface import BOXES_TAG, IMAGE_TAG
from operations.stack import Server
from operations.stack.run_state import PREFECT_DATABASE_VARIABLE, StackPaths, find_run, read_environment_file
from synthetic import SampleParams, draw_sample
from tests.flows.conftest import copy_of_repository
from tests.ingest.uploads import jpeg, scene, sidecar, upload
from tests.operations.test_up import MINUTES, trashnet
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.boxes import to_percent
from trashnet.clone import Clone
from trashnet.ledger import FrameRow, Ledger, State, open_ledger
from trashnet.params import load_params, set_params
from trashnet.pipeline import load_stages
from trashnet.settings import Settings, load_settings
from trashnet.store import ObjectStore, open_store
from trashnet.taxonomy import Taxonomy

GOOD = 3  # frames of a turn that get tasks; a re-encode and a broken one come with them
BUSY_SECONDS = 60.0  # in which Prefect answers, whatever else this machine does
SIZE = 320, 240  # pixels
SMALL_PARAMS = {
    "growth.min_frames": str(GOOD),
    "labeling.double_share": "0",
    "rebalance.target_images": "1",
    "tfrecords.train_shards": "1",
    "tfrecords.val_shards": "1",
    "export.calibration_images": "4",
    "efficientdet.weights": "none",
    "efficientdet.image_size": "128",
    "efficientdet.epochs": "1",
    "efficientdet.batch_size": "8",
    "efficientdet.map_every": "0",
    "efficientdet.workers": "0",
    "ssd.weights": "none",
    "ssd.image_size": "96",
    "ssd.epochs": "1",
    "ssd.batch_size": "8",
}


@dataclass
class Flywheel:
    """The stack in ``root``; ``postgres`` has the ledger and Prefect's data, SQLite files have it if none."""

    root: Path
    taxonomy: Taxonomy
    postgres: PostgresCluster | None = None
    pictures: dict[str, str] = field(default_factory=dict)  # SHA-256 -> what the test calls the picture
    _stages: list[str] = field(default_factory=list)
    _databases: dict[str, str] = field(default_factory=dict)
    _postgres_server: Server | None = None
    _answered: set[int] = field(default_factory=set)

    def create(self) -> None:
        """Make the repository, whose dataset is a small drawn one, and the databases."""
        copy_of_repository(self.root, SMALL_PARAMS)
        sample = load_params("sample", SampleParams, self.root / "params.yaml")
        shutil.rmtree(self.root / "data", ignore_errors=True)
        small = sample.model_copy(update={"scale": 0.002, "image_size": 128})
        draw_sample(self.root / "data", self.taxonomy, small)
        environment = os.environ | {"PYTHONPATH": str(self.root), "DVC_NO_ANALYTICS": "1"}
        dvc = (sys.executable, "-m", "dvc")
        for command in (
            (*dvc, "add", "--quiet", "data"),
            (*dvc, "push", "--quiet", "data.dvc"),
            ("git", "add", "."),
            ("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a small dataset"),
        ):
            subprocess.run(command, cwd=self.root, env=environment, check=True)
        self._stages = [stage.name for stage in load_stages(self.root)]
        if self.postgres is not None:
            self._postgres_server = self.postgres.start()
            ledger, prefect = [new_database(self.postgres.url) for _ in range(2)]
            self._databases = {
                "TRASHNET_LEDGER_URL": ledger,
                PREFECT_DATABASE_VARIABLE: prefect.replace("psycopg", "asyncpg"),
            }

    def retrain_after(self, *, trained: bool) -> None:
        """Let the next turn's frames, with all that no candidate learnt from, make a retraining or not."""
        new = self.ledger.count_untrained_frames() + GOOD if trained else 10**6
        set_params({"retraining.min_new_frames": str(new)}, self.root / "params.yaml")

    def up(self) -> float:
        """Start it; the moment at which it is up. A database server is there before, as after any boot."""
        if self.postgres is not None and self._postgres_server is None:
            self._postgres_server = self.postgres.start()
        chosen, self._databases = self._databases, {}  # the stack itself remembers them after its first start
        up = trashnet("up", "--detach", cwd=self.root, seconds=14 * MINUTES, environment=chosen)
        assert up.returncode == 0, up.stdout + up.stderr
        return time.monotonic()

    def open(self) -> None:
        """Connect to what the stack's own settings name."""
        file = self.root / ".trashnet/stack.env"
        self.settings: Settings = load_settings(file)
        self.environment = read_environment_file(file)
        self.store: ObjectStore = open_store(self.settings)
        self.ledger: Ledger = open_ledger(self.settings.ledger_url)
        self.label_studio: Client = connect(self.settings)

    def close(self) -> None:
        """Stop everything."""
        if hasattr(self, "ledger"):
            self.ledger.close()
        trashnet("down", cwd=self.root, seconds=5 * MINUTES)
        if self._postgres_server is not None:
            self._postgres_server.stop()

    def cut_power(self) -> int:
        """Kill every process of the stack at once, with no chance to write anything; how many there were."""
        self.ledger.close()  # what a dead writer left in its files must be the stack's to mend
        killed, deadline = set[int](), time.monotonic() + 30
        while pids := self._processes():
            assert time.monotonic() < deadline
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed |= pids
            time.sleep(0.02)
        if self._postgres_server is not None:
            self._postgres_server.stop()  # reaps what is left of it
            self._postgres_server = None
        # A process that ends has no environment any more while it still holds files and locks.
        while any(Path(f"/proc/{pid}").exists() for pid in killed):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert find_run(StackPaths(self.root / ".trashnet")) is None
        return len(killed)

    def _processes(self) -> set[int]:
        """Those that are started by the stack's process or the database server, and whatever runs there."""
        parents, ours = dict[int, int](), set[int]()
        folders = [os.fsencode(self.root), *([os.fsencode(self.postgres.folder)] if self.postgres else [])]
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                pid, fields = int(path.name), (path / "stat").read_text().rpartition(")")[2].split()
                if fields[0] == "Z":
                    continue
                parents[pid] = int(fields[1])
                told = (path / "cmdline").read_bytes()
                with suppress(
                    PermissionError
                ):  # another user's, as PostgreSQL's are: its first one has a parent
                    told += (path / "environ").read_bytes() + os.fsencode((path / "cwd").readlink())
                if any(folder in told for folder in folders):
                    ours.add(pid)
        grown = True
        while grown:
            children = {pid for pid, parent in parents.items() if parent in ours} - ours
            ours, grown = ours | children, bool(children)
        return ours - {os.getpid()}

    @stamina.retry(on=httpx.HTTPError, attempts=None, timeout=BUSY_SECONDS)
    def active_flows(self) -> list[str]:
        """Flows that run now by what Prefect says, a retraining with the stages that it runs."""
        with self.prefect_api() as api:
            active = {"flow_runs": {"state": {"type": {"any_": list(ACTIVE)}}}}
            runs = api.post("/flow_runs/filter", json=active).json()
            ids = [run["flow_id"] for run in runs]
            flows = api.post("/flows/filter", json={"flows": {"id": {"any_": ids}}}).json()
            running = {"task_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
            tasks = api.post("/task_runs/filter", json=running).json()
        name_of = {flow["id"]: flow["name"] for flow in flows}
        return sorted(
            " ".join([name_of[run["flow_id"]], *_names_of_stages(tasks, run["id"])]) for run in runs
        )

    @stamina.retry(on=httpx.HTTPError, attempts=None, timeout=BUSY_SECONDS)
    def begun_stages(self) -> int:
        """How many stages of retrainings have ever begun; one that was killed stays "running" in Prefect."""
        begun = ["RUNNING", "COMPLETED", "FAILED", "CRASHED"]
        where = {"task_runs": {"state": {"type": {"any_": begun}}, "name": {"any_": self._stages}}}
        with self.prefect_api() as api:
            return int(api.post("/task_runs/count", json=where).json())

    def prefect_api(self) -> httpx.Client:
        """Prefect's API; an answer that is no success is an error."""
        api = open_api(self.environment["PREFECT_API_URL"], self.environment["PREFECT_API_AUTH_STRING"])
        api.event_hooks = {"response": [lambda response: response.raise_for_status() and None]}
        return api

    def upload(self, turn: int) -> None:
        """What bins do: good frames, a re-encode of the first, and a broken one."""
        bin_id = bin_of(turn)
        seeds = [1000 * (turn + 1) + number for number in range(GOOD)]
        images = {f"good {number}": jpeg(scene(seed, *SIZE)) for number, seed in enumerate(seeds)}
        images["re-encode"] = jpeg(scene(seeds[0], *SIZE), quality=60)
        whole = jpeg(scene(1000 * (turn + 1) + 99, *SIZE))
        images["broken"] = whole[: len(whole) // 2]  # its head alone would be the same in every turn
        for number, (name, data) in enumerate(images.items()):
            self.pictures[hashlib.sha256(data).hexdigest()] = name
            captured_at = f"2026-11-20T{turn % 24:02d}:{number:02d}:00+00:00"
            told = sidecar(bin_id, captured_at=captured_at, burst=f"{bin_id}-{number}")
            upload(self.store, data, told, bin_id=bin_id)

    def answer(self) -> None:
        """What people do: box every task that has no annotation yet, the same item in the same picture."""
        for row in frames_in_state(self.ledger, "tasked"):
            if row.task_id is None or row.task_id in self._answered:
                continue
            if not list(self.label_studio.annotations.list(id=row.task_id)):
                self.label_studio.annotations.create(id=row.task_id, result=self._boxes(row), lead_time=3.0)
            self._answered.add(row.task_id)

    def _boxes(self, row: FrameRow) -> list[dict[str, Any]]:
        number = sorted(set(self.pictures.values())).index(self.pictures[row.uploaded_sha256])
        box = 10.0 * number, 20.0, 100.0, 60.0 + number
        value = to_percent(box, *SIZE) | {"rotation": 0, "rectanglelabels": [self.taxonomy.names[number]]}
        tags = {"from_name": BOXES_TAG, "to_name": IMAGE_TAG, "type": "rectanglelabels"}
        size = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}
        return [tags | size | {"value": value}]

    def progress(self) -> tuple[Any, ...]:
        """What grows while the wheel turns."""
        waiting = sum(1 for _ in self.store.list("inbox/"))
        turns, stages = len(self.ledger.finished_turns()), self.begun_stages()
        return self.ledger.count_by_state(), turns, waiting, stages

    def flow_of(self, turn: int) -> str:
        """The flow that this turn's frames wait for or are in."""
        rows = [row for row in frames_in_state(self.ledger, *get_args(State)) if row.bin_id == bin_of(turn)]
        states = [row.state for row in rows if row.state not in ("received", "duplicate", "quarantined")]
        if len(states) < GOOD:
            return "ingest"
        if "accepted" in states:
            return "request-labels"
        if "tasked" in states:
            return "collect-labels"
        if len(self.ledger.finished_turns()) <= turn:
            return "grow"
        is_published = "publish" in self.active_flows() or "labelled" not in states
        return "publish" if is_published else "retrain"

    def is_done(self, turn: int, *, trained: bool) -> bool:
        """Whether the inbox is empty and every good frame of this turn is in the dataset's newest version.

        With ``trained`` also whether a candidate has learnt from them.
        """
        state: State = "released" if trained else "labelled"
        return (
            len(self.ledger.finished_turns()) > turn
            and sum(row.bin_id == bin_of(turn) for row in frames_in_state(self.ledger, state)) == GOOD
            and not list(self.store.list("inbox/"))
            and (
                not trained
                or (
                    not any(flow.startswith(("retrain", "publish", "gate")) for flow in self.active_flows())
                    and not judgement_due(self.store, lambda: "any")
                )
            )
        )

    def ended(self, turn: int, *, trained: bool) -> dict[str, Any]:
        """Ledger, store, tasks, dataset and models, as far as this turn has a part in them."""
        rows = [r for r in frames_in_state(self.ledger, *get_args(State)) if r.bin_id == bin_of(turn)]
        by_row = {row.sha256: (self.pictures[row.uploaded_sha256], str(row.state)) for row in rows}
        uploaded = {row.uploaded_sha256: self.pictures[row.uploaded_sha256] for row in rows}
        log = Log(Clone(self.settings.clone).path / "data", self.taxonomy)
        boxes = {sha: log.labels(log.row_of[sha]) for sha in by_row if sha in log.row_of}
        everywhere = [found.key for found in self.store.list("")]
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
            "models": self._models(everywhere, trained=trained),
        }

    def _tasks(self) -> list[Any]:
        title = self.settings.label_studio_project
        [project] = [found for found in self.label_studio.projects.list() if found.title == title]
        return list(self.label_studio.tasks.list(project=project.id, fields="all"))

    def _models(self, keys: list[str], *, trained: bool) -> dict[str, Any]:
        """Whether store and clones agree about all candidates, and what the newest one is if it is new."""
        candidates, newest = list(list_candidates(self.store)), load_newest_candidate(self.store)
        last = max(candidates, key=lambda candidate: candidate.order, default=None)
        folders = {key.split("/")[1] for key in keys if key.startswith("models/") and key.count("/") > 1}
        clone = Clone(self.settings.clone)
        tags = clone.git("ls-remote", "--tags", "origin", "models-*").split()
        commit_of = dict(zip(tags[1::2], tags[::2], strict=True))
        facts = {
            "newest.json names the last": newest == last,
            "published once": len({candidate.dataset for candidate in candidates}) == len(candidates),
            "without a tag at their commit": [
                candidate.version
                for candidate in candidates
                if commit_of.get(f"refs/tags/models-{candidate.version}") != candidate.commit
            ],
            "of no candidate": sorted(folders - {candidate.version for candidate in candidates}),
        }
        if not trained or newest is None:
            return facts
        prefix = f"models/{newest.version}/"
        files = sorted(key.removeprefix(prefix) for key in keys if key.startswith(prefix))
        return facts | {
            "of the newest dataset": newest.dataset == clone.dataset_version(),
            "files": [name for name in files if not name.startswith("judgements/")],
            "judged": any(name.startswith("judgements/") and name.endswith(".json") for name in files),
        }


def _names_of_stages(tasks: list[dict[str, Any]], flow_run: str) -> list[str]:
    """A retraining's stages, of these tasks; other tasks' names end in a part of their key."""
    return sorted(t["name"] for t in tasks if t["flow_run_id"] == flow_run and "-" not in t["name"])


def bin_of(turn: int) -> str:
    """The bin whose frames this turn is about."""
    return f"bin{turn:03d}"
