"""A picture that shows the effect of a crop specification."""

from dataclasses import replace

import numpy as np
from PIL import Image

from ..crop_pcl import ALIGNMENTS, FaceCrop
from ..detection_pcl import Faces
from ..faces_pcl import cut_found_faces, draw_faces
from .style import new_figure, render_figure

MARGINS = (0.0, 0.15, 0.6)
SHOWN_PX = 200


def draw_crops(photo: Image.Image, faces: Faces, crop: FaceCrop) -> Image.Image:
    """Draw the crops of the largest face in a photo with each alignment and with several margins.

    The photo itself is drawn with the face's box (green), points (red) and square (blue).

    Args:
        photo: Upright RGB photo.
        faces: Faces in the photo, at least one.
        crop: Specification of which each example changes one value.
    """
    largest = faces[:1]
    figure = new_figure(900, 480)
    left, right = figure.subfigures(1, 2, width_ratios=(0.42, 0.58))
    axes = left.subplots()
    axes.imshow(draw_faces(photo, largest, [crop.square(largest.boxes[0], largest.points[0])]))
    axes.set_title("box, five points, and the square that is cut out", fontsize=9)
    axes.set_axis_off()
    examples = [(f'align="{align}"', replace(crop, align=align)) for align in ALIGNMENTS]
    examples += [(f"margin={margin}", replace(crop, margin=margin)) for margin in MARGINS]
    for axes, (name, example) in zip(right.subplots(2, 3).flat, examples):
        (face,) = cut_found_faces(photo, largest, example)
        axes.imshow(np.asarray(face.image.resize((SHOWN_PX, SHOWN_PX), Image.Resampling.BILINEAR)))
        axes.set_title(name, fontsize=9)
        axes.set_axis_off()
    return render_figure(figure)
