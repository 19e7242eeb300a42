"""What `trashnet dataset` says."""

from dataset import Log, describe


def test_the_description_adds_up(sample_log: Log) -> None:
    """Frames and boxes per split sum to the log's; every turn and every class has its line."""
    lines = describe(sample_log).splitlines()
    assert lines[0].startswith(
        f"{sample_log.root}: {len(sample_log):,} frames, {sample_log.box_counts().sum():,} boxes"
    )
    assert (
        lines[1].strip() == f"{sample_log.turns[0]}: {len(sample_log)} new frames, {len(sample_log)} labelled"
    )
    *splits, total = [int(n) for n in next(line for line in lines if line.startswith("frames")).split()[1:]]
    assert sum(splits) == total == len(sample_log)
    for one in sample_log.taxonomy.classes:
        row = next(line for line in lines if line.startswith(f"{one.name}  "))
        train, val, test, both = (int(n) for n in row.removeprefix(one.name).split())
        assert train + val + test == both == sample_log.box_counts()[one.id - 1]
