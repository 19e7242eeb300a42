"""Files that are either whole or not there."""

from pathlib import Path

import pytest

from trashnet.files import atomic_write, write_json, write_text


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    """Until the block ends the name does not exist; then it does, and nothing else is left in the folder."""
    path = tmp_path / "new" / "result.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert [p.name for p in path.parent.iterdir()] == ["result.txt"]


def test_a_failure_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    """What was there before stays, and the half-written file is gone."""
    path = tmp_path / "result.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="power cut"), atomic_write(path) as temporary:
        temporary.write_text("hal")
        raise RuntimeError("power cut")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result.txt"]


def test_json_has_no_word_for_nan(tmp_path: Path) -> None:
    """A NaN is refused rather than written as something other programs cannot read."""
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"map": float("nan")})
    assert not (tmp_path / "a.json").exists()
