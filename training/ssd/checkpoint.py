"""A training run's state on disk, one file, written whole: after ``kill -9`` the run goes on from the last finished epoch."""

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trashnet.files import atomic_write

FILE = "state.npz"


def run_identity(parts: dict[str, Any]) -> str:
    """A digest of everything that decides how a run goes; a checkpoint of another identity is another run's."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def save_state(folder: Path, model: keras.Model, history: list[dict[str, float]]) -> None:
    """Write weights, optimizer and the metrics of every epoch done so far."""
    arrays = {f"v{n:05d}": keras.ops.convert_to_numpy(v) for n, v in enumerate(_variables(model))}
    with atomic_write(folder / FILE) as temporary, temporary.open("wb") as stream:
        np.savez(stream, history=np.array(json.dumps(history)), **arrays)


def restore_state(folder: Path, model: keras.Model) -> list[dict[str, float]]:
    """Put a saved state back into a compiled and built model; returns its history, empty if there is none."""
    path = folder / FILE
    if not path.is_file():
        return []
    with np.load(path) as saved:
        for number, variable in enumerate(_variables(model)):
            variable.assign(saved[f"v{number:05d}"])
        history: list[dict[str, float]] = json.loads(str(saved["history"]))
    return history


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]
