"""Training the student on TFRecords with TensorFlow."""

import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from training.ssd.checkpoint import restore_state, run_identity, save_state
from training.ssd.input import count_records, find_records, training_batches, validation_batches
from training.ssd.model import Ssd, build_model, load_backbone, prepare
from training.ssd.params import SsdParams, TrainReport
from trashnet.errors import UserError
from trashnet.files import atomic_write, write_json
from trashnet.taxonomy import Taxonomy

log = logging.getLogger(__name__)

PASSING = {"images_per_second", "waiting_share", "seconds", "resumed_at"}  # of a run, not of its result


@dataclass
class _Clock:
    """Where the time of training went, the first step (which compiles) left out."""

    stepping: float = 0.0
    waiting: float = 0.0
    images: int = 0

    @property
    def images_per_second(self) -> float:
        return self.images / self.stepping if self.stepping else 0.0

    @property
    def waiting_share(self) -> float:
        return self.waiting / self.stepping if self.stepping else 0.0


def train(
    tfrecords: Path,
    taxonomy: Taxonomy,
    params: SsdParams,
    seed: int,
    out: Path,
    live: Path,
    checkpoints: Path,
) -> TrainReport:
    """Train SSD MobileNet v2 on a folder of TFRecords and write ``out/model.weights.h5``, then ``out/model.json``.

    On several GPUs the batch is split among them (``tf.distribute.MirroredStrategy``). Metrics of every epoch
    go to the DVCLive folder ``live``. The state of every epoch goes to ``checkpoints/<identity of the run>``:
    started again after a crash with the same parameters, seed and records, training goes on from there and
    ends where it would have; the folder is removed on success. On a CPU two runs end with the same weights,
    to the last bit.

    Raises :class:`UserError` if the TFRecords are unfinished or damaged, or ``params.weights_dir`` holds no
    weights.
    """
    began = time.perf_counter()
    run = Run(tfrecords, taxonomy, params, seed)
    folder = checkpoints / run.identity
    with _precision(params), run.strategy.scope():
        model, backbone = run.make_model()
        history = restore_state(folder, model)
    resumed_at = len(history)
    if resumed_at:
        log.warning("going on after epoch %d of %d, from %s", resumed_at, params.epochs, folder)
    clock = _Clock()
    with _live(live, history) as publish:
        for row in run.epochs(model, clock, resumed_at):
            publish(row)
            history.append(row)
            save_state(folder, model, history)
    with run.strategy.scope():
        model.optimizer.finalize_variable_values(
            model.trainable_variables
        )  # the moving average, if one was asked for
    report = TrainReport(
        epochs=params.epochs,
        steps=params.epochs * run.steps,
        resumed_at=resumed_at,
        images=run.images,
        loss=history[-1]["loss"],
        val_loss=run.validate(model).get("loss"),
        images_per_second=clock.images_per_second,
        waiting_share=clock.waiting_share,
        seconds=time.perf_counter() - began,
        backbone=backbone,
    )
    _write(out, model, run, report)
    shutil.rmtree(folder)  # a kill may have left half a state there too
    return report


class Run:
    """The parts of one run that follow from its arguments; the benchmark times them."""

    def __init__(self, tfrecords: Path, taxonomy: Taxonomy, params: SsdParams, seed: int) -> None:
        self.params, self.seed, self.taxonomy = params, seed, taxonomy
        self.train_files = find_records(tfrecords, "train")
        self.val_files = find_records(tfrecords, "val") if any(tfrecords.glob("val-*.tfrecord")) else []
        self.images = count_records(self.train_files)
        if not self.images:
            raise UserError(f"{tfrecords}: its training records are empty; label some frames first")
        manifest = json.loads((tfrecords / "manifest.json").read_text(encoding="utf-8"))
        if manifest.get("classes", list(taxonomy.names)) != list(taxonomy.names):
            raise UserError(
                f"{tfrecords}: written with other classes than the taxonomy has now. `dvc repro tfrecords` writes them anew."
            )
        self.identity = run_identity(
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
            _compute_repeatably()
        replicas = self.strategy.num_replicas_in_sync
        self._validation: tuple[Any, Callable[[Any], dict[str, Any]]] | None = None
        self.batch_size = max(min(params.batch_size, self.images) // replicas, 1) * replicas
        self.steps = max(self.images // self.batch_size, 1)

    def make_model(self) -> tuple[Ssd, str]:
        """A compiled model with its optimizer built, and what its backbone began from."""
        keras.utils.set_random_seed(self.seed)
        params = self.params
        model = build_model(params.image_size, len(self.taxonomy.classes))
        backbone = load_backbone(model, params)
        if backbone.startswith("random, because"):
            log.warning(
                "THE BACKBONE IS RANDOM: %s. Expect a poor model; put the weights into ssd.weights_dir.",
                backbone,
            )
        prepare(
            model,
            params,
            pretrained=not backbone.startswith("random"),
            replicas=self.strategy.num_replicas_in_sync,
        )
        total = params.epochs * self.steps
        warmup = min(round(params.warmup_epochs * self.steps), total - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else params.learning_rate,
            total - warmup,
            warmup_target=params.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
        optimizer = keras.optimizers.AdamW(
            rate,
            weight_decay=params.weight_decay,
            global_clipnorm=params.clip_norm,
            use_ema=params.ema_decay > 0,
            ema_momentum=params.ema_decay or 0.99,
        )
        optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        model.compile(optimizer=optimizer, jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        return model, backbone

    def epochs(self, model: Ssd, clock: _Clock, first: int) -> Iterator[dict[str, float]]:
        """Train epoch by epoch from ``first``; yields each one's mean losses, validation losses, learning rate and speed."""
        if first >= self.params.epochs:
            return
        batches = self.strategy.experimental_distribute_dataset(
            training_batches(self.train_files, self.params, self.batch_size, self.seed, first)
        )
        step = compiled_step(model.train_step, self.strategy, batches)
        arriving = iter(batches)
        for epoch in range(first, self.params.epochs):
            model.reset_metrics()
            epoch_clock = _Clock()
            for number in tqdm(
                range(self.steps),
                desc=f"epoch {epoch + 1}/{self.params.epochs}",
                unit="batch",
                leave=False,
                disable=None,
            ):
                asked = time.perf_counter()
                batch = next(arriving)
                got = time.perf_counter()
                logs = step(batch)
                if number == 0 and epoch == first:
                    continue
                if number == self.steps - 1:
                    float(logs["loss"])  # waits for the GPU, so that the epoch's time is all in
                for each in (clock, epoch_clock):
                    each.waiting += got - asked
                    each.stepping += time.perf_counter() - asked
                    each.images += self.batch_size
            row = {name: float(value) for name, value in logs.items()}
            row["learning_rate"] = float(model.optimizer.learning_rate)
            row |= {
                "images_per_second": epoch_clock.images_per_second,
                "waiting_share": epoch_clock.waiting_share,
            }
            row |= {f"val_{name}": value for name, value in self.validate(model).items()}
            yield row

    def validate(self, model: Ssd) -> dict[str, float]:
        """Mean losses on the validation records; nothing if there are none."""
        if not self.val_files:
            return {}
        if self._validation is None:
            batches = self.strategy.experimental_distribute_dataset(
                validation_batches(self.val_files, self.params, self.batch_size)
            )
            self._validation = batches, compiled_step(model.test_step, self.strategy, batches)
        batches, step = self._validation
        model.reset_metrics()
        logs: dict[str, Any] = {}
        for batch in batches:
            logs = step(batch)
        return {name: float(value) for name, value in logs.items()}


def compiled_step(one: Callable[[Any], Any], strategy: Any, batches: Any) -> Callable[[Any], dict[str, Any]]:
    """One step of Keras's, as one graph for batches of any length, on every replica; its metrics are running means."""

    @tf.function(input_signature=[batches.element_spec], autograph=False)  # type: ignore[untyped-decorator]
    def step(batch: Any) -> Any:
        return strategy.run(one, args=(batch,))

    def call(batch: Any) -> dict[str, Any]:
        return {name: strategy.experimental_local_results(value)[0] for name, value in step(batch).items()}

    return call


def _compute_repeatably() -> None:
    """The same sums in the same order whatever the threads do.

    Op determinism alone is not enough: the graph's arithmetic optimiser merges the sum of all gradients'
    norms into one AddN, which begins with whichever addend's buffer happens to be free.
    """
    tf.config.experimental.enable_op_determinism()
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


@contextmanager
def _precision(params: SsdParams) -> Iterator[None]:
    """Compute in half precision where there is a GPU to gain from it; weights and outputs stay float32."""
    before = keras.config.dtype_policy()
    half = params.mixed_precision == "auto" and bool(tf.config.list_logical_devices("GPU"))
    keras.config.set_dtype_policy("mixed_float16" if half else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def _live(folder: Path, history: list[dict[str, float]]) -> Iterator[Callable[[dict[str, float]], None]]:
    """DVCLive's metrics and plots; on resuming the epochs before the crash are told again, since DVC has swept the folder."""
    from dvclive import Live

    with Live(dir=str(folder), dvcyaml=False, save_dvc_exp=False, monitor_system=False) as live:

        def publish(row: dict[str, float]) -> None:
            for name, value in row.items():
                live.log_metric(
                    name.replace("val_", "val/", 1) if name.startswith("val_") else f"train/{name}", value
                )
            live.next_step()

        for row in history:
            publish(row)
        yield publish


def _write(out: Path, model: Ssd, run: Run, report: TrainReport) -> None:
    """The weights, then the description that makes them complete."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.json").unlink(missing_ok=True)  # a half-replaced model must not look whole
    with atomic_write(out / "model.weights.h5") as temporary:
        named = temporary.with_name(temporary.name + ".weights.h5")  # Keras insists on the suffix
        model.save_weights(named)
        named.replace(temporary)
    devices = [device.name for device in tf.config.list_logical_devices("GPU")] or [
        platform.processor() or platform.machine()
    ]
    write_json(
        out / "model.json",
        {
            "architecture": "ssd_mobilenet_v2",
            "classes": list(run.taxonomy.names),
            "image_size": run.params.image_size,
            "backbone": report.backbone,
            "seed": run.seed,
            "params": run.params.model_dump(mode="json"),
            # What two runs of the same training agree on: this folder is an input of later stages, and must
            # not differ by a second.
            "training": {name: value for name, value in asdict(report).items() if name not in PASSING}
            | {"devices": devices, "batch_size": run.batch_size},
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        },
    )
