"""The picture of a crop specification shows what is cut out."""

import numpy as np
from photos import POINTS, portrait
from PIL import Image

from modeling_pcl.crop_pcl import FaceCrop
from modeling_pcl.detection_pcl import Faces
from modeling_pcl.pictures import crops
from modeling_pcl.pictures.crops import draw_crops


def test_every_alignment_and_margin_is_cut_out_of_the_largest_face(monkeypatch):
    cut = []
    monkeypatch.setattr(
        crops, "cut_found_faces", lambda photo, faces, crop: cut.append((len(faces), crop)) or found(photo, faces, crop)
    )
    from modeling_pcl.faces_pcl import cut_found_faces as found

    boxes = np.array([[180, 58, 271, 176], [10, 10, 30, 30]], np.float32)
    faces = Faces(boxes, np.stack([POINTS, POINTS]).astype(np.float32), np.ones(2, np.float32))
    picture = draw_crops(portrait(), faces, FaceCrop("eyes", 0.15))
    assert isinstance(picture, Image.Image)
    assert [count for count, _ in cut] == [1] * 6
    assert [crop.align for _, crop in cut] == ["none", "eyes", "five_points", "eyes", "eyes", "eyes"]
    assert [crop.margin for _, crop in cut] == [0.15, 0.15, 0.15, 0.0, 0.15, 0.6]
