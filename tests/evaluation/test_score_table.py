"""Two candidates' numbers beside each other."""

from evaluation import compare_scores

HERE, THERE = {"test_digest": 0xC0FFEE}, {"test_digest": 0xBEEF}
LAST = {"ssd_int8": {"ap": 0.10, "contamination": 0.20, "latency_median_ms": 8.0, "model_mib": 5.0} | HERE}
NOW = {
    "ssd_int8": {"ap": 0.125, "contamination": 0.25, "latency_median_ms": 8.0, "model_mib": 5.0} | HERE,
    "efficientdet": {"ap": 0.3} | HERE,
}


def test_more_is_better_for_accuracy_and_worse_for_contamination() -> None:
    """AP from 10 to 12.5 % is better by 2.5 points, contamination from 20 to 25 % worse by 5, and what stayed
    says no word.
    """
    table = compare_scores(LAST, NOW)
    assert "| AP, % | 12.5 (+2.5 better) | 30.0 |" in table
    assert "| sorting utility, of 100 | n/a | n/a |" in table, "a candidate from before 0.4 has none"
    assert "| contamination, % | 25.0 (+5.0 **worse**) | n/a |" in table
    assert "| latency, median, ms | 8.0 (+0.0) | n/a |" in table


def test_without_a_last_candidate_the_numbers_stand_alone() -> None:
    """The first candidate is compared with nothing."""
    assert "| AP, % | 12.5 | 30.0 |" in compare_scores({}, NOW)


def test_across_a_version_step_no_difference_is_shown_and_a_sentence_says_why() -> None:
    """Numbers of other frames or labels, or from before digests were kept, are not subtracted."""
    for digest in (THERE, {}):
        table = compare_scores({"ssd_int8": {"ap": 0.10} | digest}, NOW)
        assert "| AP, % | 12.5 | 30.0 |" in table
        assert "The earlier numbers of ssd_int8 are of other test frames or labels" in table
        assert "`trashnet gate CHALLENGER CHAMPION`" in table
    assert "earlier numbers" not in compare_scores(LAST, NOW)


def test_models_of_different_frames_stand_in_one_table_only_with_a_warning() -> None:
    """Two scorecards of which one is stale."""
    assert "cannot be compared" in compare_scores({}, NOW | {"efficientdet": {"ap": 0.3} | THERE})
    assert "cannot be compared" not in compare_scores({}, NOW)
