"""The state of a training run in one file, from which a killed run resumes after its last finished epoch."""

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trashnet.files import atomic_write

STATE_FILE = "state.npz"


def run_digest(inputs: dict[str, Any]) -> str:
    """A digest of all that decides the result of a run; only an equal run may resume from its checkpoint."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


def save_state(folder: Path, model: keras.Model, history: list[dict[str, float]]) -> None:
    """Write the weights, the optimizer and the metrics of every finished epoch."""
    arrays = {f"v{i:05d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(model))}
    with atomic_write(folder / STATE_FILE) as temporary, temporary.open("wb") as stream:
        np.savez(stream, history=np.array(json.dumps(history)), **arrays)


def restore_state(folder: Path, model: keras.Model) -> list[dict[str, float]]:
    """Restore a saved state into a compiled and built model.

    Returns:
        The metrics of its epochs, empty where nothing was saved.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return []
    with np.load(path) as saved:
        for index, variable in enumerate(_variables(model)):
            variable.assign(saved[f"v{index:05d}"])
        history: list[dict[str, float]] = json.loads(str(saved["history"]))
    return history


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]
