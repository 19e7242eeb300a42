"""What other rooms left under ``build/`` for the report.

Every piece may be missing, and a damaged one is named.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trashnet.errors import UserError


@dataclass(frozen=True)
class Curve:
    """One metric of one training run: ``panel`` is its name, ``series`` its split (train, val)."""

    panel: str
    series: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


def read_curves(folder: Path) -> list[Curve]:
    """A DVCLive folder's curves, by panel and series. Empty where that model was not trained here."""
    root = folder / "plots" / "metrics"
    curves = []
    for path in sorted(root.rglob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            columns = [name for name in reader.fieldnames or [] if name not in ("step", "timestamp")]
            if len(columns) != 1 or "step" not in (reader.fieldnames or []):
                raise UserError(
                    f"{path}: not a DVCLive metric (columns {reader.fieldnames}); `dvc repro` trains anew"
                )
            rows = [(float(row["step"]), float(row[columns[0]])) for row in reader]
        series = "/".join(path.relative_to(root).parent.parts) or "run"
        curves.append(Curve(columns[0], series, tuple(s for s, _ in rows), tuple(v for _, v in rows)))
    return sorted(curves, key=lambda c: (c.panel, c.series))


@dataclass(frozen=True)
class Balance:
    """One class of the train split, in images: before rebalancing, and the copies added."""

    class_id: int
    name: str
    images: int
    copies: int
    short: int


@dataclass(frozen=True)
class Rebalanced:
    """What rebalancing did."""

    target: int
    originals: int
    copies: int
    proven: bool
    classes: tuple[Balance, ...]


def read_rebalanced(path: Path) -> Rebalanced | None:
    """``build/rebalanced/report.json``, ``None`` where rebalancing was not run."""
    document = _read(path)
    if document is None:
        return None
    try:
        classes = document["classes"]
        return Rebalanced(
            int(document["target"]),
            int(document["originals"]),
            int(document["copies"]),
            bool(document["proven"]),
            tuple(
                Balance(
                    int(c["id"]), str(c["name"]), int(c["images"]), int(c["copied_images"]), int(c["short"])
                )
                for c in classes
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a rebalancing report ({error!r}). `dvc repro rebalance` writes it anew."
        ) from None


@dataclass(frozen=True)
class EdgeTpu:
    """What the EdgeTPU check found: gates as (name, passed, found) and operators as (name, version, count,
    where, why not).
    """

    model: str
    ok: bool
    gates: tuple[tuple[str, bool, str], ...]
    operators: tuple[tuple[str, int, int, str, str], ...]
    operator_count: int
    mappable: int
    compiler: str


def read_edgetpu(path: Path) -> EdgeTpu | None:
    """``build/models/edgetpu.json``, ``None`` where the check was not run."""
    document = _read(path)
    if document is None:
        return None
    try:
        compiler = document["compiler"]
        return EdgeTpu(
            Path(document["model"]).name,
            bool(document["ok"]),
            tuple((str(g["gate"]), bool(g["pass"]), str(g["found"])) for g in document["gates"]),
            tuple(
                (
                    str(o["operator"]),
                    int(o["version"]),
                    int(o["count"]),
                    str(o["where"]),
                    str(o["why_not"] or ""),
                )
                for o in document["operators"]
            ),
            int(document["operator_count"]),
            int(document["mappable"]),
            compiler if isinstance(compiler, str) else json.dumps(compiler),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not an EdgeTPU report ({error!r}). `dvc repro export_ssd` writes it anew."
        ) from None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). `dvc repro` writes it anew.") from None
