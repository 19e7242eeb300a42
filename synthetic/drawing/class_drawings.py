"""The drawing of each class: a function (bottle, cup, sheet, ...) with its colours, material and marks."""

import zlib
from collections.abc import Callable
from functools import partial

from synthetic.drawing import containers, pieces, sheets
from synthetic.drawing.pen import BRIGHT, ICE, STEEL, Pen

Draw = Callable[[Pen], None]
# Long sides as fractions of the frame's; within a class they vary by a quarter.
SMALL, MIDDLE, LARGE = 0.17, 0.31, 0.43

CLASS_DRAWINGS: dict[str, tuple[float, Draw]] = {
    "Aluminium foil": (MIDDLE, sheets.foil),
    "Battery": (SMALL, pieces.battery),
    "Aluminium blister pack": (0.24, sheets.blister),
    "Other plastic bottle": (
        LARGE,
        partial(
            containers.bottle,
            body="#f2f2f2 #2f6fd0 #f0c020 #e86aa6",
            cap="#d8262c #2b2b2b #ffffff",
            neck=0.1,
            shoulder=0.45,
            label=BRIGHT,
        ),
    ),
    "Clear plastic bottle": (
        LARGE,
        partial(
            containers.bottle,
            body=ICE,
            cap=BRIGHT,
            neck=0.1,
            shoulder=0.4,
            label="#1f6fc4 #d8262c #2e9e4f",
            opacity=0.5,
            ribs=7,
        ),
    ),
    "Glass bottle": (
        LARGE,
        partial(
            containers.bottle,
            body="#2f6b3a #5a3515 #3b5a2a",
            cap="#c8a951 #9aa1a8",
            neck=0.085,
            shoulder=0.62,
            label="#f3ead2 #d9c9a0",
            opacity=0.85,
        ),
    ),
    "Plastic bottle cap": (SMALL, partial(pieces.disc, colours=BRIGHT + " #f5f5f5", mark="ridges")),
    "Metal bottle cap": (
        SMALL,
        partial(pieces.disc, colours="#b01c2e #14532d #1d3f8f #c8a951", mark="crown"),
    ),
    "Broken glass": (0.25, pieces.broken_glass),
    "Food Can": (0.28, partial(containers.can, half=0.66, taper=0.03, colours=STEEL, mark="ribs")),
    "Aerosol": (0.4, containers.aerosol),
    "Drink can": (
        0.33,
        partial(
            containers.can,
            half=0.5,
            taper=0.1,
            colours="#c8102e #0057b8 #2e9e4f #1c1c1c #f5811f",
            mark="swoosh",
        ),
    ),
    "Toilet tube": (0.25, containers.tube),
    "Other carton": (
        0.34,
        partial(containers.box, front="#d94f70 #4a7fb5 #e0a030 #7fb069 #8e6bbf", mark="print"),
    ),
    "Egg carton": (0.36, sheets.egg_carton),
    "Drink carton": (0.38, partial(containers.box, front="#1f6fc4 #2e9e4f #0f8fa8", mark="gable")),
    "Corrugated carton": (LARGE, sheets.corrugated),
    "Meal carton": (0.33, containers.meal_carton),
    "Pizza box": (LARGE, sheets.pizza_box),
    "Paper cup": (0.29, partial(containers.cup, body="#f7f5f0 #efeae0", opacity=1.0, mark="sleeve")),
    "Disposable plastic cup": (0.29, partial(containers.cup, body=ICE, opacity=0.42, mark="ribs")),
    "Foam cup": (0.29, partial(containers.cup, body="#f7f7f4 #eeeeea", opacity=1.0, mark="beads")),
    "Glass cup": (0.29, containers.mug),
    "Other plastic cup": (
        0.29,
        partial(containers.cup, body="#c41e3a #1f4fa3 #d97a1f #3a8f4d", opacity=1.0, mark="bands"),
    ),
    "Food waste": (0.28, pieces.food),
    "Glass jar": (0.3, containers.jar),
    "Plastic lid": (0.22, partial(pieces.disc, colours="#eef2f4 #dfe8ec", mark="cross")),
    "Metal lid": (0.22, partial(pieces.disc, colours="#c9a13b #b8bdc2 #d6b65a", mark="sheen")),
    "Other plastic": (0.23, pieces.plastic_shard),
    "Magazine paper": (0.36, partial(sheets.sheet, colours="#f2efe8 #e7eef5", mark="magazine")),
    "Tissues": (0.28, sheets.tissue),
    "Wrapping paper": (0.36, partial(sheets.sheet, colours="#b3123a #14633e #27408b #8e2a8b", mark="stars")),
    "Normal paper": (0.36, partial(sheets.sheet, colours="#fbfbf8 #f3f3ee", mark="text")),
    "Paper bag": (0.41, sheets.paper_bag),
    "Plastic film": (0.38, sheets.film),
    "Six pack rings": (0.33, sheets.rings),
    "Garbage bag": (0.45, sheets.garbage_bag),
    "Other plastic wrapper": (
        0.26,
        partial(sheets.packet, colours="#7a1f5c #d8262c #e07b00 #3d2314 #1f6fc4", mark="candy"),
    ),
    "Single-use carrier bag": (LARGE, sheets.carrier_bag),
    "Crisp packet": (
        0.33,
        partial(sheets.packet, colours="#d8262c #1f6fc4 #2e9e4f #e8641b #6a2c91", mark="crisp"),
    ),
    "Spread tub": (0.28, containers.tub),
    "Tupperware": (0.32, containers.tupperware),
    "Disposable food container": (0.36, containers.tray),
    "Foam food container": (0.38, containers.clamshell),
    "Other plastic container": (0.35, containers.canister),
    "Plastic glooves": (0.32, pieces.glove),
    "Plastic utensils": (0.3, pieces.utensil),
    "Pop tab": (0.13, pieces.pop_tab),
    "Rope & strings": (0.31, pieces.rope),
    "Scrap metal": (0.33, pieces.scrap),
    "Shoe": (0.4, pieces.shoe),
    "Squeezable tube": (0.29, containers.squeezable),
    "Plastic straw": (0.36, partial(pieces.straw, paper=False)),
    "Paper straw": (0.36, partial(pieces.straw, paper=True)),
    "Styrofoam piece": (0.26, sheets.styrofoam),
    "Unlabeled litter": (0.23, pieces.litter),
    "Cigarette": (0.19, pieces.cigarette),
}


def drawing_of_class(name: str) -> tuple[float, Draw]:
    """Return a class's long side, as a fraction of the frame's, and its drawing function.

    A class without a drawing gets that of another class, always the same one.
    """
    if name in CLASS_DRAWINGS:
        return CLASS_DRAWINGS[name]
    return list(CLASS_DRAWINGS.values())[zlib.crc32(name.encode()) % len(CLASS_DRAWINGS)]
