"""Faces are found in photos, and every door cuts them out alike."""

import io
import sys

import numpy as np
import pytest
import torch
from photos import POINTS, group, portrait
from PIL import Image

from modeling_pcl import PCLImageProcessor
from modeling_pcl.crop_pcl import FaceCrop
from modeling_pcl.data.images import decode_image
from modeling_pcl.detection_pcl import FaceDetector, compute_overlaps
from modeling_pcl.faces_pcl import NoFaceError, cut_faces, draw_faces

EMPTY = Image.new("RGB", (300, 200), "gray")


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(threads=1)


@pytest.fixture
def processor() -> PCLImageProcessor:
    return PCLImageProcessor(face_detector={"longest_px": 320})  # A quarter of the time.


def test_a_face_is_found_with_its_points(detector):
    (faces,) = detector([portrait()])
    assert faces.boxes.shape == (1, 4)
    assert compute_overlaps(faces.boxes[0], np.array([[180.0, 55, 272, 178]]))[0] > 0.8
    assert np.linalg.norm(faces.points[0] - POINTS, axis=1).max() < 8  # A quarter of the distance of the eyes.
    assert 0.8 < faces.scores[0] <= 1


def test_several_faces_come_the_largest_first_and_once(detector):
    (faces,) = detector([group((40, 200, 0.6), (300, 100, 1.5), (680, 150, 1.0))])
    assert len(faces) == 3
    areas = (faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1)
    assert areas.tolist() == sorted(areas.tolist(), reverse=True)
    assert faces.boxes[0, 0] > 300


def test_photos_of_all_sizes_are_searched_together_as_alone(detector):
    photos = [portrait(), group((100, 100, 1.0)), EMPTY, portrait().crop((100, 0, 400, 300)), portrait()]
    for photo, faces in zip(photos, detector(photos)):
        (alone,) = detector([photo])
        np.testing.assert_allclose(faces.boxes, alone.boxes, atol=0.01)
    assert len(detector([EMPTY])[0]) == 0
    assert detector([]) == []


def test_a_face_at_the_border_is_found_inside_the_photo(detector):
    photo = portrait().crop((215, 0, 512, 400))  # Through the left eye.
    (faces,) = detector([photo])
    assert len(faces) == 1
    assert faces.boxes[0, 0] >= 0


def test_a_tiny_face_is_left_out_by_its_side(detector):
    photo = group((300, 200, 0.35))
    (faces,) = detector([photo])
    assert len(faces) == 1
    side = (faces.boxes[0, 2:] - faces.boxes[0, :2]).min()
    assert len(FaceDetector(threads=1, min_side_px=int(side) + 2)([photo])[0]) == 0


@pytest.mark.parametrize("longest_px", [0, 100, -32])
def test_a_side_that_the_network_cannot_take_is_refused(longest_px):
    with pytest.raises(ValueError, match="`longest_px` must be a multiple of 32"):
        FaceDetector(longest_px=longest_px)


def test_weights_are_checked(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is not the expected detector: its SHA-256 is 0918"):
        FaceDetector(sha256="00")
    (tmp_path / "other.onnx").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"other.onnx` is not a network that onnxruntime can open"):
        FaceDetector(tmp_path / "other.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install modeling_pcl\[align\]"):
        FaceDetector()


def test_a_box_alone_is_cut_as_the_photo_lies(processor):
    given = processor(portrait(), boxes=[180, 58, 271, 176], return_tensors="pt")
    assert given["points"].isnan().all()
    square = portrait().crop((149, 41, 149 + 153, 41 + 153))  # 118 px and 0.15 of it on every side, in the same middle.
    assert torch.equal(given["pixel_values"], processor(square, return_tensors="pt")["pixel_values"])


def test_each_face_of_each_photo_has_its_pixels(processor):
    photos = [portrait(), group((40, 100, 1.0), (400, 100, 1.5))]
    faces = processor(photos, detect=True, return_tensors="pt")
    assert faces["pixel_values"].shape == (3, 3, 64, 64)
    assert faces["photos"].tolist() == [0, 1, 1]
    assert faces["boxes"].shape == (3, 4)
    assert faces["points"].shape == (3, 5, 2)
    assert (faces["scores"] > 0.5).all()
    for row, photo in enumerate(faces["photos"]):
        given = processor(photos[photo], boxes=faces["boxes"][row], points=faces["points"][row], return_tensors="pt")
        assert torch.equal(given["pixel_values"][0], faces["pixel_values"][row])
    largest = processor(photos, detect=True, most_faces=1, return_tensors="pt")
    assert torch.equal(largest["pixel_values"], faces["pixel_values"][:2])


def test_without_being_asked_an_image_is_a_face_crop(processor):
    assert list(processor(portrait(), return_tensors="pt")) == ["pixel_values"]


def test_a_photo_without_a_face_is_an_error_or_taken_whole_or_left_out(processor):
    photos = [portrait(), EMPTY]
    with pytest.raises(NoFaceError, match="No face is found in photo 1 of 300 x 200 px: give its `boxes`, or"):
        processor(photos, detect=True)
    assert processor(photos, detect=True, on_no_face="skip")["photos"].tolist() == [0]
    whole = processor(photos, detect=True, on_no_face="whole", return_tensors="pt")
    assert torch.equal(whole["pixel_values"][1:], processor(EMPTY, return_tensors="pt")["pixel_values"])
    assert whole["boxes"][1].tolist() == [0, 0, 300, 200]
    assert whole["scores"][1] == 0
    assert whole["points"][1].isnan().all()
    with pytest.raises(NoFaceError, match="in any of the photos"):
        processor(EMPTY, detect=True, on_no_face="skip")
    with pytest.raises(ValueError, match="`on_no_face` must be one of error, whole, skip"):
        processor(photos, detect=True, on_no_face="ignore")


def test_a_phone_photo_is_searched_upright(processor):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # Shown turned clockwise by a quarter.
    portrait().rotate(90, expand=True).save(file, "PNG", exif=exif)
    found = processor(file.getvalue(), detect=True, return_tensors="pt")
    assert torch.equal(found["pixel_values"], processor(portrait(), detect=True, return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("form", [np.asarray, lambda photo: torch.from_numpy(np.array(photo)).permute(2, 0, 1)])
def test_photos_may_be_arrays(processor, form):
    expected = processor(portrait(), detect=True, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(form(portrait()), detect=True, return_tensors="pt")["pixel_values"], expected)


def test_points_alone_say_where_a_face_is():
    processor = PCLImageProcessor(face_crop=FaceCrop("five_points", 0.3).to_dict())
    by_points = processor(portrait(), points=POINTS, return_tensors="pt")
    detected = processor(portrait(), detect=True, return_tensors="pt")
    assert (by_points["pixel_values"] - detected["pixel_values"]).abs().mean() < 0.1
    several = processor([portrait()], points=[[POINTS, POINTS + 40]], return_tensors="pt")
    assert several["photos"].tolist() == [0, 0]


def test_boxes_that_do_not_fit_the_photos_are_refused(processor):
    with pytest.raises(ValueError, match="`boxes` must hold an entry for each of 2 photos, got 1"):
        processor([portrait(), EMPTY], boxes=[[0, 0, 9, 9]])
    with pytest.raises(ValueError, match="not both"):
        processor(portrait(), detect=True, boxes=[0, 0, 9, 9])
    with pytest.raises(ValueError, match="1 `boxes` and 2 `points`"):
        cut_faces([portrait()], FaceCrop(), boxes=[[0, 0, 9, 9]], points=[[POINTS, POINTS]])


def test_the_specification_travels_with_the_processor(tmp_path):
    crop = FaceCrop("eyes", 0.4, "edge").to_dict()
    processor = PCLImageProcessor(face_crop=crop, face_detector={"min_score": 0.6})
    processor.save_pretrained(tmp_path)
    opened = PCLImageProcessor.from_pretrained(tmp_path)
    assert (opened.face_crop, opened.face_detector) == (crop, {"min_score": 0.6})
    assert PCLImageProcessor.for_image_size(96, like=tmp_path).face_crop == crop
    assert PCLImageProcessor.for_image_size(96, like="no/such_model").face_crop == FaceCrop().to_dict()


@pytest.mark.parametrize("align", ["none", "eyes", "five_points"])
def test_training_reads_the_very_pixels_of_the_processor(align):
    processor = PCLImageProcessor(face_crop={"align": align, "margin": 0.28, "padding": "black"})
    photo = group((300, 60, 1.3))
    (face,) = processor.cut_faces(photo)
    file = io.BytesIO()
    face.image.save(file, "PNG")
    trained = decode_image({"bytes": file.getvalue(), "path": None}, 64)
    used = processor(photo, detect=True, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(used, trained / 255, rtol=0, atol=1e-6)


def test_what_was_found_is_drawn(detector):
    (faces,) = detector([portrait()])
    drawn = np.asarray(draw_faces(portrait(), faces, [FaceCrop().square(faces.boxes[0])]))
    left, top = faces.boxes[0, :2].round().astype(int)
    assert (drawn[top + 20, left - 1 : left + 2] == (44, 160, 44)).all(axis=1).any()
    x, y = faces.points[0, 2].round().astype(int)
    assert tuple(drawn[y, x]) == (214, 39, 40)
