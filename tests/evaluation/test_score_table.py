"""Two candidates' numbers beside each other."""

from evaluation import compare_scores

LAST = {"ssd_int8": {"ap": 0.10, "contamination": 0.20, "latency_median_ms": 8.0, "model_mib": 5.0}}
NOW = {
    "ssd_int8": {"ap": 0.125, "contamination": 0.25, "latency_median_ms": 8.0, "model_mib": 5.0},
    "efficientdet": {"ap": 0.3},
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
