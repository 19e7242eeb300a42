"""Sheets and wrappers: paper, board, film, bags, packets, foil and foam."""

import numpy as np

from synthetic.drawing.pen import BLACK, BROWN, WHITE, Pen, curve, oval, rect, rgb, zigzag


def sheet(p: Pen, colours: str, mark: str) -> None:
    """A page: print, a magazine, or wrapping paper with stars."""
    aspect = p.between(0.66, 0.8)
    corner = p.rng.uniform(-0.06, 0.06, (4, 2))
    page = rect(-aspect, -0.96, aspect, 0.96) + corner
    paper = p.pick(colours)
    p.fill(page, paper)
    if mark == "text":
        p.words(-0.8 * aspect, -0.75, 0.8 * aspect, 0.75, p.count(9, 12), p.pick("#303038 #2b3f78"), 0.7)
    elif mark == "magazine":
        p.fill(rect(-1, -1, 1, p.between(-0.75, -0.6)), p.pick("#d11b3c #f4c20d #111111"), atop=True)
        p.fill(
            rect(-0.85 * aspect, -0.5, 0.85 * aspect, 0.25),
            p.pick("#d99a6c #6fa8dc #7fb069 #b07aa1"),
            atop=True,
        )
        p.fill(oval(p.between(-0.2, 0.2), -0.1, 0.25, 0.3), p.pick("#7a4a2b #f0d0b0 #2c3e50"), atop=True)
        p.words(-0.85 * aspect, 0.35, -0.05, 0.9, 5, BLACK)
        p.words(0.05, 0.35, 0.85 * aspect, 0.9, 5, BLACK)
    else:
        ink = p.pick("#f7e26b #ffffff #c9a227")
        for i, j in np.ndindex(6, 8):
            at = (-0.85 + i * 0.34 + 0.17 * (j % 2), -0.9 + j * 0.26)
            star = np.stack(
                [
                    f(np.linspace(0, 2 * np.pi, 10, endpoint=False)) * np.tile([0.11, 0.045], 5)
                    for f in (np.sin, np.cos)
                ],
                1,
            )
            p.fill(star + at, ink, atop=True)
    p.facets(p.count(4, 9), 0.05)
    p.line(
        np.array([[-1, p.between(-0.4, 0.4)], [1, p.between(-0.4, 0.4)]]), 0.03, paper * 0.6, 0.5, atop=True
    )


def tissue(p: Pen) -> None:
    """A soft crumpled tissue."""
    p.fill(p.blob(0.95, 0.85, 13, 0.45), p.pick("#f6f4f0 #efeeec", 0.02))
    for _ in range(9):
        fold = curve(p.rng.uniform(-0.7, 0.7, (3, 2)), 20)
        p.line(fold, 0.07, rgb("#c6c3bd"), 0.5, atop=True)
        p.line(fold + 0.05, 0.05, WHITE, 0.7, atop=True)
    p.grain(9, 0.05)


def foil(p: Pen) -> None:
    """Crumpled foil: many hard facets."""
    p.fill(p.blob(0.97, 0.85, 17, 0.35, smooth=False), p.pick("#b9bec4 #a9aeb5 #c6cacd"))
    p.facets(p.count(35, 60), 0.3)
    p.gleam(8, 0.4, 0.05, 0.9)


def film(p: Pen) -> None:
    """Clear film: nearly transparent, with bright streaks."""
    p.fill(p.blob(0.97, 0.9, 12, 0.45), p.pick("#e4eef2 #dfe7ea #f2f2ee"), p.between(0.3, 0.42))
    p.edge(0.04, WHITE, 0.7)
    p.gleam(20, 0.9, 0.035, 0.75)


def garbage_bag(p: Pen) -> None:
    """A tied dark bag."""
    bag = p.pick("#17181b #1d2430 #20242a #16301f")
    p.fill(p.blob(0.9, 0.75, 10, 0.22) + np.array([0, 0.24]), bag)
    p.facets(18, 0.2)
    p.fill(np.array([[-0.12, -0.35], [-0.35, -0.98], [0, -0.8], [0.3, -1], [0.12, -0.35]]), bag * 1.3)
    p.line(np.array([[-0.14, -0.42], [0.14, -0.42]]), 0.08, p.pick("#d8262c #f2b705"))
    p.gleam(13, 0.6, 0.03, 0.5)


def carrier_bag(p: Pen) -> None:
    """A thin bag with two handles and a logo."""
    bag = p.pick("#f0f2f3 #e8edf0 #cfe4f5 #f6d7dd")
    wide = p.between(0.62, 0.74)
    for side in (-1, 1):
        p.fill(rect(side * wide * 0.95, -1, side * wide * 0.45, 0, 0.1), bag, 0.85)
    p.fill(
        curve(
            np.array(
                [[-wide, -0.4], [0, -0.25], [wide, -0.4], [wide * 0.92, 0.9], [0, 0.86], [-wide * 0.95, 0.9]]
            ),
            60,
            True,
        ),
        bag,
        0.88,
    )
    ink = p.pick("#d8262c #1f6fc4 #2e9e4f")
    p.fill(oval(0, 0.2, 0.36, 0.24), ink, 0.85, atop=True)
    p.words(-0.3, 0.5, 0.3, 0.7, 1, ink)
    p.facets(14, 0.07)
    p.gleam(7, 0.9, 0.03, 0.5)


def paper_bag(p: Pen) -> None:
    """A kraft bag with a toothed top and handles."""
    kraft = p.pick(BROWN)
    for x in (-0.25, 0.25):
        p.line(oval(x, -0.72, 0.17, 0.26, 180, 360), 0.05, kraft * 0.6)
    p.fill(np.concatenate([zigzag((-0.62, -0.72), (0.62, -0.72), 11, -0.05), [[0.66, 1], [-0.66, 1]]]), kraft)
    p.fill(np.array([[0.62, -0.72], [0.4, -0.5], [0.42, 0.8], [0.66, 1]]), kraft * 0.7, atop=True)
    p.line(np.array([[-0.66, 0.7], [0.42, 0.7]]), 0.03, kraft * 0.55, 0.8, atop=True)
    p.facets(9, 0.06)


def packet(p: Pen, colours: str, mark: str) -> None:
    """A crimped packet: of crisps, or a candy wrapper."""
    half = p.between(0.62, 0.72) if mark == "crisp" else p.between(0.3, 0.38)
    wrap = p.pick(colours)
    teeth = 14 if mark == "crisp" else 7
    sides = [[half * 0.93, 0.0]]
    top, foot = (
        zigzag((-half, -0.94), (half, -0.94), teeth, -0.06),
        zigzag((half, 0.94), (-half, 0.94), teeth, -0.06),
    )
    p.fill(np.concatenate([top, sides, foot, [[-half * 0.93, 0.0]]]), wrap)
    if mark == "crisp":
        p.fill(oval(0, -0.1, 0.45, 0.36), p.pick("#ffd400 #ffffff"), atop=True)
        p.words(-0.3, -0.25, 0.3, 0.05, 1, p.pick("#b01020 #0b3d91"), 1)
        p.fill(p.blob(0.3, 0.17, 8, 0.3) + np.array([0.1, 0.5]), rgb("#e9b44c"), atop=True)
    else:
        for x in np.linspace(-half, half, 4)[:-1]:
            p.fill(
                np.array([[x, -0.6], [x + 0.09, -0.6], [x + 0.24, 0.6], [x + 0.15, 0.6]]),
                WHITE,
                0.9,
                atop=True,
            )
    for y in (-0.86, -0.8, 0.8, 0.86):
        p.line(np.array([[-1, y], [1, y]]), 0.025, rgb("#e6e6e6"), 0.7, atop=True)
    p.facets(16, 0.14)
    p.gleam(6, 0.6, 0.04, 0.6)


def rings(p: Pen) -> None:
    """Six rings of clear plastic."""
    plastic = p.pick("#eef3f5 #dfe8ec #f4f4f4")
    for i, j in np.ndindex(2, 3):
        p.line(oval(-0.33 + 0.66 * i, -0.62 + 0.62 * j, 0.3, 0.29), p.between(0.07, 0.1), plastic, 0.85)
    p.edge(0.025, plastic * 0.5, 0.5)


def corrugated(p: Pen) -> None:
    """Torn corrugated board with its flutes."""
    board = p.pick("#b88d57 #ad8350 #c29a66")
    wide = p.between(0.68, 0.85)
    p.fill(
        np.concatenate([[[-wide, -0.95], [wide, -0.9]], zigzag((wide, 0.7), (-wide, 0.95), 9, 0.09)]), board
    )
    for x in np.arange(-0.95, 0.95, 0.11):
        p.line(np.array([[x, -1], [x, 1]]), 0.03, board * 0.72, 0.75, atop=True)
    p.fill(rect(-1, -0.18, 1, 0.02), p.pick("#d9c39a #c9b48c"), 0.75, atop=True)
    p.facets(6, 0.07)


def pizza_box(p: Pen) -> None:
    """A square box with a pizza printed on it, and grease."""
    card = p.pick("#d8c3a0 #e9e2d4 #c7ab80")
    p.fill(rect(-0.97, -0.95, 0.97, 0.95, 0.04), card)
    p.line(rect(-0.85, -0.83, 0.85, 0.83), 0.03, card * 0.65)
    p.fill(oval(0, 0, 0.62, 0.62), p.pick("#b3261e #a8321f"))
    p.fill(oval(0, 0, 0.52, 0.52), p.pick("#e8b04a #f0c060"))
    for a in np.arange(5) * 1.257 + p.between(0, 1):
        p.fill(oval(0.3 * np.cos(a), 0.3 * np.sin(a), 0.1, 0.1), rgb("#a8241c"))
    for _ in range(4):
        p.fill(p.blob(0.2, 0.15, 7, 0.4) + p.rng.uniform(-0.8, 0.8, 2), card * 0.6, 0.35, atop=True)


def egg_carton(p: Pen) -> None:
    """Grey pulp with two rows of bumps."""
    pulp = p.pick("#8f918c #a3a49c #9a8f80 #7c8791")
    rows = p.count(3, 4)
    p.fill(rect(-0.6, -1, 0.6, 1, 0.12), pulp)
    for i, j in np.ndindex(2, rows):
        at = (-0.28 + 0.56 * i, -1 + (2 * j + 1) / rows)
        p.fill(oval(at[0] + 0.03, at[1] + 0.03, 0.25, 0.8 / rows), pulp * 0.5, 0.9)
        p.fill(oval(*at, 0.22, 0.72 / rows), pulp * 1.12)
        p.fill(oval(at[0] - 0.07, at[1] - 0.07, 0.09, 0.25 / rows), WHITE, 0.3)
    p.grain(40, 0.06)


def blister(p: Pen) -> None:
    """A blister pack; some pills are missing."""
    p.fill(rect(-0.5, -1, 0.5, 1, 0.1), p.pick("#c3c8cc #b4babf"))
    p.facets(12, 0.1)
    pill = p.pick("#f7f7f5 #f2a8b8 #f4e08a #e8764a")
    for i, j in np.ndindex(2, 5):
        at = (-0.23 + 0.46 * i, -0.76 + 0.38 * j)
        p.fill(oval(*at, 0.17, 0.14), rgb("#70767c"))
        if p.chance(0.8):
            p.fill(oval(*at, 0.14, 0.11), pill)
        p.line(oval(*at, 0.1, 0.07, 190, 270), 0.04, WHITE, 0.9)


def styrofoam(p: Pen) -> None:
    """A broken block of beads."""
    foam = p.pick("#f8f8f5 #f1f2f0", 0.02)
    block = p.blob(0.95, 0.72, 6, 0.28, smooth=False)
    p.fill(block + np.array([0.06, 0.08]), foam * 0.62)
    p.fill(block, foam)
    for _ in range(130):
        p.line(
            oval(0, 0, 0.055, 0.055, n=8) + p.rng.uniform(-0.95, 0.95, 2),
            0.015,
            rgb("#b9bcbb"),
            0.7,
            atop=True,
        )
