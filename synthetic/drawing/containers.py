"""Containers: bottles, cans, cups, jars, boxes, tubs and tubes."""

import numpy as np

from synthetic.drawing.pen import BLACK, BRIGHT, STEEL, WHITE, Pen, curve, mirrored, oval, rect, rgb


def bottle(
    p: Pen, body: str, cap: str, neck: float, shoulder: float, label: str, opacity: float = 1.0, ribs: int = 0
) -> None:
    """A bottle with neck and cap; ribs and a band for a label."""
    half = p.between(0.26, 0.36)
    top = -1 + 0.14
    outline = [(neck, top), (neck, top + 0.1), (half, top + 0.1 + shoulder), (half, 0.94), (half - 0.05, 1)]
    shell = p.pick(body)
    p.fill(mirrored(outline), shell, opacity)
    p.edge(0.035, shell * 0.55, 0.75 if opacity < 1 else 0.3)
    for y in np.linspace(top + shoulder + 0.25, 0.9, ribs + 2)[1:-1]:
        p.line(oval(0, y - 0.05, half, 0.05, 10, 170), 0.025, shell * 0.7, 0.6, atop=True)
    band = top + shoulder + p.between(0.2, 0.3)
    if label:
        ink = p.pick(label)
        p.fill(rect(-1, band, 1, band + p.between(0.4, 0.6)), ink, 0.95, atop=True)
        p.fill(
            oval(0, band + 0.2, 0.5 * half, 0.11),
            WHITE if ink.mean() < 0.6 else p.pick(BRIGHT),
            0.9,
            atop=True,
        )
    p.cylinder(half, 0.35 if opacity < 1 else 0.5)
    p.fill(rect(-neck - 0.02, -1, neck + 0.02, top + 0.02, 0.03), p.pick(cap))
    if opacity < 1:
        p.line(
            np.array([[-0.55 * half, top + shoulder + 0.15], [-0.55 * half, 0.9]]),
            0.05,
            WHITE,
            0.6,
            atop=True,
        )


def can(p: Pen, half: float, taper: float, colours: str, mark: str) -> None:
    """A metal can: a tapered drink can with a swoosh or a straight food can with ribs."""
    body = p.pick(colours)
    half *= p.between(0.92, 1.08)
    p.fill(
        mirrored(
            [(half - taper, -0.9), (half, -0.9 + 1.4 * taper), (half, 0.94 - taper), (half - taper, 1.0)]
        ),
        body,
    )
    if mark == "swoosh":
        p.line(
            curve(np.array([[-half, 0.6], [-0.1, 0.1], [0.1, -0.1], [half, -0.6]])),
            p.between(0.16, 0.28),
            WHITE,
            0.9,
            atop=True,
        )
        p.fill(rect(-1, 0.86, 1, 1), p.pick(STEEL), atop=True)
    elif mark == "ribs":
        p.fill(rect(-1, -0.65, 1, 0.7), p.pick("#b8332a #3c7a3a #e3c46a #d9822b"), atop=True)
        p.fill(oval(0, 0.05, 0.55 * half, 0.3), p.pick("#f4ead0 #f0d9a0"), atop=True)
        p.fill(oval(0, 0.08, 0.3 * half, 0.17), p.pick("#c0392b #5b8c2a #8a4b20"), atop=True)
        for y in (-0.78, -0.7, 0.78, 0.86, 0.93):
            p.line(np.array([[-1, y], [1, y]]), 0.025, BLACK, 0.35, atop=True)
    p.cylinder(half, 0.55)
    p.fill(oval(0, -0.9, half - taper, 0.1), p.pick(STEEL))
    p.fill(
        oval(0, -0.89, 0.78 * (half - taper), 0.065),
        p.pick("#7d838a #6b7178") if mark == "swoosh" else rgb("#3a3d40"),
    )
    if mark == "swoosh":
        p.fill(oval(0.05, -0.89, 0.12, 0.03), p.pick("#d5d8da"))


def aerosol(p: Pen) -> None:
    """A spray can with nozzle and a hazard diamond."""
    half = p.between(0.22, 0.27)
    p.fill(
        mirrored([(0.1, -0.66), (half, -0.5), (half, 1)]), p.pick("#20409a #c02942 #1d8a5a #5a2a82 #e0e0e0")
    )
    p.fill(rect(-1, 0.9, 1, 1), p.pick(STEEL), atop=True)
    p.words(-0.6 * half, -0.25, 0.6 * half, 0.1, 3, WHITE)
    p.fill(np.array([[0, 0.28], [0.16, 0.46], [0, 0.64], [-0.16, 0.46]]), rgb("#f08a1c"), atop=True)
    p.line(np.array([[0, 0.38], [0, 0.52]]), 0.05, BLACK, atop=True)
    p.cylinder(half, 0.55)
    p.fill(rect(-0.1, -0.82, 0.1, -0.62), p.pick("#f3f3f3 #202020"))
    p.fill(rect(-0.05, -0.97, 0.12, -0.8, 0.03), p.pick("#f3f3f3 #d0d0d0"))


def cup(p: Pen, body: str, opacity: float, mark: str) -> None:
    """A cup wider at its rim, seen a little from above."""
    top, foot = p.between(0.62, 0.7), p.between(0.4, 0.47)
    shell = p.pick(body)
    p.fill(mirrored([(top, -0.8), (foot, 0.9), (0.8 * foot, 1.0)]), shell, opacity)
    if mark == "sleeve":
        p.fill(rect(-1, -0.3, 1, 0.5), p.pick("#7a5230 #8b5e3c #2f6b4f"), atop=True)
        p.fill(oval(0, 0.1, 0.2, 0.22), WHITE, 0.9, atop=True)
    elif mark == "ribs":
        for y in np.linspace(-0.4, 0.8, 7):
            p.line(oval(0, y, 0.66, 0.1, 10, 170), 0.03, WHITE, 0.5, atop=True)
        p.edge(0.04, shell * 0.6, 0.7)
    elif mark == "beads":
        p.grain(34, 0.09)
    elif mark == "bands":
        for y in (-0.25, 0.0, 0.35):
            p.line(oval(0, y, 0.66, 0.1, 0, 180), 0.05, shell * 0.6, 0.9, atop=True)
    p.cylinder(0.62, 0.3 if opacity < 1 else 0.4)
    rim = {"sleeve": 0.09, "ribs": 0.04, "beads": 0.16, "bands": 0.1}[mark]
    p.fill(
        oval(0, -0.8, top + 0.03, 0.18), WHITE if mark in ("sleeve", "bands") else shell, max(opacity, 0.6)
    )
    p.fill(
        oval(0, -0.79, top - rim, 0.18 - 0.6 * rim),
        WHITE * 0.93 if mark == "bands" else shell * 0.6,
        max(opacity, 0.5),
    )
    if mark == "sleeve" and p.chance(0.5):
        p.fill(oval(0, -0.77, top - 0.15, 0.09), rgb("#4a2c17"))


def mug(p: Pen) -> None:
    """A glass with a handle and cut sides."""
    glass = p.pick("#9fc3b8 #a9c4cf")
    p.line(oval(0.52, 0.05, 0.3, 0.42, -90, 90), 0.13, glass * 0.8, 0.75)
    p.fill(rect(-0.75, -0.85, 0.5, 0.95, 0.1), glass, 0.45)
    p.fill(rect(-0.75, 0.7, 0.5, 0.95), glass * 0.6, 0.6, atop=True)
    for x in np.linspace(-0.6, 0.35, 5):
        p.line(np.array([[x, -0.5], [x, 0.65]]), 0.05, WHITE, 0.55, atop=True)
    p.edge(0.05, glass * 0.4, 0.8)
    p.line(oval(-0.125, -0.83, 0.6, 0.1), 0.05, glass * 0.55, 0.9)


def jar(p: Pen) -> None:
    """A wide glass with a screw lid and a fruit label."""
    glass = p.pick("#c9dfd2 #d5e3dc #d9dcc2")
    p.fill(rect(-0.62, -0.68, 0.62, 1, 0.2), glass, 0.5)
    p.edge(0.05, glass * 0.5, 0.8)
    p.fill(rect(-0.62, -0.1, 0.62, 0.6), p.pick("#f5efdc #efe3c0"), 0.95, atop=True)
    p.fill(oval(0, 0.25, 0.25, 0.22), p.pick("#8e1f3a #c23b22 #6a8d3a #d98c1f"), atop=True)
    p.cylinder(0.62, 0.35)
    lid = p.pick("#c9a13b #b22a2a #e8e8e8 #2f5d3a")
    p.fill(rect(-0.58, -1, 0.58, -0.7, 0.05), lid)
    for x in np.linspace(-0.5, 0.5, 9):
        p.line(np.array([[x, -0.95], [x, -0.75]]), 0.02, BLACK, 0.3)


def box(p: Pen, front: str, mark: str) -> None:
    """A carton seen from three sides: printed, or a gable-top for drinks."""
    half, deep = p.between(0.5, 0.62), p.between(0.18, 0.26)
    face = p.pick(front)
    x1 = half - deep
    p.fill(np.array([[x1, -0.75], [half, -0.92], [half, 0.8], [x1, 1]]), face * 0.55)
    p.fill(np.array([[-half, -0.75], [-half + deep, -0.95], [half, -0.92], [x1, -0.75]]), face * 0.8)
    p.fill(rect(-half, -0.75, x1, 1), face)
    if mark == "gable":
        p.fill(
            np.array([[-half, -0.75], [-half + 0.5 * deep, -1], [half - 0.5 * deep, -1], [x1, -0.75]]),
            WHITE * 0.92,
        )
        p.fill(oval((x1 - half) / 2, 0.3, 0.28, 0.4), p.pick("#f39c12 #ffffff #e84393"), atop=True)
        p.fill(
            curve(np.array([[-half, 0.6], [-0.2, 0.75], [x1, 0.55], [x1, 1], [-half, 1]]), 50, True),
            WHITE,
            0.9,
            atop=True,
        )
        p.fill(oval(-0.05, -0.86, 0.09, 0.07), p.pick(BRIGHT))
    else:
        p.fill(rect(-half, -0.35, x1, 0.05), WHITE, 0.85, atop=True)
        p.words(-0.8 * half, -0.3, x1 - 0.1, 0.0, 2, p.pick("#202040 #7a1020"), 1)
        p.words(-0.8 * half, 0.5, x1 - 0.1, 0.85, 4, BLACK, 0.6)
    p.grain(8, 0.04)


def tube(p: Pen) -> None:
    """A cardboard tube with its spiral seam."""
    card, half = p.pick("#a58a6c #b39a7c #97805f"), p.between(0.38, 0.46)
    p.fill(mirrored([(half, -0.8), (half, 0.86), (0.6 * half, 0.98)]), card)
    for y in (-0.4, 0.15, 0.7):
        p.line(np.array([[-half, y], [half, y - 0.35]]), 0.025, card * 0.6, 0.9, atop=True)
    p.cylinder(half, 0.45)
    p.fill(oval(0, -0.8, half, 0.19), card * 1.1)
    p.fill(oval(0, -0.79, half - 0.06, 0.14), card * 0.35)


def meal_carton(p: Pen) -> None:
    """A folded take-away carton with a wire handle."""
    card = p.pick("#f4f1ea #efe9dc")
    p.line(oval(0, -0.55, 0.62, 0.42, 180, 360), 0.035, rgb("#80858a"))
    p.fill(mirrored([(0.85, -0.5), (0.55, 0.98)]), card)
    p.fill(np.array([[-0.85, -0.5], [-0.4, -0.75], [0.4, -0.75], [0.85, -0.5], [0, -0.25]]), card * 0.85)
    p.line(np.array([[-0.85, -0.5], [0, -0.22], [0.85, -0.5]]), 0.03, card * 0.6)
    ink = p.pick("#c0202a", 0.08)
    p.fill(np.array([[0, 0.0], [0.25, 0.22], [-0.25, 0.22]]), ink)
    p.fill(rect(-0.18, 0.25, 0.18, 0.4), ink)
    p.fill(np.array([[0, 0.35], [0.32, 0.6], [-0.32, 0.6]]), ink)
    p.grain(7, 0.04)


def tub(p: Pen) -> None:
    """A yellow tub with a lid, from the side."""
    tub = p.pick("#f3d431 #f5e27a #f7f3e3")
    p.fill(mirrored([(0.9, -0.35), (0.72, 0.62), (0.6, 0.7)]), tub)
    p.fill(oval(0, 0.15, 0.55, 0.26), p.pick("#2e7d32 #1f5fb0"), atop=True)
    p.words(-0.4, 0.05, 0.4, 0.25, 1, WHITE, 1)
    p.cylinder(0.9, 0.3)
    p.fill(rect(-0.97, -0.6, 0.97, -0.32, 0.08), tub * 0.92)
    p.line(np.array([[-0.9, -0.36], [0.9, -0.36]]), 0.03, tub * 0.6)


def tupperware(p: Pen) -> None:
    """A box with a coloured lid and four clips, from above."""
    lid = p.pick("#2a9d8f #e76f51 #457b9d #8ac926")
    for x, y, rx, ry in (
        (0, -0.93, 0.2, 0.06),
        (0, 0.93, 0.2, 0.06),
        (-0.76, 0, 0.06, 0.25),
        (0.76, 0, 0.06, 0.25),
    ):
        p.fill(rect(x - rx, y - ry, x + rx, y + ry), lid * 0.65)
    p.fill(rect(-0.72, -0.9, 0.72, 0.9, 0.2), lid)
    p.fill(rect(-0.52, -0.7, 0.52, 0.7, 0.15), rgb("#dfeaf0"), 0.75)
    p.line(rect(-0.62, -0.8, 0.62, 0.8, 0.18), 0.03, lid * 0.6, closed=True)
    p.gleam(3, 0.7, 0.05, 0.7)


def tray(p: Pen) -> None:
    """A black tray with three compartments and leftovers."""
    tray = p.pick("#1e1e20 #26262a")
    p.fill(rect(-0.72, -1, 0.72, 1, 0.2), tray)
    p.edge(0.05, rgb("#8a8a8e"), 0.9)
    for x0, y0, x1, y1 in ((-0.6, -0.88, 0.6, -0.05), (-0.6, 0.05, -0.05, 0.88), (0.05, 0.05, 0.6, 0.88)):
        p.fill(rect(x0, y0, x1, y1, 0.12), tray * 2.2)
        p.line(rect(x0, y0, x1, y1, 0.12), 0.03, BLACK, closed=True)
    for _ in range(p.count(2, 6)):
        p.fill(
            p.blob(0.15, 0.1, 6, 0.4) + p.rng.uniform(-0.5, 0.5, 2),
            p.pick("#b5651d #8a9a3a #d9a441"),
            0.9,
            atop=True,
        )


def clamshell(p: Pen) -> None:
    """A foam box, open, both halves."""
    foam = p.pick("#f3f3ee #ecece6")
    for y in (-0.5, 0.5):
        p.fill(rect(-0.72, y - 0.47, 0.72, y + 0.47, 0.16), foam)
        p.fill(rect(-0.52, y - 0.3, 0.52, y + 0.3, 0.12), foam * 0.82, atop=True)
        p.line(rect(-0.52, y - 0.3, 0.52, y + 0.3, 0.12), 0.04, foam * 0.62, closed=True)
    p.line(np.array([[-0.6, 0], [0.6, 0]]), 0.06, foam * 0.6)
    p.grain(45, 0.05)


def canister(p: Pen) -> None:
    """A canister with a handle hole, cap and label."""
    body = p.pick("#3366aa #f0f0ea #3a3a3a #c0392b #2c8c5a")
    p.fill(rect(-0.68, -0.72, 0.68, 1, 0.15), body)
    p.cut(rect(-0.3, -0.5, 0.5, -0.25, 0.1))
    p.line(rect(-0.3, -0.5, 0.5, -0.25, 0.1), 0.05, body * 0.5, closed=True)
    p.fill(rect(-0.45, 0.05, 0.45, 0.7, 0.04), p.pick("#f7f7f7 #f3dc6b"), atop=True)
    p.words(-0.35, 0.12, 0.35, 0.6, 4, BLACK)
    p.fill(rect(-0.6, -0.95, -0.2, -0.7, 0.05), p.pick("#d8262c #202020 #f2b705"))
    p.cylinder(0.8, 0.25)


def squeezable(p: Pen) -> None:
    """A tube: crimped at one end, capped at the other."""
    tube = p.pick("#f5f5f5 #e8f1f8 #fbe9ef")
    p.fill(
        np.array([[-0.46, -1], [0.46, -1], [0.46, -0.88], [0.24, 0.7], [-0.24, 0.7], [-0.46, -0.88]]), tube
    )
    for x in np.linspace(-0.42, 0.42, 13):
        p.line(np.array([[x, -1], [x, -0.88]]), 0.02, rgb("#8a8f94"), 0.9)
    stripe = p.pick("#d8262c #1f6fc4 #2e9e4f")
    p.fill(np.array([[-0.5, -0.6], [0.5, -0.3], [0.5, 0.0], [-0.5, -0.3]]), stripe, atop=True)
    p.words(-0.2, 0.1, 0.2, 0.5, 3, stripe)
    p.cylinder(0.5, 0.35)
    p.fill(rect(-0.2, 0.7, 0.2, 1, 0.04), stripe)
