"""Retraining and publishing on real servers: the flow runs what a person with `dvc repro` runs."""

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from export import load_champion, load_judgement, load_newest_candidate
from operations.demo import SMALL_PARAMS
from tests.flows.conftest import Deployment
from trashnet.clone import Clone, training_clone_path
from trashnet.models import ROLES

# Of these the outputs are the same to the last bit on a CPU. The others' hold milliseconds: scorecards, the
# report, training's own journal.
DETERMINISTIC = {
    "rebalance",
    "tfrecords",
    "train_efficientdet",
    "export_efficientdet",
    "train_ssd",
    "export_ssd",
}
PASSING = ("build/live", "build/metrics")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_retrain_flow_and_dvc_repro_by_hand_agree_and_a_candidate_comes_of_it(
    deployment: Deployment,
) -> None:
    """Same stages, same inputs: equal hashes in dvc.lock; the run publishes the candidate.

    The gate judges it by event. It was hardly trained, and nobody drew a test frame: it is not used.
    """
    deployment.run_flow("retrain/retrain", at_least=0, changes=SMALL_PARAMS)
    deployment.wait_for(
        "the candidate is published by the run that trained it",
        lambda: load_newest_candidate(deployment.store) is not None,
        300,
    )
    candidate = load_newest_candidate(deployment.store)
    assert candidate is not None
    deployment.wait_for(
        "the gate has judged it", lambda: load_judgement(deployment.store, candidate.version) is not None, 300
    )
    judgement = load_judgement(deployment.store, candidate.version)
    assert judgement is not None
    assert {role: one.verdict.outcome for role, one in judgement.models.items()} == dict.fromkeys(
        ROLES, "holds"
    )
    assert [load_champion(deployment.store, role) for role in ROLES] == [None, None]
    training = Clone(training_clone_path(Clone(deployment.settings.clone)))
    tag = f"models-{candidate.version}"
    deployment.wait_for("its commit is tagged at the clone", lambda: tag in training.git("tag").split(), 120)

    by_hand = deployment.root.parent / "by-hand"
    subprocess.run(["git", "clone", "--quiet", "--branch", tag, training.path, by_hand], check=True)
    by_flow = yaml.safe_load((by_hand / "dvc.lock").read_text())["stages"]
    (by_hand / "dvc.lock").unlink()
    shutil.copy(deployment.settings.clone / ".dvc" / "config.local", by_hand / ".dvc" / "config.local")
    Clone(by_hand).dvc("pull", "data.dvc")
    Clone(by_hand).dvc("repro")
    repeated = yaml.safe_load((by_hand / "dvc.lock").read_text())["stages"]

    def hashes(stage: dict[str, Any], kind: str) -> dict[str, str]:
        return {
            entry["path"]: entry["md5"]
            for entry in stage.get(kind, [])
            if not entry["path"].startswith(PASSING)
        }

    assert by_flow.keys() == repeated.keys()
    for name in sorted(DETERMINISTIC | {key for key in by_flow if key.startswith("evaluate@")}):
        assert by_flow[name].get("params") == repeated[name].get("params"), name
        assert hashes(by_flow[name], "deps") == hashes(repeated[name], "deps"), name
    for name in DETERMINISTIC:
        assert hashes(by_flow[name], "outs") == hashes(repeated[name], "outs"), name
    for name in ("efficientdet.onnx", "ssd_int8.tflite"):
        assert (by_hand / "build/models" / name).stat().st_size == candidate.files[name].bytes
    assert {"ssd_int8", "ssd_float", "efficientdet"} == set(candidate.scores)
