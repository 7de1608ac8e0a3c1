"""Photos with faces that may be shown: NASA's portrait of Eileen Collins, in the public domain, out of scikit-image."""

import numpy as np
from PIL import Image
from skimage import data

# Of `portrait`, as a person sees them: eyes, nose, corners of the mouth.
POINTS = np.array([[203.5, 101], [247, 103.5], [224, 128], [204.5, 140.5], [243, 142]])


def portrait() -> Image.Image:
    """512 x 512 px, one face of 90 x 118 px in its upper middle."""
    return Image.fromarray(data.astronaut())


def group(*places: tuple[int, int, float], size: tuple[int, int] = (900, 500)) -> Image.Image:
    """A scene with the portrait's head pasted at each `(left, top, scale)`."""
    head = portrait().crop((130, 0, 330, 220))
    scene = Image.fromarray(np.tile(np.linspace(60, 200, size[0]).astype(np.uint8), (size[1], 1))).convert("RGB")
    for left, top, scale in places:
        scene.paste(head.resize((round(head.width * scale), round(head.height * scale))), (left, top))
    return scene
