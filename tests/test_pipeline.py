"""dvc.yaml as an ML engineer uses it: the whole pipeline on a small drawn data set, with the real dvc."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from synthetic import SampleParams, draw_sample
from tests.conftest import REPOSITORY
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.slow

MODELS = ("efficientdet", "ssd_float", "ssd_int8")
SSD_BRANCH = {"train_ssd", "export_ssd", "evaluate@ssd_float", "evaluate@ssd_int8", "report"}
SMALL = {
    "rebalance.target_images": 8,
    "rebalance.max_copies": 2,
    "tfrecords.train_shards": 2,
    "efficientdet.image_size": 128,
    "efficientdet.epochs": 1,
    "efficientdet.batch_size": 8,
    "efficientdet.weights": "none",
    "ssd.image_size": 96,
    "ssd.epochs": 1,
    "ssd.batch_size": 8,
    "ssd.weights": "none",
    "export.calibration_images": 8,
}


def run(workspace: Path, *command: str) -> str:
    """Run a program of the environment in the workspace.

    Its standard output, or the test fails with all it said.
    """
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(workspace),
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
    }
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def would_run(workspace: Path) -> set[str]:
    """The stages that `dvc repro` would run now."""
    lines = run(workspace, "dvc", "repro", "--dry").splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Path:
    """A clone of this repository as it stands, with a small drawn data set, taken through `dvc repro` once
    and committed.
    """
    place = tmp_path_factory.mktemp("pipeline") / "clone"
    for name in run(REPOSITORY, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (
            not name.startswith((".dvc/sample-remote", "data.dvc", "dvc.lock"))
            and (REPOSITORY / name).is_file()
        ):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, place / name)
    sample = load_params("sample", SampleParams, place / "params.yaml").model_copy(
        update={"scale": 0.01, "image_size": 128}
    )
    draw_sample(place / "data", taxonomy, sample)
    run(place, "git", "init", "--quiet", ".")
    run(place, "dvc", "add", "--quiet", "data")
    run(place, "git", "add", ".")
    run(place, "git", "commit", "--quiet", "--message", "start")
    run(place, "trashnet", "set", *(f"{key}={value}" for key, value in SMALL.items()))
    run(place, "dvc", "repro")
    run(place, "git", "add", ".")
    run(place, "git", "commit", "--quiet", "--message", "first models")
    return place


def test_the_pipeline_ends_in_three_scorecards_on_the_same_frozen_frames(workspace: Path) -> None:
    """Teacher, float student and int8 student are judged on the same test frames, and the report and shipped
    files are there.
    """
    scorecards = [json.loads((workspace / f"build/scorecards/{model}.json").read_text()) for model in MODELS]
    assert len({card["split"]["frames"] for card in scorecards}) == 1
    assert len({card["split"]["digest"] for card in scorecards}) == 1
    for name in (
        "report.html",
        "models/efficientdet.onnx",
        "models/ssd_int8.tflite",
        "models/labels.txt",
        "models/edgetpu.json",
    ):
        assert (workspace / "build" / name).stat().st_size > 0
    assert (workspace / "build/models/labels.txt").read_text().splitlines()[1] == "Battery"


def test_a_second_repro_does_nothing(workspace: Path) -> None:
    """Nothing changed, nothing runs."""
    assert would_run(workspace) == set()
    assert "up to date" in run(workspace, "dvc", "repro")


def test_a_change_of_the_students_parameters_leaves_the_teacher_alone(workspace: Path) -> None:
    """Only the SSD branch and the report depend on `ssd`."""
    params = workspace / "params.yaml"
    before = params.read_text()
    try:
        params.write_text(_with_ssd_epochs(before, 2))
        assert would_run(workspace) <= SSD_BRANCH
        assert "train_ssd" in would_run(workspace)
    finally:
        params.write_text(before)


def test_moving_a_class_to_another_stream_retrains_nothing(workspace: Path) -> None:
    """Streams are rules of a town: a change re-judges and trains nothing."""
    taxonomy_file = workspace / "taxonomy.yaml"
    before = taxonomy_file.read_text()
    try:
        taxonomy_file.write_text(before.replace("#1f77b4", "#1f77b5"))
        assert {stage.split("@")[0] for stage in would_run(workspace)} == {"evaluate", "report"}
    finally:
        taxonomy_file.write_text(before)


def test_an_experiment_on_the_student_shows_in_metrics_and_plots_diff(workspace: Path) -> None:
    """`dvc exp run -S` re-runs the SSD branch alone.

    `dvc metrics diff` and `dvc plots diff` compare it with the last commit.
    """
    onnx = workspace / "build/models/efficientdet.onnx"
    trained = onnx.read_bytes()
    out = run(workspace, "dvc", "exp", "run", "--set-param", "ssd.epochs=2")
    assert "Running stage 'train_ssd'" in out
    assert "Running stage 'train_efficientdet'" not in out
    assert onnx.read_bytes() == trained
    diff = json.loads(run(workspace, "dvc", "metrics", "diff", "--json"))
    assert any("ssd_int8" in path for path in diff)
    assert not any("metrics/efficientdet" in path for path in diff)
    page = run(workspace, "dvc", "plots", "diff", "HEAD")
    assert "dvc_plots/index.html" in page


def _with_ssd_epochs(text: str, epochs: int) -> str:
    """The parameter file with another number of epochs in its `ssd` section alone."""
    head, section = text.split("\nssd:", 1)
    return head + "\nssd:" + section.replace("epochs: 1", f"epochs: {epochs}", 1)
