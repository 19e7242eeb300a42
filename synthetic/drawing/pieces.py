"""Small or irregular items: caps, batteries, cutlery, straws, shards, food, a shoe."""

import numpy as np

from synthetic.drawing.pen import BLACK, BRIGHT, STEEL, WHITE, Pen, curve, mirrored, oval, rect, rgb


def battery(p: Pen) -> None:
    """A round cell with its pole."""
    half = p.between(0.24, 0.3)
    p.fill(rect(-half, -0.88, half, 1, 0.05), p.pick("#1b1b1d #26262a"))
    p.fill(rect(-1, -0.9, 1, p.between(-0.45, -0.3)), p.pick("#c9803a #d4a017 #b5b9bd"), atop=True)
    p.line(np.array([[-0.1, 0.1], [0.1, 0.1]]), 0.06, WHITE, atop=True)
    p.line(np.array([[0, 0.0], [0, 0.2]]), 0.06, WHITE, atop=True)
    p.cylinder(half, 0.7)
    p.fill(rect(-0.1, -1, 0.1, -0.87), p.pick(STEEL))


def disc(p: Pen, colours: str, mark: str) -> None:
    """A cap or lid from above: ridged, crowned, with a straw cross, or of sheet metal."""
    face, ry = p.pick(colours), p.between(0.75, 1.0)
    if mark == "crown":
        a = np.linspace(0, 2 * np.pi, 84, endpoint=False)
        r = 0.93 + 0.07 * np.sign(np.sin(21 * a))
        p.fill(np.stack([r * np.cos(a), ry * r * np.sin(a)], 1), p.pick(STEEL + " #c8a951"))
        p.facets(14, 0.12)
        p.fill(oval(0, 0, 0.68, 0.68 * ry), face)
        p.fill(np.array([[0, -0.4], [0.35, 0.25], [-0.35, 0.25]]) * [1, ry], WHITE, 0.85)
        return
    p.fill(oval(0, 0, 1, ry), face, 0.55 if mark == "cross" else 1)
    if mark == "ridges":
        for a in np.linspace(0, 2 * np.pi, 30, endpoint=False):
            spoke = np.array([np.cos(a), ry * np.sin(a)])
            p.line(np.array([0.8 * spoke, 0.99 * spoke]), 0.05, BLACK, 0.4)
        p.fill(oval(0.04, 0.05, 0.76, 0.76 * ry), face * 0.8)
        p.fill(oval(0, 0, 0.72, 0.72 * ry), face)
        p.line(oval(0, 0, 0.5, 0.5 * ry, 190, 280), 0.08, WHITE, 0.6)
    elif mark == "cross":
        p.edge(0.08, face * 0.55, 0.8)
        for r in (0.82, 0.55):
            p.line(oval(0, 0, r, r * ry), 0.05, face * 0.6, 0.8)
        p.line(np.array([[-0.18, 0], [0.18, 0]]), 0.07, BLACK, 0.8)
        p.line(np.array([[0, -0.18], [0, 0.18]]), 0.07, BLACK, 0.8)
        p.line(oval(0, 0, 0.7, 0.7 * ry, 200, 250), 0.1, WHITE, 0.9)
    else:
        x, y = p.grid
        p.shade(1 + 0.22 * np.cos(4 * np.arctan2(y, x) + p.between(0, 6)))
        for r in (0.9, 0.62, 0.56):
            p.line(oval(0, 0, r, r * ry), 0.03, face * 0.5, 0.8)


def broken_glass(p: Pen) -> None:
    """A few sharp shards."""
    glass = p.pick("#3f7d4a #7a4a1e #bcd9d2")
    for _ in range(p.count(3, 5)):
        a = np.sort(p.rng.uniform(0, 2 * np.pi) + np.array([0, 1.6, 3.4]) + p.rng.uniform(0, 0.8, 3))
        shard = np.stack([np.cos(a), np.sin(a)], 1) * p.rng.uniform(0.4, 0.65, (3, 1)) + p.rng.uniform(
            -0.32, 0.32, 2
        )
        p.fill(shard, glass, 0.6)
        p.line(shard, 0.035, WHITE, 0.8, closed=True)
    p.gleam(4, 0.4, 0.03, 0.9)


def food(p: Pen) -> None:
    """A banana peel or an apple core."""
    if p.chance(0.5):  # a banana's peel
        skin = p.pick("#e2c12d #d9b32c #c9a227")
        for a in np.array([-0.9, 0.1, 1.0]) + p.rng.normal(0, 0.15, 3):
            tip = np.array([np.sin(a), np.cos(a)])
            p.line(
                curve(np.array([[0, -0.75], 0.35 * tip + [0.1, -0.2], 0.75 * tip + [0, 0.05]])),
                0.3,
                skin * p.between(0.85, 1.05),
            )
        p.line(np.array([[0, -0.95], [0, -0.65]]), 0.16, rgb("#6b4a1a"))
    else:  # an apple's core
        p.fill(curve(mirrored([(0.6, -0.75), (0.18, 0), (0.55, 0.8)]), 60, True), p.pick("#efe0a8 #e6d08c"))
        for y in (-0.72, 0.76):
            p.fill(oval(0, y, 0.6, 0.2), p.pick("#b3202a #6f9e2f"), atop=True)
        p.line(np.array([[0, -0.8], [0.1, -1]]), 0.07, rgb("#5a3a1a"))
    for _ in range(7):
        p.fill(oval(0, 0, 0.07, 0.05) + p.rng.uniform(-0.5, 0.5, 2), rgb("#5a3a1a"), 0.8, atop=True)
    p.grain(12, 0.08)


def plastic_shard(p: Pen) -> None:
    """A piece of hard plastic with ribs and holes."""
    plastic = p.pick(BRIGHT + " #e0e0e0 #303030")
    p.fill(p.blob(0.97, 0.7, 7, 0.35, smooth=False), plastic)
    for y in np.linspace(-0.6, 0.6, 4):
        p.line(np.array([[-1, y], [1, y + 0.15]]), 0.05, plastic * 0.6, 0.8, atop=True)
    for _ in range(2):
        p.cut(oval(0, 0, 0.12, 0.12) + p.rng.uniform(-0.35, 0.35, 2))
    p.edge(0.04, WHITE, 0.5)


def glove(p: Pen) -> None:
    """A thin glove."""
    skin, opacity = p.pick("#5b9bd5 #7db8e8 #cfd8dc #3a3f8f"), 0.9
    p.fill(rect(-0.42, -0.15, 0.42, 0.98, 0.2), skin, opacity)
    for x, length in ((-0.34, 0.55), (-0.12, 0.75), (0.12, 0.72), (0.34, 0.5)):
        a = 0.5 * x + p.between(-0.12, 0.12)
        p.line(np.array([[x, 0], [x + length * np.sin(a), -0.1 - length * np.cos(a)]]), 0.19, skin, opacity)
    p.line(np.array([[0.3, 0.45], [0.62, 0.05], [0.68, -0.1]]), 0.2, skin, opacity)
    p.edge(0.03, skin * 0.5, 0.6)
    p.line(np.array([[-0.42, 0.85], [0.42, 0.85]]), 0.06, skin * 0.6, atop=True)
    p.gleam(5, 0.5, 0.03, 0.5)


def utensil(p: Pen) -> None:
    """A spoon, a fork or a knife."""
    plastic = p.pick("#f7f7f5 #eeeeea #1d1d1f")
    kind = p.count(0, 2)
    p.line(np.array([[0, -0.2], [0, 0.95]]), 0.11, plastic)
    if kind == 0:
        p.fill(oval(0, -0.62, 0.22, 0.36), plastic)
        p.fill(oval(0, -0.62, 0.14, 0.26), plastic * 0.75)
    elif kind == 1:
        p.fill(rect(-0.2, -0.6, 0.2, -0.2, 0.15), plastic)
        for x in (-0.16, -0.05, 0.06, 0.16):
            p.line(np.array([[x, -0.96], [x, -0.4]]), 0.06, plastic)
    else:
        p.fill(
            curve(
                np.array([[-0.08, -0.1], [-0.1, -0.9], [0.02, -0.98], [0.14, -0.6], [0.1, -0.1]]), 40, True
            ),
            plastic,
        )
    p.line(np.array([[0, 0.0], [0, 0.85]]), 0.03, plastic * 0.7)
    p.edge(0.025, rgb("#77777a"), 0.6)


def pop_tab(p: Pen) -> None:
    """The tab of a can."""
    metal = p.pick(STEEL)
    p.fill(rect(-0.5, -1, 0.5, 1, 0.45), metal)
    p.facets(8, 0.2)
    p.cut(oval(0, -0.45, 0.26, 0.34))
    p.cut(oval(0, 0.5, 0.24, 0.2))
    p.edge(0.06, rgb("#55595e"), 0.8)
    p.line(oval(0, -0.45, 0.38, 0.46, 180, 260), 0.08, WHITE, 0.9)


def rope(p: Pen) -> None:
    """A tangle of twisted rope."""
    fibre = p.pick("#2f7fb8 #d9a441 #c9bfa5 #38a169 #e07b39")
    at = np.cumsum(p.rng.normal(0, 0.55, (p.count(6, 8), 2)), axis=0)
    at = (at - at.mean(0)) / np.abs(at - at.mean(0)).max() * 0.75
    path = curve(at, 140)
    p.line(path, 0.13, fibre * 0.55)
    p.line(path, 0.1, fibre)
    for a in path[::3]:
        p.line(np.array([a - 0.04, a + 0.04]), 0.025, fibre * 0.5)


def scrap(p: Pen) -> None:
    """Bent rusty bars with holes."""
    rust = p.pick("#7a3e1d #8a4b28 #6b4a3a #70757a")
    for a in p.rng.uniform(0, np.pi, p.count(2, 3)):
        d = np.array([np.cos(a), np.sin(a)])
        n = np.array([-d[1], d[0]])
        off = p.rng.uniform(-0.25, 0.25, 2)
        bar = (
            np.array([-0.85 * d, 0.2 * d + p.between(-0.2, 0.2) * n, 0.85 * d + p.between(-0.4, 0.4) * n])
            * 0.8
            + off
        )
        p.line(bar, 0.24, rust * p.between(0.7, 1.1))
        p.line(bar - 0.06 * n, 0.04, rgb("#a9aeb2"), 0.7)
        for t in (0.3, 0.8, 1.6):
            i = int(t)
            p.fill(oval(0, 0, 0.06, 0.06) + bar[i] + (t - i) * (bar[i + 1] - bar[i]), BLACK)
    p.grain(18, 0.22)


def shoe(p: Pen) -> None:
    """A shoe from the side."""
    upper = p.pick("#2b2b2f #7a4b2a #c0392b #2d5f8a #e8e6e0")
    top = [[-0.9, -0.1], [-0.8, -0.55], [-0.4, -0.58], [-0.25, -0.35], [0.25, -0.05], [0.82, 0.1], [0.9, 0.3]]
    p.fill(curve(np.array([*top, [0.88, 0.42], [-0.88, 0.42]]), 80, True), upper)
    p.fill(oval(-0.6, -0.5, 0.24, 0.1), BLACK)
    for i in range(4):
        x = -0.3 + 0.14 * i
        p.line(np.array([[x, -0.33 + 0.1 * i], [x + 0.14, -0.08 + 0.06 * i]]), 0.045, WHITE)
    p.fill(
        curve(np.array([[-0.5, 0.3], [0, 0.0], [0.1, 0.06], [-0.3, 0.36]]), 30, True),
        upper * 0.4 + 0.45,
        atop=True,
    )
    p.fill(rect(-0.97, 0.34, 0.97, 0.56, 0.1), p.pick("#f2f2f0 #d8d2c2 #1a1a1a"))
    p.grain(7, 0.05)


def straw(p: Pen, paper: bool) -> None:
    """A straw: plastic with a bend, or paper with slanted stripes."""
    wide = 0.13 if paper else 0.085
    bend = 0.0 if paper else p.between(0.25, 0.6) * (1 if p.chance(0.5) else -1)
    tube = p.pick("#f7f3ea #fffdf5") if paper else p.pick("#e8262c #2f80ed #27ae60 #f2c94c #202024 #ff7bac")
    path = np.array([[0, 0.96], [0, -0.4], [bend, -0.94]])
    p.line(path, wide, tube)
    if paper:
        ink = p.pick("#d8262c #1f6fc4 #2e9e4f #202020")
        for y in np.arange(-1.05, 1.05, 0.2):
            p.line(np.array([[-0.1, y + 0.09], [0.1, y - 0.09]]), 0.075, ink, atop=True)
    else:
        for y in np.linspace(-0.52, -0.28, 5):
            p.line(np.array([[-0.06, y], [0.06, y]]), 0.02, tube * 0.5)
        p.line(path[:2] - [0.02, 0], 0.025, WHITE, 0.7, atop=True)


def litter(p: Pen) -> None:
    """An item without a recognisable class: a pile of scraps."""
    p.fill(p.blob(0.95, 0.75, 11, 0.5, smooth=False), p.pick("#6e6658 #5d5a50 #857a66 #4f5548"))
    for _ in range(7):
        scrap = p.blob(p.between(0.12, 0.3), p.between(0.08, 0.2), 5, 0.4, smooth=False) + p.rng.uniform(
            -0.55, 0.55, 2
        )
        p.fill(scrap, p.pick("#3d3a33 #a89b80 #7b6f5c #586152", 0.1), 0.9, atop=True)
    p.grain(22, 0.14)


def cigarette(p: Pen) -> None:
    """A stub with filter and ash."""
    half, filt = p.between(0.11, 0.15), p.between(0.25, 0.5)
    p.fill(rect(-half, -0.98, half, 0.98, 0.05), p.pick("#f4f2ec #e9e6dc"))
    p.fill(rect(-1, filt, 1, 1), p.pick("#d08a3c #c47a2e #d99a4e"), atop=True)
    p.line(np.array([[-1, filt], [1, filt]]), 0.04, rgb("#b8862d"), atop=True)
    p.fill(rect(-1, -1, 1, p.between(-0.86, -0.7)), p.pick("#4a4745 #2f2d2c"), atop=True)
    p.cylinder(half, 0.35)
    p.grain(10, 0.05)
