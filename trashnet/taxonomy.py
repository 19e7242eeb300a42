"""The classes of waste and the stream each belongs to, read from ``taxonomy.yaml``."""

from functools import cached_property
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from trashnet.errors import UserError

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\n\r]*$")]
Colour = Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")]


class WasteClass(BaseModel):
    """One class: a permanent id, a name, its supercategory and the stream it is sorted into."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    name: Name
    supercategory: Name
    stream: Name


class Taxonomy(BaseModel):
    """All classes in the order of their ids; a class's *index* (0-based) is what models predict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    streams: dict[Name, Colour]
    classes: tuple[WasteClass, ...]

    @model_validator(mode="after")
    def _ids_are_1_to_n_and_names_unique(self) -> "Taxonomy":
        ids = [c.id for c in self.classes]
        if ids != list(range(1, len(ids) + 1)):
            raise ValueError(f"ids must be 1, 2, 3, ... in order with no hole, not {ids}")
        names = [c.name for c in self.classes]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"each name may stand once; {', '.join(twice)} stands twice")
        if unknown := sorted({c.stream for c in self.classes} - set(self.streams)):
            raise ValueError(f"unknown stream {', '.join(unknown)}; `streams` lists {', '.join(self.streams)}")
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Class names by index; index ``i`` is id ``i + 1``."""
        return tuple(c.name for c in self.classes)

    @cached_property
    def id_of(self) -> dict[str, int]:
        """Class id by name."""
        return {c.name: c.id for c in self.classes}

    @cached_property
    def name_of(self) -> dict[int, str]:
        """Class name by id."""
        return {c.id: c.name for c in self.classes}

    @cached_property
    def stream_of(self) -> dict[int, str]:
        """Stream by class id."""
        return {c.id: c.stream for c in self.classes}


def load_taxonomy(path: Path = Path("taxonomy.yaml")) -> Taxonomy:
    """Read and check a taxonomy file. Raises :class:`UserError` that lists every fault."""
    try:
        return Taxonomy.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path}: no such taxonomy. Run this where taxonomy.yaml is, or name one with --taxonomy.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    except ValidationError as error:
        faults = "\n".join(f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path}: not a taxonomy:\n{faults}") from None
