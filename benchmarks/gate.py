"""The gate's speed on 1,000 frames; with `--power`, its error rates, written into docs/gate.md.

`python benchmarks/gate.py` takes seconds, `python benchmarks/gate.py --power` some minutes.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.coco import draw_problem
from benchmarks.support.fleet_outcomes import Difference, FleetShape
from benchmarks.support.gate_simulation import gate_shares, harm_blocks, harm_power, utility_shares
from evaluation.flat_arrays import Predictions
from evaluation.gate import GateParams, PairedOutcomes, gate_frames, judge_challenger, model_outcomes
from evaluation.gate.noninferiority import items_needed
from evaluation.intervals import group_weights
from evaluation.params import EvaluationParams
from evaluation.resamples import match_as_coco, resample_ap
from trashnet.taxonomy import load_taxonomy

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE, TAXONOMY = REPOSITORY / "docs/gate.md", REPOSITORY / "taxonomy.yaml"
BOXES_PER_GROUP = 9.0
FEWER_DRAWS = GateParams(resamples=500, flips=1000)


def measure_speed(count: int) -> None:
    """From two models' detections to the verdict, every slice tested; goal: under 60 s on 2 cores."""
    boxes = round(count * 7.2)
    taxonomy, params, gate = load_taxonomy(TAXONOMY), EvaluationParams(), GateParams()
    classes = len(taxonomy.classes)
    truth, found = draw_problem(count, classes, boxes, seed=20)
    kept = np.random.default_rng(20).random(len(found)) > 0.02
    champion = Predictions(
        found.images, found.image[kept], found.boxes[kept], found.class_ids[kept], found.scores[kept]
    )
    groups = np.arange(count) // 2
    began, cpu_began = time.perf_counter(), time.process_time()
    shared = gate_frames(truth, taxonomy, groups.tolist(), [f"bin-{g % 12:02}" for g in groups])
    models = [model_outcomes(shared, truth, one, 0.3, taxonomy, params) for one in (champion, found)]
    matched = time.perf_counter()
    verdict = judge_challenger(PairedOutcomes(shared, *models, step=1 + params.wrong_cost), gate, seed=20)
    judged, cpu = time.perf_counter(), time.process_time() - cpu_began
    print(
        f"gate: {verdict.frames} frames, {verdict.groups} groups, {verdict.items} items, "
        f"{len(champion) + len(found)} detections, {len(verdict.slices['champion'])} slices tested, "
        f"{gate.resamples} resamples, {gate.flips} flips: matched in {matched - began:.1f} s, judged in "
        f"{judged - matched:.1f} s, together {judged - began:.1f} s ({cpu:.1f} s of CPU)"
    )
    weights = group_weights(int(groups.max()) + 1, params.resamples, seed=1)
    began = time.perf_counter()
    resample_ap(match_as_coco(truth, found, np.arange(1, classes + 1)), truth, found, groups, weights)
    seconds = time.perf_counter() - began
    print(f"scorecard: AP at all ten thresholds, {params.resamples} resamples: {seconds:.1f} s")


def size_of(groups: int, background: float = 1.0) -> FleetShape:
    """A gate set with the same scenes, only more or fewer of them."""
    boxes = FleetShape().class_boxes.sum()
    return FleetShape(groups=groups, scale=groups * BOXES_PER_GROUP / float(boxes), background=background)


def utility_table(trials: int) -> str:
    rows = []
    params = GateParams()
    for groups in (60, 150, 300, 600, 1200):
        shape = size_of(groups)
        equal, margin, worse = (
            utility_shares(shape, loss, params, trials, seed=12) for loss in (0.0, 0.02, 0.06)
        )
        rows.append(
            [
                str(groups),
                f"{equal.frames:.0f}",
                f"{equal.items:.0f}",
                percent(equal.passes),
                percent(margin.passes),
                percent(margin.independent_passes),
                percent(worse.blocks),
            ]
        )
        print(rows[-1], flush=True)
    head = [
        "groups",
        "frames",
        "items",
        "an equally good one passes",
        "one that loses just the margin passes",
        "the same, were items taken as independent",
        "one that loses 6 points is blocked",
    ]
    return table(head, rows)


def frames_table(trials: int) -> str:
    rows = []
    shape = size_of(600)
    measured = utility_shares(shape, 0.0, GateParams(), trials, seed=13)
    for margin in (0.01, 0.02, 0.03, 0.05):
        items = items_needed(measured.psi, measured.design_effect, margin)
        frames = items * measured.frames / measured.items
        disagree = percent(measured.psi / 4)  # a step of 2, squared
        psi, effect = f"{measured.psi:.2f}", f"{measured.design_effect:.2f}"
        rows.append([f"{100 * margin:.0f} points", disagree, psi, effect, f"{items}", f"{frames:.0f}"])
    head = ["margin", "items on which the models disagree", "psi", "design effect", "items", "frames"]
    return table(head, rows)


def slices_table(trials: int) -> str:
    rows = []
    shape = FleetShape(groups=300)
    for size in (30, 45, 60, 100, 150, 200):
        index = int(np.argmin(np.abs(shape.class_boxes - size) + 1e3 * (shape.class_boxes < 30)))
        found = [harm_power(shape, index, loss, FEWER_DRAWS, trials, seed=14) for loss in (0.1, 0.2, 0.3)]
        rows.append([str(shape.class_boxes[index]), *(percent(share) for share in found)])
        print(rows[-1], flush=True)
    return table(["boxes of the class", *(f"loses {p} points" for p in (10, 20, 30))], rows)


def churn_table(trials: int) -> str:
    rows = []
    sizes = (0.0, 0.03, 0.05)
    for groups in (300, 1200):
        for churn in (0.0, 0.02, 0.04):
            difference = Difference(overall=-0.01, churn=churn)
            shares = harm_blocks(size_of(groups), difference, sizes, FEWER_DRAWS, trials, seed=15)
            rows.append([str(groups), f"{100 * churn:.0f} points", *(percent(share) for share in shares)])
            print(rows[-1], flush=True)
    head = ["groups", "classes truly change by (standard deviation)"]
    return table([*head, "any size counts", "from 3 points on", "from 5 points on"], rows)


def gate_table(trials: int) -> str:
    """All tests together: A/A, losses of everything, and a model that is better but for one class."""
    rows = []
    for groups in (60, 300):
        shape = size_of(groups)
        boxes = shape.class_boxes
        index = int(np.argmin(np.abs(boxes - 60)))
        challengers = {
            "is as good": Difference(),
            "loses just the margin, 2 points of utility": Difference(overall=0.01),
            "loses 6 points of utility": Difference(overall=0.03),
            f"gains 4 points, but {boxes[index]} items of one class lose 40": Difference(
                overall=-0.02, classes={index: 0.4}
            ),
        }
        for name, difference in challengers.items():
            shares = gate_shares(shape, difference, FEWER_DRAWS, trials, seed=16)
            said = [percent(share) for share in (shares.passes, shares.holds, shares.blocks)]
            named = "" if shares.named is None else percent(shares.named)
            rows.append([str(groups), f"{shares.frames:.0f}", name, *said, named])
            print(rows[-1], flush=True)
    head = ["groups", "frames", "the challenger", "passes", "holds", "blocks", "the class is named"]
    return table(head, rows)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_table(name: str, text: str) -> None:
    """Replace what stands between a table's markers."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- table: {name} -->\n", "\n<!-- end -->"
    if page.count(begin) != 1:
        raise SystemExit(f"{PAGE}: table {name} needs one line {begin.strip()!r}")
    before, after = page.split(begin)
    PAGE.write_text(before + begin + text + after[after.index(end) :], encoding="utf-8")


TABLES: dict[str, Callable[[int], str]] = {
    "gate": gate_table,
    "utility": utility_table,
    "frames": frames_table,
    "slices": slices_table,
    "churn": churn_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--power", action="store_true", help="simulate error rates, and write docs/gate.md")
    parser.add_argument("--tables", nargs="*", choices=TABLES, help="with --power, only these")
    options = parser.parse_args()
    if not options.power:
        measure_speed(options.frames)
        return
    for name in options.tables or TABLES:
        print(f"== {name}", flush=True)
        trials = f"\n\n{options.trials} simulated comparisons a row."
        write_table(name, TABLES[name](options.trials) + trials)


if __name__ == "__main__":
    main()
