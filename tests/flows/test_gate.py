"""Candidates come one after another: the gate judges each by event, and people see what it says.

Servers, automations, clone and model files are real; the student is the demo's, which was trained.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset import Frame, Labels, append_turn
from dataset.append import open_to_append
from dataset.gate_set import step_gate_set
from dataset.params import GrowthParams
from dataset.versions import DATA, commit_version
from export import (
    Candidate,
    Judgement,
    frames_wanted,
    list_champion_changes,
    load_judgement,
    publish_candidate,
)
from flows.context import FlowContext
from flows.prefect_api import open_api, post, send
from operations.demo import IMAGE_SIZE, draw_captures, upload
from operations.status import collect_status
from operations.status.text import format_status
from tests.flows.conftest import Deployment
from tests.flows.drawn_models import MOST_BOXES, write_student, write_teacher
from tests.flows.test_loop import tasks
from tests.trashnet.ledger.inspection import frames_in_state
from trashnet.boxes import stack
from trashnet.clone import Clone
from trashnet.models import ROLES, SSD_FLOAT, STUDENT, TEACHER, Role
from trashnet.params import load_params, set_params
from trashnet.taxonomy import Taxonomy

TASKS = 4
PARAMS = {
    "gate.max_latency_ratio": "1000",  # on a machine with other work the clock says nothing
    "growth.gate_imports": "false",  # the sample's test frames would be many
    "labeling.blind_share": "0",
    "selection.bin_share": "1",
    "selection.budget": str(TASKS),
    "selection.exploration_share": "0",
}
FEW, MORE = 40, 75  # frames: a copy of the champion needs 270 items to pass, and a frame has three
SCORE = 0.4  # from which a bin acts on the student's detections
JUDGED_SECONDS = 600.0
FIRST_BOXES = "somebody has to draw the first boxes"
EMIT = "import sys; from flows.events import PUBLISHED, emit; emit(PUBLISHED, version=sys.argv[1])"


@dataclass
class Gate:
    """The deployment's gate as its operators see it, and models to publish."""

    deployment: Deployment
    taxonomy: Taxonomy
    folder: Path
    number: int = 1  # of the last dataset version that something was published of

    def grow(self, frames: int) -> None:
        """A turn of labelled exploration frames, each a group of its own; the gate set takes a step."""
        clone, taxonomy = Clone(self.deployment.settings.clone), self.taxonomy
        drawn, labels = [], []
        for index, capture in enumerate(draw_captures(100 + frames, frames, None, taxonomy, 0)):
            sha256, size = capture.sha256, IMAGE_SIZE
            name = f"{sha256}.jpg"
            frame = Frame(
                sha256, capture.jpeg, size, size, "test", capture.burst, index, name, bin_id=capture.bin_id
            )
            drawn.append(replace(frame, upload_reason="exploration", selected_by="exploration"))
            class_ids = np.array([taxonomy.id_of[box.label] for box in capture.truth], np.int64)
            crowd = np.zeros(len(class_ids), bool)
            labels.append((sha256, Labels(stack(capture.truth), class_ids, crowd)))
        params = load_params("growth", GrowthParams, self.deployment.root / "params.yaml")
        with clone.exclusive_lock():
            turn = append_turn(clone.path / DATA, "bins", drawn, labels, taxonomy)
            with open_to_append(clone.path / DATA, taxonomy) as log:
                assert step_gate_set(log, params) is not None
            assert turn is not None
            commit_version(clone, turn, f"{frames} exploration frames")

    def student(self, note: str, *, shift: int = 0) -> Path:
        """The demo's student; with a ``shift`` it calls every class by another one's name."""
        names = list(self.taxonomy.names)
        trained = self.deployment.root / "operations/demo_student.tflite"
        return write_student(self.folder / STUDENT.file, trained, names[shift:] + names[:shift], note)

    def teacher(self, label: str, boxes: int) -> Path:
        """A teacher that sees so many items of one class wherever it looks."""
        return write_teacher(self.folder / TEACHER.file, self.taxonomy, label, boxes)

    def publish(self, **models: Path) -> Candidate:
        """Publish a candidate of the next dataset version, with the scorecards that a training writes."""
        self.number += 1
        cards = {}
        for name, card in {
            STUDENT.name: {"coco": {"ap": 0.46}, "sorting": {"score": SCORE}},
            SSD_FLOAT.name: {"coco": {"ap": 0.465}},
        }.items():
            cards[f"scorecards/{name}.json"] = self.folder / f"{name}.json"
            cards[f"scorecards/{name}.json"].write_text(json.dumps(card))
        return publish_candidate(
            self.deployment.store,
            {path.name: path for path in models.values()},
            cards,
            dataset=f"data-{self.number:05}",
            turns=(),
            commit="c0ffee",
            scores={},
        )

    def announce(self, candidate: Candidate) -> None:
        """Emit the event that a publication ends with; nothing else starts the gate."""
        command = [sys.executable, "-c", EMIT, candidate.version]
        subprocess.run(command, cwd=self.deployment.root, env=self.deployment.environment, check=True)

    def wait_for_judgement(self, candidate: Candidate, number: int = 1) -> Judgement:
        """The candidate's n-th judgement, once its run has ended; seen in Prefect and in the store."""
        store = self.deployment.store
        prefix = f"models/{candidate.version}/judgements/"

        def keys(ending: str) -> list[str]:
            return sorted(stored.key for stored in store.list(prefix) if stored.key.endswith(ending))

        def ended() -> bool:
            found = self.artifacts(candidate)
            return len(found) == number and self.run_of(found[-1])["state"]["type"] == "COMPLETED"

        self.deployment.wait_for(f"{candidate.version} is judged", ended, JUDGED_SECONDS)
        judgement = load_judgement(store, candidate.version)
        assert judgement is not None
        artifact = self.artifacts(candidate)[-1]
        assert artifact["data"] == judgement.markdown()
        assert artifact["description"] == f"Candidate {candidate.version}: {judgement.outcome}"
        assert judgement.credit_markdown() in [one["data"] for one in self.artifacts_named("credit")]
        if number == 1:  # later ones a sweep starts
            assert self.run_of(artifact)["created_by"]["type"] == "AUTOMATION"
        assert len(keys(".json")) == len(keys(".html")) == number
        page = store.get(keys(".html")[-1]).decode()
        assert all(one.verdict.outcome in page for one in judgement.models.values())
        return judgement

    def artifacts(self, candidate: Candidate) -> list[dict[str, Any]]:
        """What the gate's runs show of this candidate in Prefect, oldest first."""
        about = f"Candidate {candidate.version}:"
        return [one for one in self.artifacts_named("gate") if one["description"].startswith(about)]

    def artifacts_named(self, name: str) -> list[dict[str, Any]]:
        """All artifacts of this key in Prefect, oldest first."""
        with open_api(self.deployment.environment["PREFECT_API_URL"]) as api:
            key = {"key": {"any_": [name]}}
            found: list[dict[str, Any]] = post(api, "/artifacts/filter", artifacts=key, sort="ID_DESC").json()
        return sorted(found, key=lambda one: str(one["created"]))

    def run_of(self, artifact: dict[str, Any]) -> dict[str, Any]:
        """The flow run that made an artifact."""
        with open_api(self.deployment.environment["PREFECT_API_URL"]) as api:
            run: dict[str, Any] = send(api, "GET", f"/flow_runs/{artifact['flow_run_id']}").json()
        return run

    def status(self) -> tuple[str, dict[str, Any]]:
        """What `trashnet status` prints for people, and the facts that it prints for programs."""
        seen = collect_status(self.deployment.settings)
        facts: dict[str, Any] = json.loads(seen.as_json())["facts"]
        return format_status(seen), facts

    def decide(self, command: str, candidate: Candidate, role: Role, reason: str) -> str:
        """Ann overrides the gate, or goes back, by the command line; what it answers."""
        arguments = [command, candidate.version, "--model", role, "--reason", reason, "--by", "ann"]
        return self.deployment.trashnet(*arguments)

    def in_use(self, role: Role) -> str | None:
        """The champion as `champion.json` has it."""
        pointer = json.loads(self.deployment.store.get("models/champion.json"))
        champion = pointer[role]
        return champion and str(champion["version"])


@pytest.fixture(scope="module")
def gate(deployment: Deployment, taxonomy: Taxonomy, tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """A gate set of few frames, and no champion yet."""
    set_params(PARAMS, deployment.root / "params.yaml")
    command = [sys.executable, "-m", "dvc", "pull", "--quiet", "operations/demo_student.tflite"]
    subprocess.run(command, cwd=deployment.root, env=deployment.environment, check=True)
    made = Gate(deployment, taxonomy, tmp_path_factory.mktemp("models"))
    made.grow(FEW)
    return made


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_verdict_is_seen_where_people_look(gate: Gate) -> None:
    """Pass by the minima, block, hold, pass by more frames, override, pass by being better, rollback."""
    first = passes_the_minima(gate)
    teacher, broken = blocks(gate, first)
    copy = holds(gate, first)
    asks_for_exploration_frames(gate, first, teacher)
    passes_with_more_frames(gate, copy)
    is_overridden(gate, broken, copy)
    good = passes_by_being_better(gate, broken)
    is_rolled_back(gate, first, good)


def passes_the_minima(gate: Gate) -> Candidate:
    """The first candidate is compared with nothing but the minima of params.yaml."""
    text, data = gate.status()
    assert "nothing to judge yet" in text
    assert data["champions"] == {"teacher": None, "student": None}
    first = gate.publish(student=gate.student("first"))
    text, _ = gate.status()
    assert f"{first.version} was not judged yet" in text
    gate.announce(first)
    judgement = gate.wait_for_judgement(first)
    student = judgement.models["student"]
    assert (student.verdict.outcome, student.champion) == ("passes", None), judgement.markdown()
    assert {finding.test for finding in student.verdict.findings} == {"minimum", "check"}
    assert judgement.frames == {"exploration": FEW}
    assert gate.in_use("student") == first.version
    text, data = gate.status()
    assert data["gate"]["models"]["student"]["outcome"] == "passes"
    assert data["champions"]["student"]["change"]["decision"] == "passed"
    assert re.search(rf"champions +teacher +none yet\n +student +{first.version}, .* passed the gate", text)
    assert "passes (no champion before it): Sorting utility per item above that of no model is" in text
    return first


def blocks(gate: Gate, first: Candidate) -> tuple[Candidate, Candidate]:
    """A student that calls every class by another name, and a teacher that clutters every picture."""
    teacher = gate.publish(teacher=gate.teacher(gate.taxonomy.names[4], 1))
    gate.decide("override", teacher, "teacher", FIRST_BOXES)
    text, _ = gate.status()
    assert f"{teacher.version} was not judged yet, but a person put its teacher into use" in text
    cluttered = gate.teacher(gate.taxonomy.names[5], MOST_BOXES)
    broken = gate.publish(student=gate.student("broken", shift=1), teacher=cluttered)
    gate.announce(broken)
    judgement = gate.wait_for_judgement(broken)
    outcomes = {role: (one.verdict.outcome, one.champion) for role, one in judgement.models.items()}
    assert outcomes == {"teacher": ("blocks", teacher.version), "student": ("blocks", first.version)}
    findings = judgement.models["student"].verdict.findings
    assert "utility" in {finding.test for finding in findings if finding.outcome == "blocks"}
    assert gate.in_use("student") == first.version
    assert gate.in_use("teacher") == teacher.version
    text, data = gate.status()
    assert data["gate"]["models"]["student"]["outcome"] == "blocks"
    assert f"student  blocks (against {first.version}): Sorting utility per item differs by -" in text
    for role in ROLES:
        assert f"the gate blocks the {role} of candidate {broken.version}: " in text
    assert data["gate"]["page"] in text
    return teacher, broken


def holds(gate: Gate, first: Candidate) -> Candidate:
    """A copy of the champion loses nothing, but on so few frames nobody can tell."""
    copy = gate.publish(student=gate.student("copy"))
    gate.announce(copy)
    judgement = gate.wait_for_judgement(copy)
    verdict = judgement.models["student"].verdict
    assert verdict.outcome == "holds", judgement.markdown()
    assert [finding.estimate for finding in verdict.findings if finding.test == "utility"] == [0.0]
    assert gate.in_use("student") == first.version
    wanted = frames_wanted(gate.deployment.store)
    assert wanted == verdict.more_frames
    text, data = gate.status()
    assert data["gate"]["more_frames"] == wanted
    assert f"about {wanted} exploration frames more would decide" in text
    assert f"the gate holds the student of candidate {copy.version}: " in text
    return copy


def asks_for_exploration_frames(gate: Gate, first: Candidate, teacher: Candidate) -> None:
    """Half of the tasks are drawn at random while the gate holds; the champion pre-labels the others."""
    deployment, taxonomy = gate.deployment, gate.taxonomy
    for capture in draw_captures(7, 8, None, taxonomy, 0):  # two of them at random
        upload(FlowContext(deployment.settings), capture, first.version)
    deployment.wait_for(
        "there are tasks", lambda: deployment.ledger.count_by_state().get("tasked", 0) == TASKS, 300
    )
    rows = frames_in_state(deployment.ledger, "tasked")
    chosen = sorted((str(row.selected_by), str(row.upload_reason)) for row in rows)
    assert chosen == 2 * [("exploration", "exploration")] + 2 * [("score", "model")]
    shown = {task.data["sha256"]: task for task in tasks(deployment, taxonomy)}
    for row in rows:
        assert row.model == teacher.version
        task = shown[row.sha256]
        if row.selected_by == "score":
            (prelabel,) = task.predictions
            labels = [region["value"]["rectanglelabels"] for region in prelabel.result or []]
            assert (task.data["model"], labels) == (f"teacher {teacher.version}", [[taxonomy.names[4]]])
        else:
            assert not task.predictions, "what val and test may get shows no model's boxes"


def passes_with_more_frames(gate: Gate, copy: Candidate) -> None:
    """The gate set has grown: a sweep finds that what was held is due again."""
    gate.grow(MORE)
    gate.deployment.run_flow("sweep/sweep")
    judgement = gate.wait_for_judgement(copy, number=2)
    student = judgement.models["student"]
    assert student.verdict.outcome == "passes", judgement.markdown()
    assert judgement.frames == {"exploration": FEW + MORE}
    assert gate.in_use("student") == copy.version
    assert frames_wanted(gate.deployment.store) == 0
    text, _ = gate.status()
    assert "exploration frames more" not in text
    assert re.search(rf"student +{copy.version}, .* passed the gate", text)


def is_overridden(gate: Gate, broken: Candidate, copy: Candidate) -> None:
    """A person takes the blocked student; the reason stands in the store and in the status."""
    reason = "the bins of the fair know these names"
    said = gate.decide("override", broken, "student", reason)
    assert (
        said == f"the student is now that of candidate {broken.version} instead of {copy.version}: {reason}\n"
    )
    assert gate.in_use("student") == broken.version
    text, data = gate.status()
    change = data["champions"]["student"]["change"]
    assert (change["decision"], change["by"], change["reason"]) == ("override", "ann", reason)
    assert f"ann overrode it because: {reason}" in text
    assert re.search(rf"student +{broken.version}, .* by an override of ann", text)


def passes_by_being_better(gate: Gate, broken: Candidate) -> Candidate:
    """Both tests and all slices speak for it, against the poor champion and against the best there was."""
    good = gate.publish(student=gate.student("good"))
    gate.announce(good)
    judgement = gate.wait_for_judgement(good)
    student = judgement.models["student"]
    assert (student.verdict.outcome, student.champion) == ("passes", broken.version), judgement.markdown()
    against = {(finding.test, finding.against): finding for finding in student.verdict.findings}
    for test in ("utility", "ap50"):
        low = against[test, "champion"].low
        assert low is not None
        assert low > 0, "not only no worse: better"
    assert against["harm", "champion"].outcome == against["harm", "best champion"].outcome == "passes"
    assert gate.in_use("student") == good.version
    text, _ = gate.status()
    assert re.findall("overrode it because: (.*)", text) == [FIRST_BOXES], "only the teacher's is left"
    return good


def is_rolled_back(gate: Gate, first: Candidate, good: Candidate) -> None:
    """The first student is used again, and no sweep undoes that; every change is listed with its reason."""
    gate.decide("rollback", first, "student", "takes cups for cans")
    gate.deployment.run_flow("sweep/sweep")
    assert gate.in_use("student") == first.version
    assert len(gate.artifacts(good)) == 1, "nothing was judged again"
    text = gate.deployment.trashnet("status")
    facts = json.loads(gate.deployment.trashnet("status", "--json"))["facts"]
    assert facts["champions"]["student"]["change"]["reason"] == "takes cups for cans"
    assert facts["gate"]["models"]["student"]["outcome"] == "passes"
    assert f"instead of {good.version}: ann went back because: takes cups for cans" in text
    changes = list_champion_changes(gate.deployment.store)
    assert [(change.role, change.decision) for change in changes] == [
        ("student", "passed"),
        ("teacher", "override"),
        ("student", "passed"),
        ("student", "override"),
        ("student", "passed"),
        ("student", "rollback"),
    ]
    assert changes[0].by == "the gate"
