"""Write the sample faces of the Space: python hub_cards/space/make_samples.py

Draws eight invented people, who show no real person, in three poses each from ellipsoids; the files are the same every
time. Also copies NASA's portrait of an astronaut from scikit-image. samples/LICENSE states their licenses.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from modeling_pcl.pictures.heads import Ellipsoid, draw_head

FOLDER = Path(__file__).parent / "samples"
SIDE_PX, OVERSAMPLING = 128, 4
POSES = {"left": (-32, 4, -3), "front": (2, -3, 1), "right": (30, 6, 4)}  # Yaw, pitch, roll in degrees.
SKINS = [(243, 208, 182), (224, 178, 142), (189, 134, 98), (146, 97, 68), (104, 68, 49), (236, 190, 160)]
HAIRS = [(60, 40, 30), (28, 24, 24), (150, 100, 55), (205, 170, 105), (120, 60, 35), (150, 150, 152)]
SHIRTS = [(92, 122, 158), (158, 104, 98), (98, 140, 110), (142, 122, 168), (188, 158, 96), (72, 82, 98)]
PAPERS = [(236, 240, 244), (222, 230, 224), (240, 232, 222), (226, 222, 236)]


def shade(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    return tuple(int(min(255, value * factor)) for value in colour)


def invent(generator: np.random.Generator) -> list[Ellipsoid]:
    """Invent a person: colours of skin and hair, proportions, and the shape of the mouth."""

    def vary(value: float, share: float = 0.1) -> float:
        return value * (1 + share * generator.uniform(-1, 1))

    skin, hair = SKINS[generator.integers(len(SKINS))], HAIRS[generator.integers(len(HAIRS))]
    width, smile = vary(0.72, 0.07), generator.uniform(-0.03, 0.09)
    nose, lips, ear = (
        shade(skin, 0.92),
        tuple((np.array(skin) * 0.55 + (70, 18, 22)).astype(int).tolist()),
        shade(skin, 0.9),
    )
    parts = [
        Ellipsoid((0, 0, 0), (width, 1, 0.82), skin),
        Ellipsoid((0, vary(0.19, 0.4), 0.15), (width + 0.05, 0.98, 0.86), hair),
        Ellipsoid((0, -0.13, -0.85), (vary(0.1, 0.2), vary(0.18, 0.2), vary(0.17, 0.25)), nose),
        Ellipsoid((0, -0.43, -0.71), (vary(0.16), vary(0.045, 0.2), 0.07), lips),
        Ellipsoid((0, -1.2, 0.15), (0.36, 0.5, 0.36), shade(skin, 0.86), is_fixed=True),
        Ellipsoid((0, -1.95, 0.2), (1.3, 0.6, 0.5), SHIRTS[generator.integers(len(SHIRTS))], is_fixed=True),
    ]
    apart, high, open_ = vary(0.27, 0.08), vary(0.16, 0.15), vary(0.075, 0.25)
    iris = [(70, 50, 35), (60, 85, 110), (70, 90, 65)][generator.integers(3)]
    brow = vary(0.03, 0.3)
    for side in (-1, 1):
        parts += [
            Ellipsoid(((width + 0.02) * side, -0.02, 0.05), (0.11, 0.2, 0.13), ear),
            Ellipsoid((apart * side, high, -0.73), (0.13, open_, 0.05), (250, 250, 248)),
            Ellipsoid((apart * side, high, -0.765), (0.065, 0.065, 0.04), iris),
            Ellipsoid((apart * side, high, -0.79), (0.03, 0.03, 0.03), (20, 20, 22)),
            Ellipsoid((apart * side, high + 0.17, -0.71), (0.16, brow, 0.06), shade(hair, 0.9)),
            Ellipsoid((0.17 * side, -0.43 + smile, -0.685), (0.06, 0.03, 0.06), lips),
        ]
    if generator.random() < 0.5:  # Long hair behind the face and on both sides.
        parts += [Ellipsoid((0, -0.35, 0.35), (width + 0.22, 1.05, 0.55), hair)]
    elif generator.random() < 0.4:  # A beard.
        parts += [Ellipsoid((0, -0.52, -0.1), (width - 0.08, 0.47, 0.64), shade(hair, 0.85))]
    return parts


def main():
    FOLDER.mkdir(exist_ok=True)
    Image.fromarray(data.astronaut()).save(FOLDER / "astronaut.jpg", quality=90)
    for number in range(8):
        generator = np.random.default_rng(number)
        person, paper = invent(generator), PAPERS[generator.integers(len(PAPERS))]
        for name, (yaw, pitch, roll) in POSES.items():
            yaw, pitch, roll = np.array((yaw, pitch, roll)) + generator.uniform(-6, 6, 3)
            picture = Image.fromarray(draw_head(yaw, pitch, roll, SIDE_PX * OVERSAMPLING, person, paper))
            picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS).save(FOLDER / f"person{number + 1}-{name}.png")


if __name__ == "__main__":
    main()
