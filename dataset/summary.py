"""A summary of the dataset log: frames per turn and split, boxes per class and split."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset.frame import SPLITS, Split
from dataset.gate_set import gate_versions, read_gate_set
from dataset.log import Log
from dataset.splits.params import SplitParams
from dataset.turn_files import COMPACTED, WITHDRAWN, name_of_turn, read_withdrawn


def describe(log: Log) -> str:
    """Format turns, frames per split, and boxes per class and split (no crowds), commonest class first."""
    turns = [f"  {turn}: {_describe_turn(log, turn)}" for turn in log.turns]
    labelled = {split: len(log.frames(split)) for split in SPLITS}
    frames = {split: int((log.splits == split).sum()) for split in SPLITS}
    boxes = {split: log.box_counts(split) for split in SPLITS}
    total = np.sum([boxes[split] for split in SPLITS], axis=0)
    classes = sorted(log.taxonomy.classes, key=lambda c: (-total[c.id - 1], c.id))
    width = max(len(c.name) for c in classes)
    head = "  ".join([f"{'boxes':{width}}", *(f"{split:>7}" for split in SPLITS), f"{'all':>7}"])
    rows = [
        "  ".join(
            [
                f"{c.name:{width}}",
                *(f"{boxes[split][c.id - 1]:7,}" for split in SPLITS),
                f"{total[c.id - 1]:7,}",
            ]
        )
        for c in classes
    ]
    return "\n".join(
        [
            f"{log.root}: {len(log):,} frames, {total.sum():,} boxes, {len(log.turns)} turns",
            *turns,
            *(f"  {_describe_gate_set(log, version)}" for version in gate_versions(log.root)),
            "  ".join(
                [f"{'frames':{width}}", *(f"{frames[split]:7,}" for split in SPLITS), f"{len(log):7,}"]
            ),
            "  ".join(
                [
                    f"{'of them labelled':{width}}",
                    *(f"{labelled[s]:7,}" for s in SPLITS),
                    f"{sum(labelled.values()):7,}",
                ]
            ),
            head,
            *rows,
        ]
    )


def describe_shortfall(log: Log, split: SplitParams) -> str | None:
    """A sentence where val or test has less than half of its wanted frames; ``None`` where both have."""
    labelled = {name: len(log.frames(name)) for name in SPLITS}
    total = sum(labelled.values())
    wanted: dict[Split, float] = {"val": split.val, "test": split.test}
    short = [
        f"{name} has {labelled[name]} of {total} labelled frames, and {share:.0%} are wanted"
        for name, share in wanted.items()
        if labelled[name] < share * total / 2
    ]
    if not short:
        return None
    return (
        f"{'; '.join(short)}: val and test come from exploration frames alone. Let bins upload more frames "
        "at random, or raise selection.exploration_share"
    )


def _describe_gate_set(log: Log, version: str) -> str:
    gate = read_gate_set(log, version)
    kinds = ", ".join(f"{count:,} {origin}" for origin, count in sorted(Counter(gate.origins).items()))
    left = f"; {len(gate.left)} left since" if gate.left else ""
    return f"{version}: {len(gate.frames):,} frames to judge models on ({kinds}){left}"


def _describe_turn(log: Log, turn: str) -> str:
    if name_of_turn(turn) == WITHDRAWN:
        table = read_withdrawn(log.root, [turn])
        reasons = sorted(set(table["reason"].to_pylist()))
        return f"{table.num_rows:,} frames withdrawn: {'; '.join(reasons)}"
    if name_of_turn(turn) == COMPACTED:
        return "files rewritten without withdrawn frames"
    return f"{_new_frames(log, turn):,} new frames, {_labelled(log, turn):,} labelled"


def _new_frames(log: Log, turn: str) -> int:
    with pa.memory_map(str(log.root / "frames" / f"{turn}.arrow")) as source:
        reader = pa.ipc.open_file(source)
        return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))


def _labelled(log: Log, turn: str) -> int:
    return int(pq.read_metadata(log.root / "labels" / f"{turn}.parquet").num_rows)
