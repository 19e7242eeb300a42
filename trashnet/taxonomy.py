"""The classes of waste and the stream that each belongs to, read from ``taxonomy.yaml``."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from trashnet.errors import UserError

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\n\r]*$")]
Colour = Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")]


@dataclass(frozen=True)
class WasteClass:
    """One class: a permanent id, a name, its supercategory and the stream that it is sorted into."""

    id: int
    name: str
    supercategory: str
    stream: str


@dataclass(frozen=True)
class Taxonomy:
    """All classes in the order of their ids, and the colour of each stream as ``#rrggbb``.

    Models predict a class's *index*, which is its id minus one. ``default_stream`` is where an item goes that
    no detection met; ``None`` in a taxonomy written before version 0.4, where such an item arrives nowhere
    and so is never sorted right.
    """

    classes: tuple[WasteClass, ...]
    streams: dict[str, str]
    default_stream: str | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Class names by index."""
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
    """Read and validate a taxonomy file. Raises :class:`UserError` that lists every error."""
    try:
        document = _Document.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such taxonomy. Run this where taxonomy.yaml is, or name one with --taxonomy."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    except ValidationError as error:
        faults = "\n".join(f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UserError(f"{path}: not a taxonomy:\n{faults}") from None
    stream_of = {name: stream for stream, entry in document.streams.items() for name in entry.classes}
    return Taxonomy(
        classes=tuple(WasteClass(c.id, c.name, c.supercategory, stream_of[c.name]) for c in document.classes),
        streams={stream: entry.colour for stream, entry in document.streams.items()},
        default_stream=document.default_stream,
    )


class _Class(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: int
    name: Name
    supercategory: Name


class _Stream(BaseModel):
    model_config = ConfigDict(extra="forbid")

    colour: Colour
    classes: list[Name]


class _Document(BaseModel):
    """The file's schema. Classes and streams are separate sections, so that DVC can track each by itself."""

    model_config = ConfigDict(extra="forbid")

    classes: list[_Class]
    streams: dict[Name, _Stream]
    default_stream: Name | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> "_Document":
        ids = [c.id for c in self.classes]
        names = [c.name for c in self.classes]
        sorted_names = [name for stream in self.streams.values() for name in stream.classes]
        faults = []
        if ids != list(range(1, len(ids) + 1)):
            faults.append(f"ids must be 1, 2, 3, ... in order without a gap, not {ids}")
        faults += [
            f"class {name!r} is listed twice in `classes`" for name, n in Counter(names).items() if n > 1
        ]
        faults += [
            f"class {name!r} is listed in {n} streams; an item goes to one"
            for name, n in Counter(sorted_names).items()
            if n > 1
        ]
        faults += [f"class {name!r} is in no stream" for name in names if name not in sorted_names]
        faults += [f"stream class {name!r} is not in `classes`" for name in sorted_names if name not in names]
        if self.default_stream is not None and self.default_stream not in self.streams:
            faults.append(
                f"default_stream {self.default_stream!r} is not in `streams`, which has "
                f"{', '.join(self.streams)}"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self
