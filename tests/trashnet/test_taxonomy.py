"""taxonomy.yaml and what is read from it."""

from pathlib import Path

import pytest
import yaml

from trashnet.errors import UserError
from trashnet.taxonomy import Taxonomy, load_taxonomy


def test_the_shipped_taxonomy_has_57_classes_each_in_one_of_four_streams(taxonomy: Taxonomy) -> None:
    """57 classes; recycling, organics, landfill and special."""
    assert len(taxonomy.classes) == 57
    assert (
        set(taxonomy.stream_of.values())
        == set(taxonomy.streams)
        == {"recycling", "organics", "landfill", "special"}
    )


def test_released_ids_keep_their_meaning(taxonomy: Taxonomy) -> None:
    """Labels hold these ids, so each keeps its name for ever; new classes are appended after 57."""
    assert taxonomy.names[:57] == tuple(RELEASED.strip().splitlines())


def test_an_index_is_an_id_minus_one(taxonomy: Taxonomy) -> None:
    """Models predict indices; the id of `names[i]` is i + 1."""
    assert [taxonomy.id_of[name] for name in taxonomy.names] == list(range(1, 58))
    assert taxonomy.name_of[taxonomy.id_of["Battery"]] == "Battery"
    assert taxonomy.stream_of[taxonomy.id_of["Battery"]] == "special"


BASE = {
    "classes": [
        {"id": 1, "name": "Can", "supercategory": "Metal"},
        {"id": 2, "name": "Peel", "supercategory": "Food"},
    ],
    "streams": {
        "recycling": {"colour": "#0000ff", "classes": ["Can"]},
        "organics": {"colour": "#00ff00", "classes": ["Peel"]},
    },
}


def write(folder: Path, document: object) -> Path:
    """A taxonomy file with this content."""
    path = folder / "taxonomy.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_a_valid_file_loads(tmp_path: Path) -> None:
    """Two classes, two streams."""
    assert load_taxonomy(write(tmp_path, BASE)).names == ("Can", "Peel")


def test_the_default_stream_may_be_left_out(tmp_path: Path, taxonomy: Taxonomy) -> None:
    """A taxonomy from before version 0.4 has none; the shipped one sends what nobody met to landfill."""
    assert load_taxonomy(write(tmp_path, BASE)).default_stream is None
    assert load_taxonomy(write(tmp_path, BASE | {"default_stream": "organics"})).default_stream == "organics"
    assert taxonomy.default_stream == "landfill"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"classes": [BASE["classes"][1]]}, "ids must be 1, 2, 3"),
        (
            {"classes": [BASE["classes"][0], {"id": 2, "name": "Can", "supercategory": "Metal"}]},
            "'Can' is listed twice",
        ),
        ({"streams": {"recycling": {"colour": "#0000ff", "classes": ["Can"]}}}, "'Peel' is in no stream"),
        (
            {"streams": {"recycling": {"colour": "#0000ff", "classes": ["Can", "Peel", "Can"]}}},
            "'Can' is listed in 2 streams",
        ),
        (
            {"streams": {"recycling": {"colour": "#0000ff", "classes": ["Can", "Peel", "Tin"]}}},
            "'Tin' is not in `classes`",
        ),
        (
            {"streams": {"recycling": {"colour": "blue", "classes": ["Can", "Peel"]}}},
            "streams.recycling.colour",
        ),
        ({"colours": {}}, "colours"),
        ({"default_stream": "landfill"}, "default_stream 'landfill' is not in `streams`"),
    ],
)
def test_an_invalid_file_is_refused_and_the_error_is_named(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    """The message names each error and the file."""
    path = write(tmp_path, BASE | change)
    with pytest.raises(UserError) as caught:
        load_taxonomy(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_or_unreadable_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """No traceback for a wrong folder or a broken file."""
    with pytest.raises(UserError, match="--taxonomy"):
        load_taxonomy(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("classes: [", encoding="utf-8")
    with pytest.raises(UserError, match="not YAML"):
        load_taxonomy(broken)


RELEASED = """
Aluminium foil
Battery
Aluminium blister pack
Other plastic bottle
Clear plastic bottle
Glass bottle
Plastic bottle cap
Metal bottle cap
Broken glass
Food Can
Aerosol
Drink can
Toilet tube
Other carton
Egg carton
Drink carton
Corrugated carton
Meal carton
Pizza box
Paper cup
Disposable plastic cup
Foam cup
Glass cup
Other plastic cup
Food waste
Glass jar
Plastic lid
Metal lid
Other plastic
Magazine paper
Tissues
Wrapping paper
Normal paper
Paper bag
Plastic film
Six pack rings
Garbage bag
Other plastic wrapper
Single-use carrier bag
Crisp packet
Spread tub
Tupperware
Disposable food container
Foam food container
Other plastic container
Plastic glooves
Plastic utensils
Pop tab
Rope & strings
Scrap metal
Shoe
Squeezable tube
Plastic straw
Paper straw
Styrofoam piece
Unlabeled litter
Cigarette
"""
