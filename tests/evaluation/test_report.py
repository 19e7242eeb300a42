"""The report is one page that needs nothing but itself, and says plainly what was not run."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dataset import Log
from evaluation import EvaluationParams, Scorecard, evaluate, headline_table, write_html_report
from evaluation.report.inputs import read_curves
from evaluation.report.page import Quantisation, quantisation
from trashnet.errors import UserError
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MODELS = ("efficientdet", "ssd_float", "ssd_int8")


@pytest.fixture(scope="module")
def params() -> EvaluationParams:
    """As shipped."""
    return load_params("evaluation", EvaluationParams, REPOSITORY / "params.yaml")


@pytest.fixture(scope="module")
def judged(
    jittering: Callable[..., Any],
    sample_log: Log,
    taxonomy: Taxonomy,
    params: EvaluationParams,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Three models' scorecards and predictions, and the report on them alone."""
    tmp_path = tmp_path_factory.mktemp("judged")
    for name, faults in zip(
        MODELS,
        ({"confuse": 0.2, "clutter": 2}, {"blur": 0.05, "lose": 0.2}, {"blur": 0.1, "lose": 0.3}),
        strict=True,
    ):
        evaluate(jittering(name, **faults), sample_log, taxonomy, params, tmp_path)
    write_html_report(sample_log, tmp_path, taxonomy, params)
    return tmp_path


@pytest.fixture
def build(judged: Path, tmp_path: Path) -> Path:
    """A copy of that to change."""
    return Path(shutil.copytree(judged, tmp_path / "build"))


class Page(HTMLParser):
    """What a page would load, the text it shows, its images and its element ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images: list[str] = []
        self.ids: list[str] = []
        self.stack: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element would load and what it is called."""
        values = {name: value or "" for name, value in attrs}
        for name in ("src", "href", "xlink:href", "data", "srcset", "action"):
            if name in values and not values[name].startswith(("#", "data:")):
                self.loads.append(values[name])
        if tag == "img":
            self.images.append(values["src"])
        if "id" in values:
            self.ids.append(values["id"])
        if tag not in ("meta", "link", "img", "input", "br", "path", "use", "rect", "line"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Keep what is shown."""
        if not self.stack or self.stack[-1] not in ("style", "script"):
            self.words += data + " "


def test_page_stands_alone(judged: Path) -> None:
    """All three models are in it, nothing is loaded from anywhere, every anchor has its target, every id is
    there once.
    """
    text = (judged / "report.html").read_text()
    page = Page(text)
    assert page.loads == []
    assert not re.search(r"url\((?!#)|@import", text)
    assert all(name in page.words for name in MODELS)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.images
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.images)
    assert "nan" not in re.findall(r"[a-z]+", page.words.lower())


def test_page_shows_the_scorecards_numbers(judged: Path) -> None:
    """AP, sorting accuracy and its interval stand in the page as in the scorecard."""
    words = Page((judged / "report.html").read_text()).words
    for name in MODELS:
        card = Scorecard.load(judged / f"scorecards/{name}.json")
        accuracy = card.sorting.accuracy
        assert card.coco["ap"] is not None
        assert accuracy.value is not None
        assert accuracy.low is not None
        assert f"{name}: AP {100 * card.coco['ap']:.1f}" in words
        assert f"{100 * accuracy.value:.1f}" in words
        assert f"{100 * accuracy.low:.1f} to" in words


def test_what_was_not_run_is_said(
    build: Path, sample_log: Log, taxonomy: Taxonomy, params: EvaluationParams
) -> None:
    """Without training curves, rebalancing, the EdgeTPU check and one of the models the page is written all
    the same and names each.
    """
    (build / "scorecards/ssd_int8.json").unlink()
    words = Page(write_html_report(sample_log, build, taxonomy, params).read_text()).words
    parts = (
        "no build/live/efficientdet",
        "no build/live/ssd",
        "no build/rebalanced",
        "no build/models/edgetpu.json",
        "int8 gate: not run",
    )
    for missing in parts:
        assert missing in words
    assert "not run" in headline_table(build)


def test_optional_inputs_are_shown(
    build: Path, sample_log: Log, taxonomy: Taxonomy, params: EvaluationParams
) -> None:
    """Curves, rebalancing and the EdgeTPU's verdict appear once their files are there."""
    for name, values in {"train/loss": [2.0, 1.0], "val/loss": [2.5, 1.5], "lr": [0.1, 0.01]}.items():
        path = build / f"live/efficientdet/plots/metrics/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"step\t{path.stem}\n" + "".join(f"{i}\t{v}\n" for i, v in enumerate(values)))
    curves = read_curves(build / "live/efficientdet")
    assert [(c.panel, c.series, c.values) for c in curves] == [
        ("loss", "train", (2.0, 1.0)),
        ("loss", "val", (2.5, 1.5)),
        ("lr", "run", (0.1, 0.01)),
    ]
    one = {"id": 1, "name": "Aluminium foil", "images": 3, "copied_images": 7, "short": 2}
    (build / "rebalanced").mkdir()
    (build / "rebalanced/report.json").write_text(
        json.dumps({"target": 12, "originals": 9, "copies": 7, "proven": True, "classes": [one]})
    )
    gate = {"gate": "weights fit on chip", "pass": False, "found": "9.1 MiB"}
    operator = {"operator": "CONV_2D", "version": 6, "count": 4, "where": "CPU", "why_not": "too new"}
    (build / "models").mkdir()
    (build / "models/edgetpu.json").write_text(
        json.dumps(
            {
                "model": "m/ssd_int8.tflite",
                "ok": False,
                "gates": [gate],
                "operators": [operator],
                "operator_count": 4,
                "mappable": 0,
                "compiler": "not run",
            }
        )
    )
    words = Page(write_html_report(sample_log, build, taxonomy, params).read_text()).words
    assert "9 originals and 7 augmented copies" in words
    assert "not compatible" in words
    assert "weights fit on chip" in words
    assert "no build/live/efficientdet" not in words


def test_the_report_is_the_same_twice(
    build: Path, sample_log: Log, taxonomy: Taxonomy, params: EvaluationParams
) -> None:
    """The same inputs give the same bytes: DVC then sees that nothing changed."""
    before = (build / "report.html").read_bytes()
    assert write_html_report(sample_log, build, taxonomy, params).read_bytes() == before


def test_quantisation_against_its_gate(judged: Path) -> None:
    """The loss is float's AP minus int8's, in points; a loss beyond the gate fails, a gain passes."""
    cards = {name: Scorecard.load(judged / f"scorecards/{name}.json") for name in MODELS}
    before, after = cards["ssd_float"].coco["ap"], cards["ssd_int8"].coco["ap"]
    assert before is not None
    assert after is not None
    result = quantisation(cards, gate=1.0)
    assert result is not None
    assert result.ap_lost == pytest.approx(100 * (before - after))
    assert not result.passes
    swapped = quantisation({"ssd_float": cards["ssd_int8"], "ssd_int8": cards["ssd_float"]}, gate=1.0)
    assert swapped is not None
    assert swapped.passes
    assert quantisation({"ssd_float": cards["ssd_float"]}, gate=1.0) is None


def test_scorecards_of_other_data_are_refused(
    judged: Path, sample_log: Log, taxonomy: Taxonomy, params: EvaluationParams
) -> None:
    """A report must not mix scorecards of one test split with frames of another."""
    with pytest.raises(UserError, match=r"judged other frames or labels.*dvc repro"):
        write_html_report(sample_log, judged, taxonomy, params, split="val")


def test_no_scorecards_is_said(
    sample_log: Log, taxonomy: Taxonomy, params: EvaluationParams, tmp_path: Path
) -> None:
    """With nothing judged there is nothing to report, and the remedy is named."""
    with pytest.raises(UserError, match="no scorecard to report on"):
        write_html_report(sample_log, tmp_path, taxonomy, params)


def test_headline_table_has_all_models(judged: Path) -> None:
    """The terminal's table has a column per model and the scorecards' AP in it."""
    table = headline_table(judged)
    ap = next(line for line in table.splitlines() if line.startswith("AP "))
    assert re.findall(r"(?<![(\d])[\d.]+(?= \()", ap) == [
        f"{100 * (Scorecard.load(judged / f'scorecards/{name}.json').coco['ap'] or 0):.1f}" for name in MODELS
    ]
    assert str(judged / "scorecards") in table


@pytest.mark.parametrize(("float_ap", "meaningful"), [(0.0, False), (1.0, False), (1.1, True)])
def test_a_gate_of_one_point_tells_nothing_of_a_model_with_less_to_lose(
    float_ap: float, meaningful: bool
) -> None:
    """A float model whose AP is not above the gate cannot fail it, so its int8 twin's pass would mean
    nothing.
    """
    assert (
        Quantisation(
            float_ap, ap_lost=float_ap, ap50_lost=0.0, sorting_lost=None, gate=1.0, classes=()
        ).meaningful
        is meaningful
    )
