"""The gate on real photos and trained files: right labels, shuffled ones, and one class labelled wrong.

`python benchmarks/gate_on_photos.py --photos FOLDER --weights FOLDER` with a COCO data set of litter, such as
TACO, and the folder of the student's ImageNet weights. Every student is trained by the project's own stages,
briefly: the table says what AP50 that came to. What is trained already under ``--work`` is not trained again.

Without a GPU or an evening, `--of-labels` judges models that know the photos' labels and err as told, on
all 57 classes.

For trainings the 57 classes are pooled into seven kinds that look alike: a brief training learns nothing of
rare classes. The gate set are the imported test photos, which none of the students saw.
"""

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.support.harmed_detector import Harmed, OfLabels, Recorded
from dataset import Frames, Labels, Log, append_turn
from dataset.formats import ImportParams, import_dataset
from dataset.splits import SplitParams
from evaluation import ComparedModel, Comparison, EvaluationParams, compare_models
from evaluation.evaluator import predict
from evaluation.flat_arrays import GroundTruth
from evaluation.gate import GateParams
from evaluation.sorting_score import pick_sort_score
from trashnet.detectors import open_detector
from trashnet.models import STUDENT
from trashnet.taxonomy import Taxonomy, load_taxonomy

REPOSITORY = Path(__file__).resolve().parent.parent
KIND_OF = {  # by supercategory; the others are litter of no particular kind
    "Bottle": "Clear plastic bottle",
    "Can": "Drink can",
    "Cigarette": "Cigarette",
    "Bottle cap": "Plastic bottle cap",
    "Plastic bag & wrapper": "Plastic film",
    "Cup": "Disposable plastic cup",
}
HARMED, TAKEN_FOR = "Drink can", "Cigarette"  # of two streams
HEAD = "| challenger | champion | utility, of 100 | AP50, of 100 | the gate | for |\n" + "|---" * 6 + "|"
Relabel = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def import_photos(photos: Path, root: Path, taxonomy: Taxonomy, kinds: dict[str, str]) -> Log:
    """The photos as a dataset log with a large test split, their classes named by ``kinds``."""
    if not root.exists():
        split = SplitParams(val=0.1, test=0.35)
        import_dataset(photos, "coco", root, taxonomy, ImportParams(), split, mapping=kinds, name="photos")
    return Log(root, taxonomy)


def relabelled(log: Log, root: Path, taxonomy: Taxonomy, relabel: Relabel) -> Log:
    """The same frames, the labels of the train split as ``relabel`` has it: it is given all their classes."""
    if not root.exists():
        shutil.copytree(log.root, root)
        frames = log.frames("train")
        old = [labels for i in range(len(frames)) if (labels := frames.labels(i)) is not None]
        new = relabel(np.concatenate([labels.class_ids for labels in old]))
        ends = np.cumsum([len(labels) for labels in old])
        changed = [
            (frames[i].sha256, Labels(labels.boxes, ids, labels.crowd))
            for i, (labels, ids) in enumerate(zip(old, np.split(new, ends[:-1]), strict=True))
        ]
        append_turn(root, "relabelled", [], changed, taxonomy)
    return Log(root, taxonomy)


def train_student(log: Log, out: Path, taxonomy: Taxonomy, options: argparse.Namespace, seed: int) -> Path:
    """The student's int8 file, by the stages ``tfrecords``, ``train_ssd`` and ``export_ssd``."""
    from export import ExportParams, export_tflite
    from training.ssd import SsdParams, TfrecordParams, train, write_tfrecords

    file = out / "models" / STUDENT.file
    if not file.is_file():
        params = SsdParams(
            epochs=options.epochs,
            image_size=options.image_size,
            batch_size=16,
            weights="imagenet" if options.weights else "none",
            weights_dir=options.weights,
        )
        frames = log.frames("train")
        shards = TfrecordParams(train_shards=2, val_shards=1)
        write_tfrecords(frames, log.frames("val"), taxonomy, out / "tfrecords", shards, seed)
        train(out / "tfrecords", taxonomy, params, seed, out / "ssd", out / "live", out / "checkpoints")
        export_tflite(out / "ssd", frames, out / "models", ExportParams(calibration_images=64))
    return file


def compared_model(name: str, file: Path, val: Frames, taxonomy: Taxonomy) -> ComparedModel:
    """The file with the sorting score of the greatest utility on the val split, as a training chooses it."""
    detector = open_detector(file, taxonomy)
    found, _ = predict(detector, val, 0)
    score = pick_sort_score((GroundTruth.from_frames(val), found), taxonomy, EvaluationParams())
    return ComparedModel(name, detector, score.score)


def row_of(challenger: str, champion: str, comparison: Comparison) -> str:
    """A line of the table: estimates, the verdict, and why."""
    estimates = []
    for start in ("sorting utility per item", "AP50"):
        value = next(f.estimate for f in comparison.verdict.findings if f.name.startswith(start))
        estimates.append("n/a" if value is None else f"{100 * value:+.1f}")
    why = "; ".join(f.name for f in comparison.verdict.findings if f.outcome == comparison.verdict.outcome)
    return f"| {challenger} | {champion} | {' | '.join(estimates)} | {comparison.verdict.outcome} | {why} |"


def judge_models_of_labels(log: Log, taxonomy: Taxonomy) -> None:
    """Print what the gate says of models that know the labels and lose, mistake or shuffle some of them.

    They are trained on nothing, so all photos judge them.
    """
    frames, boxes = log.frames(), log.box_counts()
    near_sixty = int(np.argmin(np.abs(boxes - 60)))
    harmed = taxonomy.classes[near_sixty]
    other = next(c for c in taxonomy.classes if c.stream == harmed.stream and c.id != harmed.id)
    known = Recorded(OfLabels(frames, seed=20))
    class_ids = GroundTruth.from_frames(frames).class_ids
    champion = Harmed(known, 1, lose=0.3)
    challengers = {
        "the champion itself": champion,
        "a better one": Harmed(known, 2, lose=0.1),
        f"a better one that takes {harmed.name} for {other.name}": Harmed(
            known, 2, lose=0.1, mistake={harmed.id: other.id}, mistaken=0.7
        ),
        "shuffled classes": Harmed(known, 3, shuffle=1.0, class_ids=class_ids),
        "one that finds a tenth": Harmed(known, 4, lose=0.9),
    }
    print(f"gate set: {len(frames)} photos, {boxes.sum()} items, {boxes[near_sixty]} of {harmed.name}\n")
    print(HEAD)
    for rival in (champion, None):
        for name, challenger in challengers.items():
            comparison = compare_models(
                ComparedModel(name, challenger, 0.3),
                ComparedModel("champion", rival, 0.3) if rival else None,
                None,
                frames,
                taxonomy,
                EvaluationParams(),
                GateParams(max_latency_ratio=1000),  # what is looked up has no latency
                seed=20,
            )
            print(row_of(name, "finds 70 %" if rival else "none: minima", comparison), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a COCO data set; without one nothing is measured")
    parser.add_argument("--weights", type=Path, help="folder of the ImageNet weights; random without")
    parser.add_argument("--work", type=Path, default=Path("build/gate-on-photos"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--image-size", type=int, default=300)
    parser.add_argument("--of-labels", action="store_true", help="train nothing: models know the labels")
    options = parser.parse_args()
    if options.photos is None:
        print("not run: it needs --photos FOLDER, a COCO data set of litter such as TACO")
        return
    taxonomy = load_taxonomy(REPOSITORY / "taxonomy.yaml")
    if options.of_labels:
        names = {c.name: c.name for c in taxonomy.classes}
        every = import_photos(options.photos, options.work / "every-class", taxonomy, names)
        judge_models_of_labels(every, taxonomy)
        return
    kinds = {c.name: KIND_OF.get(c.supercategory, "Unlabeled litter") for c in taxonomy.classes}
    log = import_photos(options.photos, options.work / "data", taxonomy, kinds)
    harmed, taken_for = taxonomy.id_of[HARMED], taxonomy.id_of[TAKEN_FOR]
    logs = {
        "right labels": log,
        "shuffled labels": relabelled(
            log, options.work / "shuffled-data", taxonomy, np.random.default_rng(20).permutation
        ),
        f"{HARMED} labelled {TAKEN_FOR}": relabelled(
            log,
            options.work / "harmed-data",
            taxonomy,
            lambda ids: np.where(ids == harmed, taken_for, ids),
        ),
    }
    models = {}
    for number, (name, labels) in enumerate(logs.items()):
        print(f"training: {name}", flush=True)
        file = train_student(labels, options.work / f"student-{number}", taxonomy, options, seed=20)
        models[name] = compared_model(name, file, log.frames("val"), taxonomy)
    frames, (right, *others) = log.frames("test"), models
    boxes = log.box_counts("test")[harmed - 1]
    print(f"gate set: {len(frames)} test photos, {boxes} items of {HARMED}; {options.epochs} epochs each\n")
    print(HEAD)
    for challenger, champion in [
        *((name, None) for name in models),
        (right, right),
        *((name, right) for name in others),
    ]:
        rival = models[champion] if champion else None
        comparison = compare_models(
            models[challenger], rival, None, frames, taxonomy, EvaluationParams(), GateParams(), seed=20
        )
        print(row_of(challenger, champion or "none: minima", comparison), flush=True)


if __name__ == "__main__":
    main()
