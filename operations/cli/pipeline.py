"""The pipeline's commands: dataset log, training, export, evaluation.

Each stage of ``dvc.yaml`` is one of these.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from operations.cli.group import cli
from trashnet.errors import UserError
from trashnet.models import MODELS

if TYPE_CHECKING:
    from trashnet.taxonomy import Taxonomy

FORMATS = ("coco", "voc", "yolo")
BUILD = Path("build")
MODEL_PATHS = {model.name: BUILD / "models" / model.file for model in MODELS}

file_path = click.Path(path_type=Path)
data_option = click.option(
    "--data", type=file_path, default=Path("data"), show_default=True, help="The dataset log."
)
params_option = click.option(
    "--params", "params_file", type=file_path, default=Path("params.yaml"), show_default=True
)
taxonomy_option = click.option(
    "--taxonomy", "taxonomy_file", type=file_path, default=Path("taxonomy.yaml"), show_default=True
)


@cli.command("import")
@click.argument("kind", type=click.Choice(FORMATS))
@click.argument("source", type=file_path)
@click.option(
    "--map",
    "map_file",
    type=file_path,
    help="YAML, JSON or CSV file: maps class names of SOURCE to ours, or to nothing to leave a class out.",
)
@click.option("--name", help="The turn's name; by default that of SOURCE.")
@click.option(
    "--skip-invalid",
    is_flag=True,
    help="Leave invalid images and boxes out and list them, instead of refusing the whole data set.",
)
@data_option
@params_option
@taxonomy_option
def import_(
    kind: Any,
    source: Path,
    map_file: Path | None,
    name: str | None,
    skip_invalid: bool,
    data: Path,
    params_file: Path,
    taxonomy_file: Path,
) -> None:
    """Append a COCO, VOC or YOLO data set at SOURCE to the dataset log, as one turn."""
    from dataset.formats import ImportParams, import_dataset, load_mapping
    from dataset.splits import SplitParams
    from trashnet.params import load_params

    report = import_dataset(
        source,
        kind,
        data,
        _taxonomy(taxonomy_file),
        load_params("import", ImportParams, params_file),
        load_params("split", SplitParams, params_file),
        mapping=load_mapping(map_file) if map_file else None,
        name=name,
        skip_invalid=skip_invalid,
    )
    click.echo(report.summary())
    if report.turn is not None:
        click.echo(f"Next: dvc add {data}   and commit {data}.dvc")


@cli.command("export-dataset")
@click.argument("kind", type=click.Choice(FORMATS))
@click.argument("out", type=file_path)
@data_option
@taxonomy_option
def export_dataset_(kind: Any, out: Path, data: Path, taxonomy_file: Path) -> None:
    """Write the whole dataset, newest labels, as COCO, VOC or YOLO into the empty folder OUT."""
    from dataset import Log
    from dataset.formats import export_dataset

    log = Log(data, _taxonomy(taxonomy_file))
    export_dataset(log, kind, out)
    click.echo(f"{len(log):,} frames written to {out}")


@cli.command()
@data_option
@params_option
@taxonomy_option
def sample(data: Path, params_file: Path, taxonomy_file: Path) -> None:
    """Draw the sample data set, synthetic waste scenes, and append it to the dataset log as one turn."""
    from synthetic import SampleParams, draw_sample
    from trashnet.params import load_params

    click.echo(draw_sample(data, _taxonomy(taxonomy_file), load_params("sample", SampleParams, params_file)))


@cli.command()
@data_option
@taxonomy_option
def dataset(data: Path, taxonomy_file: Path) -> None:
    """Show the dataset log: its turns, and frames and boxes per split and class."""
    from dataset import Log, describe

    click.echo(describe(Log(data, _taxonomy(taxonomy_file))))


@cli.command()
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of processes; by default one per core. The result is the same.",
)
@data_option
@params_option
@taxonomy_option
def rebalance(workers: int | None, data: Path, params_file: Path, taxonomy_file: Path) -> None:
    """Stage: augment rare classes of the train split until each has enough images."""
    from dataset import Log
    from dataset.rebalance import RebalanceParams
    from dataset.rebalance import rebalance as run
    from trashnet.params import load_params

    log = Log(data, _taxonomy(taxonomy_file))
    report = run(
        log,
        BUILD / "rebalanced",
        load_params("rebalance", RebalanceParams, params_file),
        _seed(params_file),
        workers=workers,
    )
    click.echo(report.table())


@cli.command()
@data_option
@params_option
@taxonomy_option
def tfrecords(data: Path, params_file: Path, taxonomy_file: Path) -> None:
    """Stage: write the balanced train split and the val split as TFRecords."""
    from dataset import Log
    from training.ssd import TfrecordParams, write_tfrecords
    from trashnet.params import load_params

    taxonomy = _taxonomy(taxonomy_file)
    log = Log(data, taxonomy)
    train = log.frames("train") + Log(BUILD / "rebalanced", taxonomy).frames()
    params = load_params("tfrecords", TfrecordParams, params_file)
    write_tfrecords(train, log.frames("val"), taxonomy, BUILD / "tfrecords", params, _seed(params_file))


@cli.group()
def train() -> None:
    """Stages: train a detector."""


@train.command("efficientdet")
@data_option
@params_option
@taxonomy_option
def train_efficientdet(data: Path, params_file: Path, taxonomy_file: Path) -> None:
    """Stage: train EfficientDet-D0, the teacher, on the balanced train split."""
    from dataset import Log
    from training.efficientdet import EfficientDetParams
    from training.efficientdet import train as run
    from trashnet.params import load_params

    taxonomy = _taxonomy(taxonomy_file)
    log = Log(data, taxonomy)
    frames = log.frames("train") + Log(BUILD / "rebalanced", taxonomy).frames()
    report = run(
        frames,
        log.frames("val"),
        taxonomy,
        load_params("efficientdet", EfficientDetParams, params_file),
        _seed(params_file),
        out=BUILD / "efficientdet",
        live=BUILD / "live/efficientdet",
        checkpoints=BUILD / "checkpoints/efficientdet",
    )
    click.echo(report.summary())


@train.command("ssd")
@params_option
@taxonomy_option
def train_ssd(params_file: Path, taxonomy_file: Path) -> None:
    """Stage: train SSD MobileNet v2, the student, on the TFRecords."""
    from training.ssd import SsdParams
    from training.ssd import train as run
    from trashnet.params import load_params

    report = run(
        BUILD / "tfrecords",
        _taxonomy(taxonomy_file),
        load_params("ssd", SsdParams, params_file),
        _seed(params_file),
        out=BUILD / "ssd",
        live=BUILD / "live/ssd",
        checkpoints=BUILD / "checkpoints/ssd",
    )
    click.echo(report.summary())


@cli.group("export")
def export_() -> None:
    """Stages: export a trained detector as the file that is shipped."""


@export_.command("efficientdet")
def export_efficientdet() -> None:
    """Stage: export EfficientDet to one ONNX file, compared numerically with PyTorch."""
    from export import export_onnx

    click.echo(export_onnx(BUILD / "efficientdet", MODEL_PATHS["efficientdet"]).summary())


@export_.command("ssd")
@data_option
@params_option
@taxonomy_option
def export_ssd(data: Path, params_file: Path, taxonomy_file: Path) -> None:
    """Stage: export SSD to float and int8 TFLite, and check the latter against the EdgeTPU's rules."""
    from dataset import Log
    from export import ExportParams, export_tflite
    from trashnet.params import load_params

    log = Log(data, _taxonomy(taxonomy_file))
    params = load_params("export", ExportParams, params_file)
    click.echo(export_tflite(BUILD / "ssd", log.frames("train"), BUILD / "models", params).summary())


@cli.command("check-edgetpu")
@click.argument("model", type=file_path)
def check_edgetpu_(model: Path) -> None:
    """Check a TFLite MODEL against the EdgeTPU's rules, operator by operator; exit 1 when a gate fails."""
    from export import check_edgetpu

    report = check_edgetpu(model)
    click.echo(report.table())
    if not report.ok:
        sys.exit(1)


@cli.command("set")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@params_option
def set_(changes: tuple[str, ...], params_file: Path) -> None:
    """Change parameters, such as ssd.epochs=90, and keep the file's comments.

    `dvc repro` then runs what they concern.
    """
    from trashnet.params import set_params

    if unclear := [change for change in changes if "=" not in change]:
        raise UserError(f"{unclear[0]!r}: say KEY=VALUE, such as ssd.epochs=90")
    set_params(dict(change.split("=", 1) for change in changes), params_file)


@cli.command()
@click.argument("model", type=click.Choice(list(MODEL_PATHS)))
@data_option
@params_option
@taxonomy_option
def evaluate(model: str, data: Path, params_file: Path, taxonomy_file: Path) -> None:
    """Stage: judge an exported MODEL on the test split."""
    from dataset import Log
    from evaluation import EvaluationParams
    from evaluation import evaluate as run
    from trashnet.detectors import open_detector
    from trashnet.params import load_params

    taxonomy = _taxonomy(taxonomy_file)
    log = Log(data, taxonomy)
    params = load_params("evaluation", EvaluationParams, params_file)
    scorecard = run(
        open_detector(MODEL_PATHS[model], taxonomy), log, taxonomy, params, BUILD, model=MODEL_PATHS[model]
    )
    click.echo(scorecard.summary())


@cli.command()
@data_option
@params_option
@taxonomy_option
def report(data: Path, params_file: Path, taxonomy_file: Path) -> None:
    """Stage: write the HTML report on all three models."""
    from dataset import Log
    from evaluation import EvaluationParams, write_html_report
    from trashnet.params import load_params

    taxonomy = _taxonomy(taxonomy_file)
    out = write_html_report(
        Log(data, taxonomy), BUILD, taxonomy, load_params("evaluation", EvaluationParams, params_file)
    )
    click.echo(out)


@cli.command()
def scores() -> None:
    """Print the models' scores beside each other, and where files, plots and reports lie."""
    from evaluation import headline_table

    click.echo(headline_table(BUILD))


@cli.command("pair")
@click.argument("before", type=file_path)
@click.argument("after", type=file_path)
@taxonomy_option
def pair_(before: Path, after: Path, taxonomy_file: Path) -> None:
    """Say which items one model sorts right and the other does not, from their files build/matches/*.parquet.

    Refused where they were judged on different frames or labels.
    """
    from evaluation import FrameMatches, pair_matches

    taxonomy = _taxonomy(taxonomy_file)
    paired = pair_matches(FrameMatches.read(before), FrameMatches.read(after), taxonomy)
    click.echo(paired.table(taxonomy))


@cli.command("fiftyone")
@click.option(
    "--model",
    type=click.Choice(list(MODEL_PATHS)),
    help="Only this model's predictions; all three unless given.",
)
@click.option("--address", default="127.0.0.1", show_default=True)
@click.option("--port", default=5151, show_default=True)
@data_option
@taxonomy_option
def fiftyone_(model: str | None, address: str, port: int, data: Path, taxonomy_file: Path) -> None:
    """Open the dataset in FiftyOne: ground truth, predictions, matches, and saved views of mistakes."""
    from dataset import Log
    from evaluation import open_fiftyone
    from operations.mongod import ensure_database

    taxonomy = _taxonomy(taxonomy_file)
    log, database = Log(data, taxonomy), ensure_database(BUILD / "fiftyone" / "db")
    open_fiftyone(log, BUILD, taxonomy, database, model=model, address=address, port=port)


@cli.command()
@click.option("--address", default="127.0.0.1", show_default=True)
@click.option("--port", default=8501, show_default=True)
@data_option
@taxonomy_option
def view(address: str, port: int, data: Path, taxonomy_file: Path) -> None:
    """Open the viewer: photos and frames through the models, what the gate said, and scorecards.

    It shows the flywheel of this folder, or the one that the environment names: its own frames, champions and
    candidates, also while the embedded stack is down. Without one, and at a click, it shows the local build.
    """
    from operations.stack.store_reader import readable_store
    from viewer import run_viewer

    with readable_store() as store:
        run_viewer(
            data=data,
            build=BUILD,
            taxonomy_file=taxonomy_file,
            address=address,
            port=port,
            variables=store.variables,
            note=store.note,
        )


def _taxonomy(path: Path) -> "Taxonomy":
    from trashnet.taxonomy import load_taxonomy

    return load_taxonomy(path)


def _seed(params_file: Path) -> int:
    from trashnet.params import load_seed

    return load_seed(params_file)
