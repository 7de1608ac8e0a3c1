"""Faces of a video are followed within a shot."""

import numpy as np
import pytest
from PIL import Image

from modeling_pcl.data.alignment.tracking import FaceTracker, Track
from modeling_pcl.detection_pcl import Faces

FRAME, OTHER = Image.new("RGB", (320, 240), (40, 90, 200)), Image.new("RGB", (320, 240), (200, 40, 40))


def make_faces(*centres: tuple[float, float], side: float = 40) -> Faces:
    boxes = np.array([[x - side / 2, y - side / 2, x + side / 2, y + side / 2] for x, y in centres], np.float32)
    return Faces(boxes.reshape(-1, 4), np.zeros((len(centres), 5, 2), np.float32), np.ones(len(centres), np.float32))


def track_numbers(tracker: FaceTracker, frame: Image.Image, faces: Faces, time_s: float) -> list[int]:
    return [track.number for track in tracker.follow(frame, faces, time_s)]


def test_two_people_keep_their_numbers_whatever_their_order():
    tracker = FaceTracker()
    for step in range(10):
        first, second = (60 + 4 * step, 100), (250 - 4 * step, 110)
        faces = make_faces(first, second) if step % 2 else make_faces(second, first)
        assert track_numbers(tracker, FRAME, faces, 0.2 * step) == ([2, 1] if step % 2 else [1, 2])
    assert (tracker.count, tracker.shots) == (2, 1)


def test_a_cut_begins_with_new_people():
    tracker = FaceTracker()
    assert track_numbers(tracker, FRAME, make_faces((60, 60)), 0.0) == [1]
    assert track_numbers(tracker, OTHER, make_faces((60, 60)), 0.2) == [2]
    assert tracker.shots == 2


@pytest.mark.parametrize(("seconds", "number"), [(0.9, 1), (1.1, 2)])
def test_who_is_out_of_sight_for_a_second_gets_a_new_number(seconds, number):
    tracker = FaceTracker()
    tracker.follow(FRAME, make_faces((60, 60)), 0.0)
    tracker.follow(FRAME, make_faces(), 0.5)
    assert track_numbers(tracker, FRAME, make_faces((62, 60)), seconds) == [number]


def test_a_face_elsewhere_or_of_another_size_is_another_one():
    tracker = FaceTracker()
    tracker.follow(FRAME, make_faces((60, 60)), 0.0)
    assert track_numbers(tracker, FRAME, make_faces((100, 60)), 0.2) == [2]
    assert track_numbers(tracker, FRAME, make_faces((60, 60), side=90), 0.4) == [3]


def test_both_go_on_where_the_nearest_for_one_alone_would_take_the_others_place():
    tracker = FaceTracker()
    tracker.follow(FRAME, make_faces((60, 60), (80, 60)), 0.0)
    assert track_numbers(tracker, FRAME, make_faces((72, 60), (90, 60)), 0.2) == [1, 2]


def test_a_near_duplicate_is_one_that_differs_little_from_the_last_that_was_kept():
    track = Track(1, np.zeros(4), 0.0)
    levels = [Image.new("L", (50, 50), level) for level in (100, 101, 102, 103)]
    assert [track.is_near_duplicate(face, 2.0) for face in levels] == [False, True, False, True]
    assert not track.is_near_duplicate(levels[3], 0.0)
