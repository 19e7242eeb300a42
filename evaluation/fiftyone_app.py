"""FiftyOne: ground truth and predictions of all models side by side, with views of their mistakes."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset import Frames, Log, Split
from evaluation.error_causes import HIT, IN_CROWD, find_causes
from evaluation.flat_arrays import GroundTruth, Predictions
from evaluation.scorecard import Scorecard
from evaluation.sorting_accuracy import IGNORED, match_items
from trashnet.errors import UserError
from trashnet.files import atomic_write
from trashnet.models import STUDENT, TEACHER
from trashnet.processes import die_with_parent, stop_process
from trashnet.taxonomy import Taxonomy

DATASET_NAME = "trashnet"
NUM_RARE_CLASSES = 10  # in the view of rare ones
CONFIDENT_SCORE = 0.7
SERVER_START_SECONDS = 300.0
TIE_BREAK = 1e-12  # far below the 1e-6 that scores are kept to, and 1e5 equal scores still fit


@dataclass(frozen=True)
class FiftyOneDataset:
    """What lies in FiftyOne now.

    ``mean_ap``: per model, as FiftyOne computes it; ``views``: names of the saved views.
    """

    name: str
    frames: int
    mean_ap: dict[str, float]
    views: tuple[str, ...]


def open_fiftyone(
    log: Log,
    build: Path,
    taxonomy: Taxonomy,
    database_uri: str,
    *,
    model: str | None = None,
    split: Split = "test",
    launch: bool = True,
    address: str = "127.0.0.1",
    port: int = 5151,
    name: str = DATASET_NAME,
) -> FiftyOneDataset:
    """Build the persistent dataset ``name`` anew from ``build/predictions`` and, with ``launch``, serve the
    app until it is closed.

    Every model found there goes in, or ``model`` alone. Each gets ``evaluate_detections(method="coco",
    compute_mAP=True)`` under the key ``eval_MODEL``; ground-truth boxes say what became of them
    (``MODEL_sorted``: right, wrong, missed; ``MODEL_as``: the class it was taken for) and detections why they
    are wrong (``cause``), both from the sorting score of the model's scorecard on.

    FiftyOne's mAP agrees with the scorecard's AP to 1e-6: it would put hits before misses of equal score,
    which an int8 model's 256 scores are full of, so equal scores are told apart by 1e-12 in COCO's order. Its
    boxes are relative, so an overlap that is a threshold exactly may fall to the other side.

    ``database_uri`` is the address of a MongoDB that answers. Raises :class:`UserError` without predictions,
    their scorecards or frames.
    """
    frames = log.frames(split)
    truth = GroundTruth.from_frames(frames)
    names = [model] if model else sorted(path.stem for path in (build / "predictions").glob("*.json"))
    if not names:
        raise UserError(f"{build / 'predictions'}: no predictions to show. `dvc repro evaluate` makes them.")
    predictions = {
        one: Predictions.read(build / "predictions" / f"{one}.json", truth.images) for one in names
    }
    scores = {one: Scorecard.load(build / "scorecards" / f"{one}.json").sorting.score for one in names}
    fo = _import_fiftyone(build / "fiftyone", database_uri)
    dataset = _create_dataset(
        fo,
        name,
        frames,
        truth,
        predictions,
        taxonomy,
        scores,
        _write_images(frames, build / "fiftyone" / "images"),
    )
    mean_ap = {one: _evaluate_model(dataset, one, taxonomy) for one in names}
    views = _save_views(fo, dataset, names, truth, log, taxonomy, scores)
    if launch:
        _serve(name, address, port)
    return FiftyOneDataset(name, len(frames), mean_ap, views)


def _import_fiftyone(home: Path, database_uri: str) -> Any:
    """Import FiftyOne with its database's address, its files under ``home`` and no telemetry: it reads these
    at import.
    """
    os.environ["FIFTYONE_DATABASE_URI"] = database_uri
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
    os.environ.setdefault("FIFTYONE_DEFAULT_DATASET_DIR", str(home.resolve() / "datasets"))
    os.environ.setdefault("FIFTYONE_SHOW_PROGRESS_BARS", "false")
    import fiftyone

    return fiftyone


def _write_images(frames: Frames, folder: Path) -> list[Path]:
    """Each frame as a file, which FiftyOne wants.

    Those already there are kept, their name being their content.
    """
    image_paths = []
    for position in range(len(frames)):
        frame = frames[position]
        path = folder / f"{frame.sha256}.jpg"
        if not path.is_file():
            with atomic_write(path) as temporary:
                temporary.write_bytes(frame.jpeg)
        image_paths.append(path.resolve())
    return image_paths


def _create_dataset(
    fo: Any,
    name: str,
    frames: Frames,
    truth: GroundTruth,
    predictions: dict[str, Predictions],
    taxonomy: Taxonomy,
    scores: Mapping[str, float],
    image_paths: Sequence[Path],
) -> Any:
    dataset = fo.Dataset(name, persistent=True, overwrite=True)
    dataset.default_classes = list(taxonomy.names)
    outcomes = {
        one: _sorting_outcomes(truth, one, found, taxonomy, scores[one]) for one, found in predictions.items()
    }
    causes = {one: _detection_causes(truth, found, scores[one]) for one, found in predictions.items()}
    confidences = {one: break_score_ties(found) for one, found in predictions.items()}
    samples = []
    for position, path in enumerate(image_paths):
        frame = frames[position]
        scale = np.array([frame.width, frame.height] * 2, np.float64)
        sample = fo.Sample(
            filepath=str(path),
            sha256=frame.sha256,
            group=frame.group,
            bin_id=frame.bin_id,
            file_name=frame.file_name,
        )
        sample["ground_truth"] = fo.Detections(
            detections=[
                fo.Detection(
                    label=taxonomy.name_of[int(truth.class_ids[row])],
                    bounding_box=(truth.boxes[row] / scale).tolist(),
                    iscrowd=bool(truth.crowd[row]),
                    stream=taxonomy.stream_of[int(truth.class_ids[row])],
                    **{key: value for one in predictions for key, value in outcomes[one][row].items()},
                )
                for row in range(truth.offsets[position], truth.offsets[position + 1])
            ]
        )
        for one, found in predictions.items():
            sample[one] = fo.Detections(
                detections=[
                    fo.Detection(
                        label=taxonomy.name_of[int(found.class_ids[row])],
                        bounding_box=(found.boxes[row] / scale).tolist(),
                        confidence=float(confidences[one][row]),
                        stream=taxonomy.stream_of[int(found.class_ids[row])],
                        cause=causes[one][row],
                    )
                    for row in range(found.offsets[position], found.offsets[position + 1])
                ]
            )
        samples.append(sample)
    dataset.add_samples(samples)
    dataset.compute_metadata()
    return dataset


def break_score_ties(predictions: Predictions) -> NDArray[np.float64]:
    """Scores ``(M,)`` the n-th of equal ones lowered by n * 1e-12 in COCO's order: FiftyOne puts hits before
    misses of equal score.
    """
    _, group, counts = np.unique(predictions.scores, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.empty(len(predictions), np.int64)
    rank[order] = np.arange(len(predictions)) - starts
    return np.asarray(predictions.scores - TIE_BREAK * rank)


def _sorting_outcomes(
    truth: GroundTruth, model: str, predictions: Predictions, taxonomy: Taxonomy, score: float
) -> list[dict[str, str]]:
    """Per ground-truth box its two attributes for this model; none for a crowd, which is no item."""
    confident = predictions.above(score)
    outcomes: list[dict[str, str]] = []
    for row, match in enumerate(match_items(truth, confident).detection_indices.tolist()):
        if match == IGNORED:
            outcomes.append({})
        elif match < 0:
            outcomes.append({f"{model}_sorted": "missed"})
        else:
            seen_as, really = int(confident.class_ids[match]), int(truth.class_ids[row])
            right = taxonomy.stream_of[seen_as] == taxonomy.stream_of[really]
            outcomes.append(
                {f"{model}_sorted": "right" if right else "wrong", f"{model}_as": taxonomy.name_of[seen_as]}
            )
    return outcomes


def _detection_causes(truth: GroundTruth, predictions: Predictions, score: float) -> list[str | None]:
    """The cause of every detection, best first per image; ``None`` below ``score``."""
    confident = predictions.above(score)
    causes = iter(find_causes(truth, confident).detection_causes)
    return [next(causes) if keep else None for keep in predictions.scores >= score]


def _evaluate_model(dataset: Any, model: str, taxonomy: Taxonomy) -> float:
    """COCO-style evaluation under the key ``eval_MODEL``; returns FiftyOne's mAP."""
    results = dataset.evaluate_detections(
        model,
        gt_field="ground_truth",
        eval_key=f"eval_{model}",
        method="coco",
        compute_mAP=True,
        classes=list(taxonomy.names),
        iscrowd="iscrowd",
    )
    return float(results.mAP())


def _save_views(
    fo: Any,
    dataset: Any,
    models: Iterable[str],
    truth: GroundTruth,
    log: Log,
    taxonomy: Taxonomy,
    scores: Mapping[str, float],
) -> tuple[str, ...]:
    field = fo.ViewField
    views: dict[str, tuple[Any, str]] = {}
    for model in models:
        outcome = field(f"{model}_sorted")
        views[f"missed items: {model}"] = (
            dataset.filter_labels("ground_truth", outcome == "missed"),
            f"items that no detection of {model} with score >= {scores[model]:g} matches at IoU 0.5",
        )
        views[f"wrong stream: {model}"] = (
            dataset.filter_labels("ground_truth", outcome == "wrong"),
            f"items that {model} sends to another stream than theirs",
        )
        views[f"confident mistakes: {model}"] = (
            dataset.filter_labels(
                model, (field("confidence") >= CONFIDENT_SCORE) & ~field("cause").is_in([HIT, IN_CROWD])
            ),
            f"detections of {model} that are wrong at a score of {CONFIDENT_SCORE:g} or more",
        )
    teacher, student = TEACHER.name, STUDENT.name
    if {teacher, student} <= set(models):
        views["teacher and student disagree"] = (
            dataset.filter_labels("ground_truth", field(f"{teacher}_sorted") != field(f"{student}_sorted")),
            f"items that only one of {teacher} and {student} sorts right, or that they lose differently",
        )
    trained, tested = log.box_counts("train"), truth.counts(len(taxonomy.classes))
    rare = [taxonomy.names[i] for i in np.argsort(trained, kind="stable") if tested[i]][:NUM_RARE_CLASSES]
    views["rare classes"] = (
        dataset.filter_labels("ground_truth", field("label").is_in(rare)),
        "the classes with fewest boxes in training: " + ", ".join(rare),
    )
    for name, (view, description) in views.items():
        dataset.save_view(name, view, description=description, overwrite=True)
    return tuple(views)


def _serve(name: str, address: str, port: int) -> None:
    """Serve the app until Ctrl-C. FiftyOne's own launcher gives its server one minute, which a busy machine
    exceeds; so we start it.
    """
    from fiftyone.constants import SERVER_DIR

    command = [*die_with_parent(), sys.executable, "main.py", "--port", str(port), "--address", address]
    server = subprocess.Popen(
        command,
        cwd=SERVER_DIR,
        env={**os.environ, "FIFTYONE_DISABLE_SERVICES": "1"},
        stdin=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + SERVER_START_SECONDS
        while not _responds(address, port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise UserError(
                    f"FiftyOne's server did not come up on {address}:{port}; its output is above. Is the "
                    "port taken (--port)? "
                    f"The dataset {name!r} is complete."
                )
            time.sleep(0.5)
        print(
            f"FiftyOne shows {name} at http://{address}:{port}/datasets/{name} (Ctrl-C ends it)", flush=True
        )
        server.wait()
    except KeyboardInterrupt:
        print("closing the app", flush=True)
    finally:
        stop_process(server)


def _responds(address: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}:{port}/fiftyone", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:  # refused, or not yet
        return False
