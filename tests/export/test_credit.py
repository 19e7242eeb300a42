"""Which of my frames fixed what: new labels beside what changed, in the judgement and on its page."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.support.memory_store import MemoryStore
from dataset import Log
from export import (
    GateCriteria,
    Judgement,
    judge_candidate,
    load_judgement,
    load_judgement_page,
    override,
    remove_pictures,
)
from export.credit import SliceCredit
from tests.dataset.test_gate_set import RANDOM, UNSURE
from tests.evaluation.drawn_gate_set import append_drawn_turn
from tests.export.test_judgement import publish
from trashnet.taxonomy import Taxonomy

FIRST, SECOND, THIRD = {100: [1, 3]}, {101: [2, 2, 1], 102: [2]}, {103: [2], 104: [4]}


@pytest.fixture
def log(criteria: GateCriteria, tmp_path: Path, taxonomy: Taxonomy) -> Log:
    """The gate set's turn, and three turns of frames that were trained on."""
    root = tmp_path / "data"
    shutil.copytree(criteria.gate_set.frames[0:1]._logs[0].root, root)
    append_drawn_turn(root, taxonomy, "first", "train", FIRST, UNSURE)
    append_drawn_turn(root, taxonomy, "second", "train", SECOND, UNSURE)
    append_drawn_turn(root, taxonomy, "third", "train", THIRD, RANDOM)
    return Log(root, taxonomy)


def credit_of(judgement: Judgement, name: str) -> SliceCredit:
    """Of the class of this name."""
    return next(
        one
        for one in judgement.models["teacher"].credit
        if (one.change.kind, one.change.name) == ("class", name)
    )


def judge_after(criteria: GateCriteria, log: Log, folder: Path, store: MemoryStore) -> Judgement:
    """A champion that is blind to class 2, trained on two turns; then a challenger that sees it, on four."""
    champion = publish(store, folder, "blind to class 2", 2, log.turns[:2])
    override(store, champion.version, ["teacher"], by="ann", reason="to begin with")
    challenger = publish(store, folder, "good", 4, log.turns)
    return judge_candidate(store, challenger, replace(criteria, log=log))


def test_a_class_that_was_fixed_names_the_turns_with_its_new_labels(
    criteria: GateCriteria, log: Log, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """All 36 items of class 2 were lost and none is now; of four new boxes the second turn brought three."""
    judgement = judge_after(criteria, log, tmp_path, MemoryStore())
    fixed = credit_of(judgement, taxonomy.name_of[2])
    assert (fixed.change.before, fixed.change.after, fixed.change.boxes) == (0.0, 1.0, 36)
    assert fixed.change.moved
    assert [(turn.turn, turn.boxes) for turn in fixed.turns] == [(log.turns[2], 3), (log.turns[3], 1)]
    assert fixed.turns[0].chosen == {"uploaded by its bin, chosen for its score": 2}
    assert fixed.turns[1].chosen == {"drawn at random": 1}
    names = log.column("sha256")
    assert [log.column("file_name")[names.index(sha256)] for sha256 in fixed.frames] == [
        "101.jpg",
        "102.jpg",
        "103.jpg",
    ]
    untouched = credit_of(judgement, taxonomy.name_of[3])
    assert (untouched.change.moved, untouched.turns, untouched.frames) == (False, (), ())


def test_credit_is_kept_and_shown(
    criteria: GateCriteria, log: Log, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """The judgement in the store has it; page and text say what moved, and the page shows frames."""
    store = MemoryStore()
    judgement = judge_after(criteria, log, tmp_path, store)
    assert load_judgement(store, judgement.challenger) == judgement
    text, page = judgement.credit_markdown(), load_judgement_page(store, judgement).decode()
    said = f"Class {taxonomy.name_of[2]}: 100 % of its 36 items are recognised as what they are, 0 % before"
    assert said in text
    assert said in page
    assert f"turn {log.turns[2]} brought 3 boxes on 2 frames" in text
    sha256 = credit_of(judgement, taxonomy.name_of[2]).frames[0]
    assert sha256[:12] in text
    assert page.count('alt="newly labelled frame"') >= 3
    assert "what it won" in page


def test_a_first_champion_has_all_labels_and_no_before(
    criteria: GateCriteria, log: Log, tmp_path: Path, taxonomy: Taxonomy
) -> None:
    """There is nothing to compare with, so nothing moved."""
    store = MemoryStore()
    first = publish(store, tmp_path, "good", 1, log.turns)
    judgement = judge_candidate(store, first, replace(criteria, log=log))
    credit = credit_of(judgement, taxonomy.name_of[1])
    assert (credit.change.before, credit.change.moved) == (None, False)
    assert [turn.boxes for turn in credit.turns] == [1, 1]
    assert "No slice moved" in judgement.credit_markdown()


def test_a_log_that_lacks_turns_gives_no_credit_and_says_so(
    criteria: GateCriteria, log: Log, tmp_path: Path
) -> None:
    """The verdict does not depend on it."""
    store = MemoryStore()
    first = publish(store, tmp_path, "good", 1, ["00099-elsewhere-0123456789ab"])
    judgement = judge_candidate(store, first, replace(criteria, log=log))
    assert judgement.outcome == "passes"
    assert judgement.models["teacher"].credit == ()
    assert "no turn 00099-elsewhere-0123456789ab" in judgement.credit_markdown()
    assert "no turn 00099-elsewhere-0123456789ab" in load_judgement_page(store, judgement).decode()


def test_a_judgement_from_before_credit_opens(criteria: GateCriteria, tmp_path: Path) -> None:
    """It says that nothing is known, and how to get it."""
    store = MemoryStore()
    judgement = judge_candidate(store, publish(store, tmp_path, "good", 1), criteria)
    old = judgement.model_dump(mode="json")
    for one in old["models"].values():
        del one["credit"], one["no_credit"]
    assert "judges it anew" in Judgement.model_validate(old).credit_markdown()


def test_a_withdrawn_frame_leaves_the_page(criteria: GateCriteria, log: Log, tmp_path: Path) -> None:
    """Its pictures are gone wherever it was shown, all others stay; the second time nothing is left."""
    store = MemoryStore()
    judgement = judge_after(criteria, log, tmp_path, store)
    before = load_judgement_page(store, judgement).decode()
    names = log.column("sha256")
    shown = [name for name in names if f'title="{name}"' in before]
    trained = names[log.column("file_name").index("101.jpg")]
    judged = next(name for name in shown if name in names[:60])
    expected = before.count(f'title="{trained}"') + before.count(f'title="{judged}"')
    assert expected >= 1 + 2  # as a new label, and before and after for each slice that it shows
    assert remove_pictures(store, [trained, judged]) == expected
    after = load_judgement_page(store, judgement).decode()
    assert after.count("<img") == before.count("<img") - expected
    assert after.count("This frame was withdrawn.") == expected
    assert remove_pictures(store, [trained, judged]) == 0
