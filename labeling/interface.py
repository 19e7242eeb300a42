"""Label Studio's page for an annotator, made from ``taxonomy.yaml``: nothing in it is typed twice.

A class has its stream's colour, stands under its stream's heading, is found by typing part of its name, and
the commonest have a key.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Xml

from trashnet.taxonomy import Taxonomy

BOXES_TAG = "boxes"  # the tags' names, which stand in every answer
IMAGE_TAG = "image"
NO_WASTE_TAG = "nothing"
NO_WASTE = "No waste here"

# Label Studio shows lists without their bullets.
INSTRUCTIONS = """\
<p><b>One tight, upright box around every item.</b> \
If an item is half hidden, box the part that you can see.</p>
<p>• A model has guessed some boxes. Move and rename them, delete wrong ones, and add what is missing.</p>
<p>• Choose a class by its key, or type part of its name; then draw. \
Each colour is a stream that items are sorted into.</p>
<p>• No waste in the picture? Delete all boxes and choose <b>No waste here</b>.</p>
<p>• Not sure at all? <b>Skip</b>: somebody else gets the frame.</p>
<p>• A red line above the picture? It says why an earlier answer could not be used. \
Please correct the answer and press Update. The tab <b>Needs fixing</b> lists these pictures.</p>"""

# Keys that Label Studio's page has no use for itself, the easiest to reach first.
HOTKEYS = "1234567890qwetasdfgzxcb"
NO_WASTE_HOTKEY = "n"
SEARCH_HOTKEY = "shift+f"

STYLE = """
.trashnet {display: flex; gap: 12px; align-items: flex-start}
.trashnet-frame {flex: 1 1 auto; min-width: 0}
.trashnet-feedback {color: #c00; font-weight: 600}
.trashnet-why {color: #777; font-size: 13px}
.trashnet-panel {
  flex: 0 0 340px; position: sticky; top: 0; max-height: 88vh; overflow-y: auto; padding-right: 4px
}
.trashnet-panel .lsf-labels {display: block; margin: 0}
.trashnet-panel .lsf-label {
  font-size: 12px; min-height: 22px; line-height: 18px; padding: 1px 6px; margin: 0 3px 3px 0
}
.trashnet-stream :is(h4, h5, h6) {
  margin: 4px 0 2px 0 !important; font-size: 11px !important; text-transform: uppercase
}
"""


def label_config(taxonomy: Taxonomy, hotkeys: int, counts: Mapping[str, int] | None = None) -> str:
    """The XML of the labelling page.

    ``counts``: boxes per class name so far; the ``hotkeys`` commonest classes get a key, in the taxonomy's
    order where counts are equal.
    """
    keys = dict(zip(by_frequency(taxonomy, counts or {})[:hotkeys], HOTKEYS, strict=False))
    view = Xml.Element("View")
    Xml.SubElement(view, "Style").text = STYLE
    page = Xml.SubElement(view, "View", className="trashnet")
    _add_frame(Xml.SubElement(page, "View", className="trashnet-frame"))
    panel = Xml.SubElement(page, "View", className="trashnet-panel")
    answer = Xml.SubElement(
        panel, "Choices", name=NO_WASTE_TAG, toName=IMAGE_TAG, choice="single", showInline="true"
    )
    Xml.SubElement(answer, "Choice", value=NO_WASTE, hotkey=NO_WASTE_HOTKEY)
    Xml.SubElement(
        panel,
        "Filter",
        name="search",
        toName=BOXES_TAG,
        hotkey=SEARCH_HOTKEY,
        minlength="1",
        placeholder=f"Find a class ({SEARCH_HOTKEY})",
    )
    drawn: dict[str, Any] = {"choice": "single", "canRotate": "false", "strokeWidth": "2", "opacity": "0.15"}
    labels = Xml.SubElement(panel, "RectangleLabels", name=BOXES_TAG, toName=IMAGE_TAG, **drawn)
    for stream, colour in taxonomy.streams.items():
        group = Xml.SubElement(labels, "View", className="trashnet-stream")
        Xml.SubElement(group, "Header", value=stream, size="6")
        for waste in taxonomy.classes:
            if waste.stream == stream:
                key: dict[str, Any] = {"hotkey": keys[waste.name]} if waste.name in keys else {}
                Xml.SubElement(group, "Label", value=waste.name, background=colour, **key)
    Xml.indent(view)
    return Xml.tostring(view, encoding="unicode") + "\n"


def by_frequency(taxonomy: Taxonomy, counts: Mapping[str, int]) -> Sequence[str]:
    """Class names, those with most boxes first, in the taxonomy's order where counts are equal."""
    return sorted(taxonomy.names, key=lambda name: -counts.get(name, 0))


def _add_frame(parent: Xml.Element) -> None:
    """The picture; above it the feedback on an earlier annotation, below it why the frame was chosen."""
    Xml.SubElement(
        Xml.SubElement(parent, "View", className="trashnet-feedback"),
        "Text",
        name="feedback",
        value="$feedback",
    )
    on, off = "true", "false"
    # Boxes drawn on a rotated picture would be refused.
    controls: dict[str, Any] = {
        "zoom": on,
        "zoomControl": on,
        "brightnessControl": on,
        "contrastControl": on,
        "rotateControl": off,
    }
    Xml.SubElement(parent, "Image", name=IMAGE_TAG, value="$image", **controls)
    Xml.SubElement(Xml.SubElement(parent, "View", className="trashnet-why"), "Text", name="why", value="$why")
