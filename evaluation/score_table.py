"""Two models' headline numbers beside each other."""

from collections.abc import Mapping

DIGEST = "test_digest"  # in a scorecard's headline: of the frames and labels that it was measured on
DIFFERENT_TRUTHS = (
    "These scorecards are of different test data and cannot be compared: `dvc repro` makes them anew."
)
Numbers = Mapping[str, float | int | None]

# Name in a scorecard's headline, name for people, factor, unit, +1 where more is better.
_ROWS = (
    ("ap", "AP", 100, "%", 1),
    ("ap50", "AP50", 100, "%", 1),
    ("utility", "sorting utility, of 100", 100, "", 1),
    ("sorting_accuracy", "sorting accuracy", 100, "%", 1),
    ("contamination", "contamination", 100, "%", -1),
    ("missed", "items missed", 100, "%", -1),
    ("latency_median_ms", "latency, median", 1, "ms", -1),
    ("model_mib", "size", 1, "MiB", -1),
)


def compare_scores(before: Mapping[str, Numbers], after: Mapping[str, Numbers]) -> str:
    """A Markdown table of every model in ``after``: its number, and how far it has come since ``before`` (by
    model, may be empty).

    Numbers of other test frames or labels are not compared; a sentence below the table says so.
    """
    comparable = {
        model: before[model]
        for model, numbers in after.items()
        if model in before and _same_truth(before[model], numbers)
    }
    lines = ["| | " + " | ".join(after) + " |", "|---" * (len(after) + 1) + "|"]
    for key, name, factor, unit, better in _ROWS:
        cells = [
            _cell(comparable.get(model, {}).get(key), numbers.get(key), factor, better)
            for model, numbers in after.items()
        ]
        lines.append(f"| {name}{', ' if unit else ''}{unit} | " + " | ".join(cells) + " |")
    refused = [model for model in after if model in before and model not in comparable]
    if refused:
        lines += [
            "",
            f"The earlier numbers of {', '.join(refused)} are of other test frames or labels, or nobody "
            "knows of which, so no difference is shown. `trashnet gate CHALLENGER CHAMPION` judges two "
            "candidates on the same frames.",
        ]
    if len({numbers[DIGEST] for numbers in after.values() if numbers.get(DIGEST) is not None}) > 1:
        lines += ["", DIFFERENT_TRUTHS]
    return "\n".join(lines)


def _same_truth(one: Numbers, other: Numbers) -> bool:
    return one.get(DIGEST) is not None and one.get(DIGEST) == other.get(DIGEST)


def _cell(before: float | None, after: float | None, factor: int, better: int) -> str:
    if after is None:
        return "n/a"
    if before is None:
        return f"{factor * after:.1f}"
    gained = factor * (after - before)
    verdict = "" if abs(gained) < 0.05 else " better" if gained * better > 0 else " **worse**"
    return f"{factor * after:.1f} ({gained:+.1f}{verdict})"
