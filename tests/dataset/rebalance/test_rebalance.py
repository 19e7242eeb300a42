"""Rebalancing: the plan against brute force, and what is written against what was planned."""

import csv
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dataset import Frame, Labels, Log, Split, append_turn
from dataset.rebalance import RebalanceParams, rebalance
from dataset.rebalance.plan import _remove_spare, plan_copies
from trashnet.errors import UserError
from trashnet.params import load_params
from trashnet.taxonomy import Taxonomy

PARAMS = RebalanceParams(
    target_images=6,
    max_copies=3,
    flip=0.5,
    translate=0.2,
    rotate=2,
    scale=(0.8, 1.2),
    min_visible=0.4,
    jpeg_quality=90,
    solver_nodes=1000,
)


def params_with(**changes: Any) -> RebalanceParams:
    """The usual parameters but for these."""
    return PARAMS.model_copy(update=changes)


def frame_of(
    number: int, split: Split, class_ids: list[int], crowd: list[bool] | None = None
) -> tuple[Frame, Labels]:
    """A frame of 96 x 64 with a bright square for each class."""
    image = np.random.default_rng(number).integers(0, 60, (64, 96, 3)).astype(np.uint8)
    boxes = np.array([[8 + 14 * i, 20 + 3 * i, 12, 12] for i in range(len(class_ids))], float).reshape(-1, 4)
    for x, y, w, h in boxes.astype(int):
        image[y : y + h, x : x + w] = 230
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    frame = Frame(
        hashlib.sha256(jpeg).hexdigest(),
        jpeg,
        96,
        64,
        split,
        f"g{number}",
        number,
        f"b/{number}.jpg",
        extra={"note": number},
    )
    extra = tuple({"item": i} for i in range(len(class_ids)))
    return frame, Labels(
        boxes, np.array(class_ids, np.int64), np.array(crowd or [False] * len(class_ids), bool), extra
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Log:
    """Class 1 is common, 2 and 3 rare, 4 in val and test, 5 a crowd; one background, one unlabelled."""
    pairs = [frame_of(n, "train", [1]) for n in range(7)]
    pairs += [
        frame_of(10, "train", [1, 2]),
        frame_of(11, "train", [2]),
        frame_of(12, "train", [2, 2, 3]),
        frame_of(13, "train", []),
    ]
    pairs += [frame_of(14, "train", [1, 5], [False, True])]
    pairs += [frame_of(20, "val", [3, 4]), frame_of(21, "test", [3, 4])]
    unlabelled = frame_of(30, "train", [1])[0]
    root = tmp_path_factory.mktemp("rebalance") / "data"
    append_turn(
        root, "made", [f for f, _ in pairs] + [unlabelled], [(f.sha256, one) for f, one in pairs], taxonomy
    )
    return Log(root, taxonomy)


def search_exhaustively(images: NDArray[np.bool_], target: int, cap: int) -> tuple[int, int]:
    """By exhaustive search: the fewest copies that lift every class, then the fewest images of classes."""
    have = images.sum(0)
    goal = np.minimum(target, have * (1 + cap))
    best = (10**9, 10**9)
    for tried in itertools.product(range(cap + 1), repeat=len(images)):
        copies = np.array(tried)
        if (have + copies @ images >= goal).all():
            best = min(best, (int(copies.sum()), int((copies @ images).sum())))
    return best


@given(
    images=st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=n, max_size=n)
    ),
    target=st.integers(1, 9),
    cap=st.integers(0, 3),
)
@settings(max_examples=120, deadline=None)
def test_the_plan_is_the_best_there_is(images: list[list[bool]], target: int, cap: int) -> None:
    """No plan reaches as far with fewer copies, or with as many and fewer images of other classes."""
    shown = np.array(images, bool)
    plan = plan_copies(shown, params_with(target_images=target, max_copies=cap), seed=0)
    total, inflation = search_exhaustively(shown, target, cap)
    assert plan.proven
    assert (plan.copies.min(), plan.copies.max()) >= (0, 0)
    assert plan.copies.max() <= cap
    assert (shown.sum(0) + plan.copies @ shown >= np.minimum(target, shown.sum(0) * (1 + cap))).all()
    assert (int(plan.copies.sum()), int((plan.copies @ shown).sum())) == (total, inflation)


def test_an_original_of_two_rare_classes_serves_both() -> None:
    """Every class misses 3 images; an original shows two classes, so 5 copies are enough, not 9."""
    shown = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]], bool)
    plan = plan_copies(shown, params_with(target_images=5, max_copies=10), seed=0)
    # classes have 2, 2, 2 images: each misses 3; x1 + x3, x2 + x3, x1 + x2 >= 3 sum to 2 (x1 + x2 + x3) >= 9,
    # so 5 copies
    assert plan.copies.sum() == 5


def test_of_equal_plans_the_one_that_inflates_least_is_taken() -> None:
    """Class 0 misses 2 images; its original without the common class 1 is copied, not the one with it."""
    shown = np.array([[1, 0], [1, 1], *[[0, 1]] * 8], bool)
    plan = plan_copies(shown, params_with(target_images=4, max_copies=5), seed=0)
    assert plan.copies.tolist() == [2] + [0] * 9


def test_copies_are_spread_evenly_over_equal_originals() -> None:
    """11 copies of 4 originals that show the same: 3, 3, 3 and 2 in some order that the seed decides."""
    shown = np.ones((4, 1), bool)
    plans = [
        plan_copies(shown, params_with(target_images=15, max_copies=9), seed=seed).copies.tolist()
        for seed in range(8)
    ]
    assert all(sorted(p) == [2, 3, 3, 3] for p in plans)
    assert len(set(map(tuple, plans))) > 1


def test_a_plan_that_is_cut_short_is_still_a_plan_and_says_its_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a single solver node the plan still covers every class, and its gap bounds the excess."""
    shown = np.random.default_rng(1).random((200, 57)) < 0.05
    params = params_with(target_images=150, max_copies=40)
    quick = plan_copies(shown, params.model_copy(update={"solver_nodes": 1}), seed=0)
    full = plan_copies(shown, params.model_copy(update={"solver_nodes": 5000}), seed=0)
    goal = np.minimum(150, shown.sum(0) * 41)
    assert (shown.sum(0) + quick.copies @ shown >= goal).all()
    assert quick.copies.sum() - quick.gap <= full.copies.sum() <= quick.copies.sum()


def test_the_rounded_answer_spares_what_it_can() -> None:
    """Rounding up gives (2, 2, 2) for demands (2, 2); the first, of both classes, alone covers them."""
    shown = np.array([[True, True], [True, False], [False, True]])
    pruned = _remove_spare(np.array([2, 2, 2]), shown, np.array([2, 2]))
    assert (pruned @ shown >= 2).all()
    assert pruned.sum() < 6
    again = _remove_spare(pruned.copy(), shown, np.array([2, 2]))
    assert np.array_equal(again, pruned)


def test_the_counts_reported_are_the_counts_written(log: Log, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The report's images and boxes are those of the log it wrote, and exactly those planned."""
    report = rebalance(log, tmp_path / "out", PARAMS, seed=1, workers=1)
    out = Log(tmp_path / "out", taxonomy)
    assert len(out) == report.copies
    assert out.box_counts("train").tolist() == [c.copied_boxes for c in report.classes]
    images = np.zeros(57, int)
    for frame in out.frames():
        assert frame.labels is not None
        images[np.unique(frame.labels.class_ids[~frame.labels.crowd]) - 1] += 1
    assert images.tolist() == [c.copied_images for c in report.classes]
    # class 1: 9 images; class 2: 3 of 6, misses 3; class 3: 1 original, at most 3 copies, so 4 of 6: 3 copies
    # of [2, 2, 3] serve both
    one, two, three, four, five = report.classes[:5]
    assert (one.images, one.total, one.short) == (9, 9, 0)
    assert (two.images, two.boxes, two.total, two.short) == (3, 4, 6, 0)
    assert (three.images, three.total, three.short) == (1, 4, 2)
    assert (four.images, four.total, four.short) == (0, 0, 6)
    assert (five.images, five.total, five.short) == (0, 0, 6)  # its only box is a crowd's
    assert (report.copies, report.most_copies, report.proven, report.gap) == (3, 3, True, 0)


def test_effective_originals_are_kish_s(log: Log, tmp_path: Path) -> None:
    """Class 2 weighs 1, 1, 1 + 3: (1 + 1 + 4)^2 / (1 + 1 + 16) = 2; class 3 one of 4: 1; class 1: 9."""
    report = rebalance(log, tmp_path / "out", PARAMS, seed=1, workers=1)
    assert [c.effective for c in report.classes[:4]] == [9, 2, 1, 0]


def test_any_number_of_workers_writes_the_same_bytes(log: Log, tmp_path: Path) -> None:
    """One worker or three, the folders are the same, file by file; another seed gives another."""
    params = params_with(target_images=80, max_copies=30)
    for name, seed, workers in (("one", 1, 1), ("two", 1, 3), ("other", 2, 1)):
        rebalance(log, tmp_path / name, params, seed, workers=workers)
    one, two, other = (
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in ("one", "two", "other")
    )
    assert one == two
    assert set(one) != set(other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "other", "two"]


@pytest.mark.heavy
def test_processes_write_the_same_bytes_as_threads(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes make the copies of large plans, threads those of small ones, and the result is the same."""
    params = params_with(target_images=80, max_copies=30)
    rebalance(log, tmp_path / "threads", params, seed=1, workers=2)
    monkeypatch.setattr("dataset.rebalance.copies.MIN_COPIES_FOR_PROCESSES", 0)
    rebalance(log, tmp_path / "processes", params, seed=1, workers=2)
    threads, processes = (
        {p.relative_to(d): p.read_bytes() for p in d.rglob("*") if p.is_file()}
        for d in (tmp_path / "threads", tmp_path / "processes")
    )
    assert threads == processes


def test_only_labelled_training_frames_with_waste_are_copied(
    log: Log, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """No val or test frame, no background and no unlabelled frame is copied, although val has class 4."""
    rebalance(log, tmp_path / "out", params_with(target_images=100), seed=1, workers=1)
    out = Log(tmp_path / "out", taxonomy)
    sources = {frame.extra["copy_of"] for frame in out.frames()}
    fit = {f.sha256 for f in log.frames("train") if f.labels is not None and len(f.labels)}
    assert sources <= fit
    assert set(out.splits.tolist()) == {"train"}
    groups = {f.sha256: f.group for f in log.frames("train")}
    assert all(frame.group == groups[frame.extra["copy_of"]] for frame in out.frames())


def test_a_copy_says_what_it_is_of_and_keeps_the_rest(log: Log, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Copies are numbered from 1 per original, keep all extras, and are named by the hash of their JPEG."""
    rebalance(log, tmp_path / "out", params_with(target_images=30), seed=1, workers=1)
    numbers: dict[str, list[int]] = {}
    for frame in Log(tmp_path / "out", taxonomy).frames():
        original = log.frame(log.row_of[frame.extra["copy_of"]])
        numbers.setdefault(original.sha256, []).append(frame.extra["copy"])
        assert frame.extra["note"] == original.extra["note"]
        assert hashlib.sha256(frame.jpeg).hexdigest() == frame.sha256
        assert frame.image().shape == original.image().shape
        assert frame.labels is not None
        assert original.labels is not None
        for class_id, crowd, extra in zip(
            frame.labels.class_ids, frame.labels.crowd, frame.labels.extra, strict=True
        ):
            assert class_id == original.labels.class_ids[extra["item"]]
            assert crowd == original.labels.crowd[extra["item"]]
    assert all(n == list(range(1, len(n) + 1)) for n in numbers.values())
    assert max(map(len, numbers.values())) <= 3


def test_copies_with_equal_pixels_are_two_frames(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """Copies of an original with identical pixels are still distinct frames, and the counts hold."""
    frame, labels = frame_of(1, "train", [2])
    append_turn(tmp_path / "data", "made", [frame], [(frame.sha256, labels)], taxonomy)
    still = params_with(flip=1.0, translate=0, rotate=0, scale=(1, 1))
    report = rebalance(Log(tmp_path / "data", taxonomy), tmp_path / "out", still, seed=0, workers=1)
    assert report.copies == len(Log(tmp_path / "out", taxonomy)) == 3


def test_the_folder_holds_a_report_and_counts_to_plot(log: Log, tmp_path: Path) -> None:
    """report.json has what was returned; class_counts.csv a row per class, commonest first."""
    report = rebalance(log, tmp_path / "out", PARAMS, seed=1, workers=1)
    written = json.loads((tmp_path / "out/report.json").read_text())
    assert written["copies"] == report.copies
    assert written["classes"][1]["copied_images"] == report.classes[1].copied_images
    rows = list(csv.DictReader((tmp_path / "out/class_counts.csv").open()))
    assert [list(row.values()) for row in rows[:3]] == [
        ["Aluminium foil", "9", "9"],
        ["Battery", "3", "6"],
        ["Aluminium blister pack", "1", "4"],
    ]
    assert len(rows) == 57


def test_the_table_names_every_class_and_who_is_short(log: Log, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The terminal's table has a line per class and tells by how much one misses the target."""
    table = rebalance(log, tmp_path / "out", PARAMS, seed=1, workers=1).table()
    assert all(name in table for name in taxonomy.names)
    (line,) = [row for row in table.splitlines() if row.startswith("Aluminium blister pack")]
    assert line.endswith("short by 2")
    assert "proven to be the fewest" in table


def test_rebalancing_again_replaces_what_was_there(log: Log, tmp_path: Path, taxonomy: Taxonomy) -> None:
    """The output folder holds one run's result; if no class needs a copy it is an empty log, not an error."""
    rebalance(log, tmp_path / "out", PARAMS, seed=1, workers=1)
    report = rebalance(log, tmp_path / "out", params_with(target_images=1), seed=1, workers=1)
    assert report.copies == 0
    assert len(Log(tmp_path / "out", taxonomy)) == 0


def test_a_log_with_nothing_to_learn_from_is_named(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A train split without labelled frames is an error that says what to do."""
    frame, labels = frame_of(1, "val", [2])
    append_turn(tmp_path / "data", "made", [frame], [(frame.sha256, labels)], taxonomy)
    with pytest.raises(UserError, match="no labelled frame in the train split"):
        rebalance(Log(tmp_path / "data", taxonomy), tmp_path / "out", PARAMS, seed=1)


def test_the_shipped_parameters_are_the_original_project_s() -> None:
    """A fifth of translation, two degrees."""
    params = load_params("rebalance", RebalanceParams, Path(__file__).parents[3] / "params.yaml")
    assert (params.translate, params.rotate) == (0.2, 2)
