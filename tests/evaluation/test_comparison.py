"""Two models on the same frames: what the gate says of models that err as told."""

from collections.abc import Callable

import pytest

from dataset import Frames
from evaluation import ComparedModel, Comparison, EvaluationParams, compare_models
from evaluation.gate import Check, GateParams
from tests.evaluation.conftest import JitteringDetector
from tests.evaluation.drawn_gate_set import detector_maker, draw_gate_set
from trashnet.taxonomy import Taxonomy

Make = Callable[..., JitteringDetector]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory, taxonomy: Taxonomy) -> Frames:
    """The gate set."""
    return draw_gate_set(tmp_path_factory.mktemp("gate") / "data", taxonomy).frames("test")


@pytest.fixture(scope="module")
def make(frames: Frames, taxonomy: Taxonomy) -> Make:
    """Make a detector that errs on these frames as told."""
    return detector_maker(frames, taxonomy)


@pytest.fixture(scope="module")
def compare(frames: Frames, taxonomy: Taxonomy) -> Callable[..., Comparison]:
    """Compare a challenger with a champion, or with nothing."""

    def run(
        challenger: JitteringDetector,
        champion: JitteringDetector | None,
        on: Frames = frames,
        checks: tuple[Check, ...] = (),
    ) -> Comparison:
        def compared_model(detector: JitteringDetector) -> ComparedModel:
            return ComparedModel(detector.name, detector, 0.3)

        # on a machine with other work the clock says nothing about two detectors that look answers up
        gate = GateParams(max_latency_ratio=1000.0, resamples=200, flips=1000)
        rival = compared_model(champion) if champion else None
        return compare_models(
            compared_model(challenger), rival, None, on, taxonomy, EvaluationParams(), gate, 20, checks
        )

    return run


def test_a_copy_of_the_champion_does_not_block(compare: Callable[..., Comparison], make: Make) -> None:
    """Both detect the same, so no slice can have got worse and no difference is found."""
    same = {"blur": 0.05, "confuse": 0.1, "lose": 0.1, "clutter": 1}
    verdict = compare(make("copy", **same), make("copy", **same)).verdict
    assert verdict.outcome in ("passes", "holds")
    assert [f.estimate for f in verdict.findings if f.test in ("utility", "ap50")] == [0.0, 0.0]


def test_a_model_that_is_worse_on_one_class_is_blocked_and_the_class_named(
    compare: Callable[..., Comparison], make: Make, taxonomy: Taxonomy
) -> None:
    """It is better on all others; frames that show what is lost come with the verdict."""
    worst = next(c for c in range(1, 6) if taxonomy.stream_of[c] != taxonomy.default_stream)
    comparison = compare(make("challenger", lose_class=worst), make("champion", confuse=0.3))
    assert comparison.verdict.outcome == "blocks"
    harmed = [f.slice for f in comparison.verdict.findings if f.slice is not None]
    assert ("class", taxonomy.name_of[worst]) in [(one.kind, one.name) for one in harmed]
    shown = {one.slice: one.pairs for one in comparison.examples}
    champion, challenger = shown[f"class {taxonomy.name_of[worst]}"][0]
    assert champion.sha256 == challenger.sha256
    assert any(taxonomy.name_of[worst] in mistake for mistake in challenger.mistakes)


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_learnt_shuffled_labels_never_passes(
    compare: Callable[..., Comparison], make: Make, seed: int
) -> None:
    """Its boxes are right and its classes are drawn at random."""
    champion = make("champion", blur=0.05, confuse=0.2, lose=0.1)
    shuffled = make(f"shuffled {seed}", blur=0.05, confuse=1.0, lose=0.1)
    assert compare(shuffled, champion).verdict.outcome == "blocks"
    assert compare(shuffled, None).verdict.outcome != "passes"


def test_the_first_champion_must_reach_the_minima(compare: Callable[..., Comparison], make: Make) -> None:
    """A model that finds nothing but noise is blocked; a good one passes."""
    assert compare(make("untrained", lose=1.0, clutter=20), None).verdict.outcome == "blocks"
    assert compare(make("good", blur=0.02), None).verdict.outcome == "passes"


def test_without_a_frame_nothing_is_used(
    compare: Callable[..., Comparison], make: Make, frames: Frames
) -> None:
    """Before there are test frames every candidate is held, the first one too."""
    nothing = frames[:0]
    good = make("good", blur=0.02)
    assert compare(good, None, nothing).verdict.outcome == "holds"
    assert compare(good, make("champion", blur=0.02), nothing).verdict.outcome == "holds"


def test_a_limit_that_is_broken_blocks_whatever_the_frames_say(
    compare: Callable[..., Comparison], make: Make
) -> None:
    """Such as the EdgeTPU's conditions."""
    broken = Check(name="EdgeTPU conditions broken", value=1, limit=0, bound="at most")
    verdict = compare(make("good", blur=0.02), make("bad", lose=0.5), checks=(broken,)).verdict
    assert verdict.outcome == "blocks"
    assert any("EdgeTPU conditions broken" in reason for reason in verdict.reasons)
