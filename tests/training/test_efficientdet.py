"""The training of the teacher: it learns, survives a kill, and names the initial weights of its backbone."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from dataset import Frames, Labels, Log, append_turn
from training.efficientdet import EfficientDetParams, load_trained, train
from training.efficientdet.backbone import load_backbone
from training.efficientdet.callbacks import ema_update
from training.efficientdet.model import EfficientDetD0
from training.efficientdet.params import TransformParams
from training.efficientdet.trainer import run_digest
from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy

pytestmark = pytest.mark.heavy

REPOSITORY = Path(__file__).resolve().parents[2]
NO_AUGMENTATION = TransformParams(scale=(1.0, 1.0), flip=0, colour=0)
TINY = EfficientDetParams(
    image_size=128, epochs=3, batch_size=2, weights="none", workers=0, map_every=3, warmup_epochs=1
)

TRAIN_SCRIPT = """
import sys
from pathlib import Path
import torch
from dataset import Log
from training.efficientdet import EfficientDetParams, train
from trashnet.taxonomy import load_taxonomy

if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    root, work = Path(sys.argv[1]), Path(sys.argv[2])
    taxonomy = load_taxonomy(Path("taxonomy.yaml"))
    log = Log(root, taxonomy)
    params = EfficientDetParams.model_validate_json(sys.argv[4])
    frames = log.frames("train")[:4], log.frames("val")[:2]
    train(*frames, taxonomy, params, 5, work / "out", work / "live", work / "checkpoints")
"""


def train_command(log: Log, work: Path, params: EfficientDetParams) -> list[str]:
    """The arguments that train in a process of its own, as :func:`train_here` does."""
    script = work / "run.py"
    work.mkdir(exist_ok=True)
    script.write_text(TRAIN_SCRIPT)
    return [str(script), str(log.root), str(work), str(torch.get_num_threads()), params.model_dump_json()]


def train_here(log: Log, taxonomy: Taxonomy, work: Path, params: EfficientDetParams):
    """Train in this process on four frames of the sample."""
    frames = log.frames("train")[:4], log.frames("val")[:2]
    return train(*frames, taxonomy, params, 5, work / "out", work / "live", work / "checkpoints")


def plot_rows(live: Path, metric: str) -> list[list[str]]:
    """The rows of a DVCLive plot: step and value."""
    with (live / "plots" / "metrics" / f"{metric}.tsv").open() as lines:
        return list(csv.reader(lines, delimiter="\t"))[1:]


@pytest.fixture(scope="module")
def undisturbed(sample_log: Log, taxonomy: Taxonomy, tmp_path_factory: pytest.TempPathFactory):
    """A folder in which three epochs were trained in one go, and the report."""
    work = tmp_path_factory.mktemp("undisturbed")
    return work, train_here(sample_log, taxonomy, work, TINY)


def test_training_leaves_weights_and_a_description(undisturbed, taxonomy: Taxonomy):
    """Under 16 MB, the classes by index, and nothing but the result: no duration of the run."""
    work, report = undisturbed
    assert sorted(p.name for p in (work / "out").iterdir()) == ["model.json", "model.safetensors"]
    assert (work / "out" / "model.safetensors").stat().st_size < 16e6
    model, meta = load_trained(work / "out")
    assert meta["classes"] == list(taxonomy.names)
    assert meta["image_size"] == model.net.config.image_size[0] == 128
    assert meta["counts"] == {"train_frames": 4, "val_frames": 2}
    assert meta["report"]["backbone"] == report.backbone == "random"
    assert report.images_per_second > 0
    assert 0 <= report.data_wait_share <= 1
    assert "images_per_second" not in json.dumps(meta), "two runs of one training have equal descriptions"
    assert not any((work / "checkpoints").iterdir())


def test_every_epoch_is_in_dvclive(undisturbed):
    """Losses of both splits and the throughput for each of three epochs; AP in the last; no dvc.yaml."""
    work, _ = undisturbed
    metrics = json.loads((work / "live" / "metrics.json").read_text())
    assert {"loss", "focal_loss", "box_loss"} <= set(metrics["train"])
    assert {"loss", "focal_loss", "box_loss", "ap50", "ap"} <= set(metrics["val"])
    assert [row[0] for row in plot_rows(work / "live", "images_per_second")] == ["0", "1", "2"]
    assert not list(work.rglob("dvc.yaml"))


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_with_the_same_result(
    undisturbed, sample_log: Log, taxonomy: Taxonomy, tmp_path: Path
):
    """SIGKILL after the first checkpoint, then a second call: the undisturbed run's weights and history."""
    work, _ = undisturbed
    process = subprocess.Popen(
        [sys.executable, *train_command(sample_log, tmp_path / "killed", TINY)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    deadline = time.monotonic() + 300
    while not list((tmp_path / "killed" / "checkpoints").glob("*/epoch=0.ckpt")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "out" / "model.json").exists()

    report = train_here(sample_log, taxonomy, tmp_path / "killed", TINY)

    assert report.resumed_from_epoch >= 1
    resumed = load_file(tmp_path / "killed/out/model.safetensors")
    expected = load_file(work / "out/model.safetensors")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    for metric in ("train/loss", "val/loss", "val/ap50"):
        assert plot_rows(tmp_path / "killed/live", metric) == plot_rows(work / "live", metric)
    assert not any((tmp_path / "killed" / "checkpoints").iterdir())


def test_another_run_never_resumes_from_this_ones_checkpoint(
    sample_log: Log, taxonomy: Taxonomy, tmp_path: Path
):
    """The digest changes with seed, parameters, frames and labels, but not with the number of workers."""
    train_frames, val = sample_log.frames("train")[:4], sample_log.frames("val")[:2]
    digest = run_digest(train_frames, val, taxonomy, TINY, 5)
    assert digest == run_digest(train_frames, val, taxonomy, TINY.model_copy(update={"workers": 7}), 5)
    others = [
        run_digest(train_frames, val, taxonomy, TINY, 6),
        run_digest(train_frames, val, taxonomy, TINY.model_copy(update={"learning_rate": 0.5}), 5),
        run_digest(train_frames[:3], val, taxonomy, TINY, 5),
        run_digest(train_frames, val[:1], taxonomy, TINY, 5),
    ]
    copied = tmp_path / "data"
    labels = train_frames[0].labels
    assert labels is not None
    append_turn(
        copied, "copy", list(train_frames), [(f.sha256, f.labels) for f in train_frames if f.labels], taxonomy
    )
    assert run_digest(Log(copied, taxonomy).frames("train"), val, taxonomy, TINY, 5) == digest
    moved = Labels(labels.boxes + np.array([1, 0, 0, 0]), labels.class_ids, labels.crowd, labels.extra)
    append_turn(copied, "correction", [], [(train_frames[0].sha256, moved)], taxonomy)
    others.append(run_digest(Log(copied, taxonomy).frames("train"), val, taxonomy, TINY, 5))
    assert len({digest, *others}) == 6


@pytest.mark.slow
def test_it_overfits_eight_images(sample_log: Log, taxonomy: Taxonomy, tmp_path: Path):
    """From random weights, 112 steps of all 8 images: AP@0.5 above 0.9 on them."""
    eight = sample_log.frames("train")[:8]
    repeated = sum([eight] * 7, eight)
    params = EfficientDetParams(
        image_size=128, epochs=14, batch_size=8, weights="none", learning_rate=4e-3, weight_decay=0,
        drop_path=0, warmup_epochs=1, transforms=NO_AUGMENTATION, map_every=14, workers=0,
    )  # fmt: skip
    report = train(
        repeated, eight, taxonomy, params, 3, tmp_path / "out", tmp_path / "live", tmp_path / "checkpoints"
    )
    assert report.metrics["val/ap50"] > 0.9
    losses = [float(value) for _, value in plot_rows(tmp_path / "live", "train/focal_loss")]
    assert losses[-1] < losses[0] / 5


@pytest.mark.slow
def test_two_processes_train_one_model(sample_log: Log, tmp_path: Path):
    """torchrun with gloo on the CPU: one result, written once, that names two processes."""
    work = tmp_path / "ddp"
    params = TINY.model_copy(update={"epochs": 2, "map_every": 1})
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *train_command(sample_log, work, params)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    meta = json.loads((work / "out" / "model.json").read_text())
    assert meta["report"]["processes"] == 2
    assert [row[0] for row in plot_rows(work / "live", "val/ap50")] == ["0", "1"]
    assert not any((work / "checkpoints").iterdir())


def test_an_empty_split_is_refused(sample_log: Log, taxonomy: Taxonomy, tmp_path: Path):
    """The message names the split."""
    two, empty = sample_log.frames("train")[:2], Frames([])
    with pytest.raises(UserError, match="training split"):
        train(empty, two, taxonomy, TINY, 1, tmp_path, tmp_path, tmp_path)
    with pytest.raises(UserError, match="validation split"):
        train(two, empty, taxonomy, TINY, 1, tmp_path, tmp_path, tmp_path)


def test_amp_without_a_gpu_is_refused(sample_log: Log, taxonomy: Taxonomy, tmp_path: Path):
    """bf16-mixed is not silently replaced by another precision."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    params = TINY.model_copy(update={"precision": "bf16-mixed"})
    frames, val = sample_log.frames("train"), sample_log.frames("val")
    with pytest.raises(UserError, match="bf16-mixed needs a CUDA GPU"):
        train(frames, val, taxonomy, params, 1, tmp_path, tmp_path, tmp_path)


@pytest.fixture(scope="module")
def backbone() -> dict[str, torch.Tensor]:
    """The backbone's weights under timm's names."""
    return {name: value.clone() for name, value in EfficientDetD0(3, 128).net.backbone.state_dict().items()}


def test_a_pretrained_backbone_is_loaded_from_a_folder(backbone: dict[str, torch.Tensor], tmp_path: Path):
    """The file's weights are the model's; heads that a detector lacks are no problem."""
    marked = {name: torch.full_like(value, 0.25) for name, value in backbone.items()}
    save_file({**marked, "classifier.weight": torch.zeros(3)}, tmp_path / "tf_efficientnet_b0_x.safetensors")
    model = EfficientDetD0(3, 128)
    loaded = load_backbone(model, EfficientDetParams(weights_dir=tmp_path))
    assert loaded.initialisation == "imagenet"
    assert loaded.source == "tf_efficientnet_b0_x.safetensors"
    assert loaded.missing == ()
    assert (model.net.backbone.conv_stem.weight == 0.25).all()


def test_a_layer_that_the_weights_lack_is_named(
    backbone: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """In the log and in what goes into model.json; the rest is loaded."""
    lacking = {name: value for name, value in backbone.items() if name != "blocks.6.0.conv_pwl.weight"}
    save_file(lacking, tmp_path / "tf_efficientnet_b0_part.safetensors")
    model = EfficientDetD0(3, 128)
    loaded = load_backbone(model, EfficientDetParams(weights_dir=tmp_path))
    assert loaded.missing == ("blocks.6.0.conv_pwl.weight",)
    assert "blocks.6.0.conv_pwl.weight" in caplog.text
    assert "blocks.6.0.conv_pwl.weight" in loaded.notices[0]
    assert torch.equal(model.net.backbone.conv_stem.weight, backbone["conv_stem.weight"])


def test_a_random_backbone_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Where there are no weights the log says so in capitals, with the remedy, and the notice is kept."""
    loaded = load_backbone(EfficientDetD0(3, 128), EfficientDetParams(weights_dir=tmp_path))
    assert loaded.initialisation == "random"
    assert "THE BACKBONE IS RANDOM" in caplog.text
    assert "weights_dir" in loaded.notices[0]


def test_weights_of_another_network_are_refused(tmp_path: Path):
    """Other names, other shapes, or no safetensors at all."""
    path = tmp_path / "tf_efficientnet_b0.safetensors"
    for content in ({"other": torch.zeros(3)}, {"conv_stem.weight": torch.zeros(3)}):
        save_file(content, path)
        with pytest.raises(UserError, match="not the weights of tf_efficientnet_b0"):
            load_backbone(EfficientDetD0(3, 128), EfficientDetParams(weights_dir=tmp_path))
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="not the weights of tf_efficientnet_b0"):
        load_backbone(EfficientDetD0(3, 128), EfficientDetParams(weights_dir=tmp_path))
    with pytest.raises(UserError, match="is not a folder"):
        load_backbone(EfficientDetD0(3, 128), EfficientDetParams(weights_dir=tmp_path / "nowhere"))


def test_the_moving_average_by_hand():
    """After 1 update the decay is 2 / 11: (1 - 2/11) 11 = 9; after many it is 0.9: 0.1 x 11 = 1.1."""
    for updates, expected in ((1, 9.0), (1000, 1.1)):
        averaged = [torch.zeros(2)]
        ema_update(0.9)(averaged, [torch.full((2,), 11.0)], torch.tensor(updates))
        np.testing.assert_allclose(averaged[0], expected, rtol=1e-5)
    steps = [torch.tensor(3)]
    ema_update(0.9)(steps, [torch.tensor(8)], torch.tensor(5))
    assert steps[0].item() == 8, "counters are copied, not averaged"


@pytest.mark.parametrize("size", [0, 100, 500, 513])
def test_an_image_size_that_does_not_fit_the_pyramid_is_refused(size: int):
    """Level 7 has stride 128."""
    with pytest.raises(ValueError, match="multiple of 128"):
        EfficientDetParams(image_size=size)


def test_params_yaml_names_every_parameter():
    """Each can be changed there, with its comment; none is unused."""
    section = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["efficientdet"]
    assert set(section) == set(EfficientDetParams.model_fields)
    assert set(section["transforms"]) == set(TransformParams.model_fields)
    EfficientDetParams.model_validate(section)
