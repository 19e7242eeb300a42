"""The pipeline's stages, as dvc.yaml declares them."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trashnet.pipeline import load_stages

pytestmark = pytest.mark.server


def test_the_shipped_stages_are_two_branches_that_meet_in_the_report() -> None:
    """Each stage needs the stages whose outputs it reads; the two trainings need a GPU."""
    stages = {stage.name: stage for stage in load_stages(REPOSITORY)}
    assert {name: stage.needs for name, stage in stages.items() if name != "report"} == {
        "rebalance": (),
        "tfrecords": ("rebalance",),
        "train_efficientdet": ("rebalance",),
        "export_efficientdet": ("train_efficientdet",),
        "evaluate@efficientdet": ("export_efficientdet",),
        "train_ssd": ("tfrecords",),
        "export_ssd": ("train_ssd",),
        "evaluate@ssd_float": ("export_ssd",),
        "evaluate@ssd_int8": ("export_ssd",),
    }
    evaluations = {"evaluate@efficientdet", "evaluate@ssd_float", "evaluate@ssd_int8"}
    assert evaluations < set(stages["report"].needs)
    assert {name for name, stage in stages.items() if stage.gpu} == {"train_efficientdet", "train_ssd"}


def test_a_stage_that_somebody_adds_comes_behind_those_that_it_needs(tmp_path: Path) -> None:
    """A dependency on a folder is one on every stage that writes into it."""
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  a_summary: {cmd: 'true', deps: [out]}\n"
        "  second: {cmd: 'true', deps: [raw], outs: [out/second]}\n"
        "  first: {cmd: 'true', meta: {gpu: true}, outs: [out/first, raw]}\n"
    )
    stages = load_stages(tmp_path)
    assert [(stage.name, stage.needs, stage.gpu) for stage in stages] == [
        ("first", (), True),
        ("second", ("first",), False),
        ("a_summary", ("first", "second"), False),
    ]
