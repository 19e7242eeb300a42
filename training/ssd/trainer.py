"""The training run of the student on TFRecords, with TensorFlow."""

import json
import logging
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from training.ssd.backbone import load_backbone
from training.ssd.checkpoint import restore_state, run_digest, save_state
from training.ssd.input_pipeline import count_records, find_shards, training_batches, validation_batches
from training.ssd.model import DESCRIPTION_FILE, WEIGHTS_FILE, Ssd, build_model, prepare_for_training
from training.ssd.optimizer import make_optimizer
from training.ssd.params import SsdParams
from training.ssd.report import SsdReport
from trashnet.errors import UserError
from trashnet.files import atomic_write, write_json
from trashnet.progress import track
from trashnet.taxonomy import Taxonomy

log = logging.getLogger(__name__)


@dataclass
class Throughput:
    """The time spent in training steps, and the part of it spent waiting for the next batch.

    The first step of a run is left out: it compiles.
    """

    step_seconds: float = 0.0
    wait_seconds: float = 0.0
    images: int = 0

    @property
    def images_per_second(self) -> float:
        """0 before anything was timed."""
        return self.images / self.step_seconds if self.step_seconds else 0.0

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for the input pipeline."""
        return self.wait_seconds / self.step_seconds if self.step_seconds else 0.0


def train(
    tfrecords: Path,
    taxonomy: Taxonomy,
    params: SsdParams,
    seed: int,
    out: Path,
    live: Path,
    checkpoints: Path,
) -> SsdReport:
    """Train on a folder of TFRecords and write ``out/model.weights.h5``, then ``out/model.json``.

    On several GPUs the batch is split among them (``tf.distribute.MirroredStrategy``). Metrics of every epoch
    go to the DVCLive folder ``live``. The state after every epoch goes to ``checkpoints/<digest of the
    run>``: called again after a crash with the same parameters, seed and records, training resumes from there
    and ends with the same result; the folder is removed on success. On a CPU two runs end with the same
    weights, to the last bit.

    Raises:
        UserError: The TFRecords are unfinished or damaged, or ``params.weights_dir`` holds no weights.
    """
    started = time.perf_counter()
    run = TrainingRun(tfrecords, taxonomy, params, seed)
    checkpoint = checkpoints / run.digest
    with _dtype_policy(params), run.strategy.scope():
        model, backbone = run.make_model()
        history = restore_state(checkpoint, model)
    resumed_from_epoch = len(history)
    if resumed_from_epoch:
        log.warning("resuming after epoch %d of %d, from %s", resumed_from_epoch, params.epochs, checkpoint)
    throughput = Throughput()
    with _dvclive(live, history) as log_epoch:
        for metrics in run.epochs(model, throughput, resumed_from_epoch):
            log_epoch(metrics)
            history.append(metrics)
            save_state(checkpoint, model, history)
    with run.strategy.scope():
        # The moving average of the weights, if one was asked for, becomes the weights.
        model.optimizer.finalize_variable_values(model.trainable_variables)
    report = SsdReport(
        epochs=params.epochs,
        steps=params.epochs * run.steps_per_epoch,
        resumed_from_epoch=resumed_from_epoch,
        images=run.images,
        loss=history[-1]["loss"],
        val_loss=run.validate(model).get("loss"),
        images_per_second=throughput.images_per_second,
        waiting_share=throughput.waiting_share,
        seconds=time.perf_counter() - started,
        backbone=backbone,
    )
    _save_trained(out, model, run, report)
    shutil.rmtree(checkpoint)  # together with what a killed process left half-written
    return report


class TrainingRun:
    """The parts of one run that follow from its arguments; the benchmark times them one by one."""

    def __init__(self, tfrecords: Path, taxonomy: Taxonomy, params: SsdParams, seed: int) -> None:
        self.params, self.seed, self.taxonomy = params, seed, taxonomy
        self.train_shards = find_shards(tfrecords, "train")
        self.val_shards = find_shards(tfrecords, "val") if any(tfrecords.glob("val-*.tfrecord")) else []
        self.images = count_records(self.train_shards)
        if not self.images:
            raise UserError(f"{tfrecords}: its training records are empty; label some frames first")
        manifest = json.loads((tfrecords / "manifest.json").read_text(encoding="utf-8"))
        if manifest.get("classes", list(taxonomy.names)) != list(taxonomy.names):
            raise UserError(
                f"{tfrecords}: written with other classes than the taxonomy has now. "
                "`dvc repro tfrecords` writes them anew."
            )
        self.digest = run_digest(
            {
                "params": params.model_dump(mode="json"),
                "seed": seed,
                "classes": taxonomy.names,
                "tfrecords": manifest,
            }
        )
        gpus = tf.config.list_logical_devices("GPU")
        self.strategy = tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()
        if not gpus:
            _enable_determinism()
        replicas = self.strategy.num_replicas_in_sync
        self._validation: tuple[Any, Callable[[Any], dict[str, Any]]] | None = None
        self.batch_size = max(min(params.batch_size, self.images) // replicas, 1) * replicas
        self.steps_per_epoch = max(self.images // self.batch_size, 1)
        self._val_steps = math.ceil(count_records(self.val_shards) / self.batch_size)

    def make_model(self) -> tuple[Ssd, str]:
        """A compiled model with its optimizer built, and where its backbone's weights come from."""
        keras.utils.set_random_seed(self.seed)
        model = build_model(self.params.image_size, len(self.taxonomy.classes))
        backbone = load_backbone(model, self.params)
        pretrained = not backbone.startswith("random")
        replicas = self.strategy.num_replicas_in_sync
        prepare_for_training(model, self.params, pretrained=pretrained, replicas=replicas)
        model.compile(optimizer=make_optimizer(self.params, self.steps_per_epoch), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        return model, backbone

    def epochs(self, model: Ssd, throughput: Throughput, first: int) -> Iterator[dict[str, float]]:
        """Train epoch by epoch from ``first``.

        Yields:
            The mean losses, validation losses, learning rate and speed of each.
        """
        if first >= self.params.epochs:
            return
        batches = self.strategy.experimental_distribute_dataset(
            training_batches(self.train_shards, self.params, self.batch_size, self.seed, first)
        )
        step = compile_step(model.train_step, self.strategy, batches)
        batch_iterator = iter(batches)
        for epoch in range(first, self.params.epochs):
            model.reset_metrics()
            epoch_throughput = Throughput()
            description = f"epoch {epoch + 1}/{self.params.epochs}"
            steps = range(self.steps_per_epoch)
            for index in track(steps, len(steps), description, "step"):
                step_started = time.perf_counter()
                batch = next(batch_iterator)
                batch_arrived = time.perf_counter()
                logs = step(batch)
                if index == 0 and epoch == first:
                    continue
                if index == steps[-1]:
                    float(logs["loss"])  # waits for the GPU, so that the whole time of the epoch is counted
                for total in (throughput, epoch_throughput):
                    total.wait_seconds += batch_arrived - step_started
                    total.step_seconds += time.perf_counter() - step_started
                    total.images += self.batch_size
            metrics = {name: float(value) for name, value in logs.items()}
            metrics["learning_rate"] = float(model.optimizer.learning_rate)
            metrics["images_per_second"] = epoch_throughput.images_per_second
            metrics["waiting_share"] = epoch_throughput.waiting_share
            yield metrics | {f"val_{name}": value for name, value in self.validate(model).items()}

    def validate(self, model: Ssd) -> dict[str, float]:
        """Mean losses on the validation records; empty if there are none."""
        if not self.val_shards:
            return {}
        if self._validation is None:
            batches = self.strategy.experimental_distribute_dataset(
                validation_batches(self.val_shards, self.params, self.batch_size)
            )
            self._validation = batches, compile_step(model.test_step, self.strategy, batches)
        batches, step = self._validation
        model.reset_metrics()
        logs: dict[str, Any] = {}
        for batch in track(batches, self._val_steps, "validation", "step"):
            logs = step(batch)
        return {name: float(value) for name, value in logs.items()}


def compile_step(
    keras_step: Callable[[Any], Any], strategy: Any, batches: Any
) -> Callable[[Any], dict[str, Any]]:
    """A step of Keras as one graph for batches of any length, run on every replica.

    The metrics that it returns are running means.
    """

    @tf.function(input_signature=[batches.element_spec], autograph=False)  # type: ignore[untyped-decorator]
    def step(batch: Any) -> Any:
        return strategy.run(keras_step, args=(batch,))

    def call(batch: Any) -> dict[str, Any]:
        return {name: strategy.experimental_local_results(value)[0] for name, value in step(batch).items()}

    return call


def _enable_determinism() -> None:
    """Compute the same sums in the same order, independent of thread timing.

    Op determinism alone is not enough: the arithmetic optimiser of the graph merges the sum of all gradients'
    norms into one AddN, which begins with whichever addend's buffer happens to be free.
    """
    tf.config.experimental.enable_op_determinism()
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


@contextmanager
def _dtype_policy(params: SsdParams) -> Iterator[None]:
    """Compute in half precision where a GPU gains from it; weights and outputs stay float32."""
    before = keras.config.dtype_policy()
    half = params.mixed_precision == "auto" and bool(tf.config.list_logical_devices("GPU"))
    keras.config.set_dtype_policy("mixed_float16" if half else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def _dvclive(folder: Path, history: list[dict[str, float]]) -> Iterator[Callable[[dict[str, float]], None]]:
    """DVCLive's metrics and plots.

    A resumed run logs its earlier epochs again: DVC has emptied the folder.
    """
    from dvclive import Live

    with Live(dir=str(folder), dvcyaml=False, save_dvc_exp=False, monitor_system=False) as live:

        def log_epoch(metrics: dict[str, float]) -> None:
            for name, value in metrics.items():
                validation = name.startswith("val_")
                live.log_metric(name.replace("val_", "val/", 1) if validation else f"train/{name}", value)
            live.next_step()

        for metrics in history:
            log_epoch(metrics)
        yield log_epoch


def _save_trained(out: Path, model: Ssd, run: TrainingRun, report: SsdReport) -> None:
    """Write the weights, then the description, whose presence means that the weights are complete."""
    out.mkdir(parents=True, exist_ok=True)
    (out / DESCRIPTION_FILE).unlink(missing_ok=True)  # a half-replaced model must not look complete
    with atomic_write(out / WEIGHTS_FILE) as temporary:
        suffixed = temporary.with_name(f"{temporary.name}.weights.h5")  # Keras insists on the suffix
        model.save_weights(suffixed)
        suffixed.replace(temporary)
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    devices = gpus or [platform.processor() or platform.machine()]
    write_json(
        out / DESCRIPTION_FILE,
        {
            "architecture": "ssd_mobilenet_v2",
            "classes": list(run.taxonomy.names),
            "image_size": run.params.image_size,
            "backbone": report.backbone,
            "seed": run.seed,
            "params": run.params.model_dump(mode="json"),
            # Nothing that differs between two runs of the same training: this folder is an input of later
            # stages of the pipeline, which would then run again for nothing.
            "training": report.reproducible_fields() | {"devices": devices, "batch_size": run.batch_size},
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        },
    )
