"""``params.yaml``: each room declares the section that it reads, and DVC tracks the same file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from trashnet.errors import UserError
from trashnet.files import atomic_write

# Keys that were renamed in version 0.2: old name -> new name.
RENAMED_KEYS = {
    "import.near_duplicate_distance": "split.group_hash_distance",
    "import.val": "split.val",
    "import.test": "split.test",
    "ingest.batch": "ingest.batch_size",
    "ingest.duplicate_distance": "ingest.reencode_hash_distance",
    "ingest.duplicate_levels": "ingest.reencode_colour_distance",
    "labeling.import_batch": "labeling.import_batch_size",
    "labeling.overlap_seconds": "labeling.cursor_overlap_seconds",
    "labeling.smallest_side": "labeling.min_box_side",
    "labeling.least_agreement": "labeling.min_agreement",
    "triage.budget": "selection.budget",
    "triage.audit": "selection.exploration_share",
    "triage.floor": "selection.min_score",
    "triage.stand_by": "selection.confidence_threshold",
    "triage.iou": "selection.match_iou",
    "triage.undecided_boxes": "selection.uncertain_boxes",
    "triage.rare_share": "selection.rare_share",
    "triage.uncertainty": "selection.uncertainty_weight",
    "triage.disagreement": "selection.disagreement_weight",
    "triage.rarity": "selection.rarity_weight",
    "triage.pool": "selection.candidates_per_task",
    "triage.base": "selection.diversity_bonus",
    "triage.alike_levels": "selection.similarity_scale",
    "triage.same_burst": "selection.same_burst_discount",
    "triage.batch": "selection.batch_size",
    "triage.threads": "selection.threads",
    "flywheel.shard": "ingest.shard_size",
    "flywheel.grow_at": "growth.min_frames",
    "flywheel.retrain_at": "retraining.min_new_frames",
    "flywheel.turn_frames": "growth.max_frames",
}


class Params(BaseModel):
    """A room's section of ``params.yaml``: frozen.

    An unknown key is an error, so that a misspelt one cannot be ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


Section = TypeVar("Section", bound=Params)


def load_params(section: str, model: type[Section], path: Path = Path("params.yaml")) -> Section:
    """Read one section of a parameter file into its model.

    Raises :class:`UserError` that lists every error, or every key that has a new name.
    """
    value = _read_section(section, path)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        messages = [f"  {'.'.join(map(str, [section, *e['loc']]))}: {e['msg']}" for e in error.errors()]
        raise UserError("\n".join([f"{path}: bad parameters:", *messages])) from None


def load_seed(path: Path = Path("params.yaml")) -> int:
    """Read the seed that all stages share, an integer from 0 to 2**32 - 1."""
    seed = _read_section("seed", path)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise UserError(f"{path}: `seed` must be a whole number from 0 to 2**32 - 1, not {seed!r}")
    return seed


def set_params(changes: Mapping[str, str], path: Path = Path("params.yaml")) -> None:
    """Change values of a parameter file, each named by its dotted key, and keep the file's comments.

    A value is read as YAML: ``12``, ``none``, ``[0.8, 1.2]``. Raises :class:`UserError` for a key that the
    file does not have.
    """
    from ruamel.yaml import YAML

    yaml_with_comments = YAML()
    yaml_with_comments.width = 1 << 16  # never fold a line
    try:
        document = yaml_with_comments.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such parameter file. Run this where params.yaml is, or name one with --params."
        ) from None
    for key, value in changes.items():
        *sections, name = key.split(".")
        values = document
        for section in sections:
            values = values.get(section) if isinstance(values, dict) else None
        if not isinstance(values, dict) or name not in values:
            hint = f"; it is `{RENAMED_KEYS[key]}` now" if key in RENAMED_KEYS else ""
            raise UserError(f"{path}: there is no `{key}` to set{hint}")
        values[name] = yaml_with_comments.load(value)
    with atomic_write(path) as temporary:
        yaml_with_comments.dump(document, temporary)


def _read_section(section: str, path: Path) -> Any:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such parameter file. Run this where params.yaml is, or name one with --params."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    if isinstance(document, dict):
        _refuse_renamed_keys(document, path)
    if not isinstance(document, dict) or section not in document:
        raise UserError(f"{path}: section `{section}` is missing")
    return document[section]


def _refuse_renamed_keys(document: Mapping[str, Any], path: Path) -> None:
    present = {
        f"{section}.{key}"
        for section, values in document.items()
        if isinstance(values, dict)
        for key in values
    }
    if renamed := [f"  `{old}` is `{new}` now" for old, new in RENAMED_KEYS.items() if old in present]:
        raise UserError(
            f"{path}: some keys have new names; rename them and run this again:\n" + "\n".join(renamed)
        )
