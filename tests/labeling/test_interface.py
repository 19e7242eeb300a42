"""The labelling page's XML: complete, and made from the taxonomy."""

from collections import Counter
from xml.etree import ElementTree as Xml

import pytest
from label_studio_sdk.label_interface import LabelInterface

from labeling import label_config
from labeling.interface import HOTKEYS, NO_WASTE_HOTKEY
from trashnet.taxonomy import Taxonomy


def test_every_class_is_offered_once_under_its_stream_and_in_its_colour(taxonomy: Taxonomy) -> None:
    """The groups of the page are the streams of the taxonomy."""
    page = Xml.fromstring(label_config(taxonomy, 10))
    offered = {}
    for group in page.findall(".//RectangleLabels/View"):
        header = group.find("Header")
        assert header is not None
        for label in group.findall("Label"):
            offered[label.attrib["value"]] = (header.attrib["value"], label.attrib["background"])
    assert offered == {c.name: (c.stream, taxonomy.streams[c.stream]) for c in taxonomy.classes}
    assert len(page.findall(".//Label")) == 57


def test_the_commonest_classes_have_hotkeys_and_no_hotkey_is_used_twice(taxonomy: Taxonomy) -> None:
    """The commonest class has the first hotkey."""
    page = Xml.fromstring(label_config(taxonomy, 3, {"Cigarette": 900, "Shoe": 20, "Battery": 100}))
    keys = {
        label.attrib["hotkey"]: label.attrib["value"]
        for label in page.findall(".//Label")
        if "hotkey" in label.attrib
    }
    assert keys == {"1": "Cigarette", "2": "Battery", "3": "Shoe"}
    assert max(Counter(HOTKEYS + NO_WASTE_HOTKEY).values()) == 1


def test_equal_counts_leave_the_taxonomys_order(taxonomy: Taxonomy) -> None:
    """Without a dataset the keys are the first classes'."""
    page = Xml.fromstring(label_config(taxonomy, 2))
    assert [label.attrib["value"] for label in page.findall(".//Label") if "hotkey" in label.attrib] == [
        "Aluminium foil",
        "Battery",
    ]


def test_a_page_without_hotkeys_is_allowed(taxonomy: Taxonomy) -> None:
    """``hotkeys: 0`` gives no label a hotkey."""
    assert "hotkey" not in {
        name
        for label in Xml.fromstring(label_config(taxonomy, 0)).findall(".//Label")
        for name in label.attrib
    }


@pytest.mark.parametrize("hotkeys", [0, 23])
def test_label_studio_itself_takes_the_page_and_knows_its_labels(taxonomy: Taxonomy, hotkeys: int) -> None:
    """The parser that the server checks pre-labels with finds all 57 in their groups."""
    page = LabelInterface(label_config(taxonomy, hotkeys))
    page.validate()
    assert set(page.get_control("boxes").labels) == set(taxonomy.names)
