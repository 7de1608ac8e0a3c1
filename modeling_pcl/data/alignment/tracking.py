"""Track faces through the frames of a video, so that each person has one number in a shot."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from ...detection_pcl import Faces

MAX_MOVE = 0.6  # Largest move of a face between two frames, as a share of its side.
MAX_SIZE_RATIO = 1.6  # Largest ratio of its sides in two frames.
LOST_AFTER_S = 1.0  # After this time out of sight, a face gets a new number.
COLOUR_LEVELS = 8  # Levels per channel in the histograms that detect cuts.
THUMBNAIL_PX = 16


@dataclass
class Track:
    """One person in one shot.

    Args:
        number: Number of the person, from 1, in order of appearance in the video.
        box: Box of the face in the last frame that shows it.
        time_s: Time of that frame, in seconds.
        thumbnail: The last face that was kept, `(16, 16)` float32 grey levels; None before the first.
    """

    number: int
    box: np.ndarray
    time_s: float
    thumbnail: np.ndarray | None = None

    def is_near_duplicate(self, face: Image.Image, min_difference: float) -> bool:
        """Check whether a face is a near-duplicate of the last face that was kept; if not, store it as the last one.

        Args:
            face: Cropped face.
            min_difference: Smallest mean difference of faces that are not duplicates, in grey levels at 16 x 16 px.
        """
        thumbnail = np.asarray(face.convert("L").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX), np.float32)
        if self.thumbnail is not None and np.abs(thumbnail - self.thumbnail).mean() < min_difference:
            return True
        self.thumbnail = thumbnail
        return False


class FaceTracker:
    """Follow faces from frame to frame by their position and size.

    Faces are not recognised: a person who appears again after a cut, or after a second out of sight, gets a new number.

    Args:
        cut_difference: Share of the colours that must differ between two frames of different shots, in (0, 1].
    """

    def __init__(self, cut_difference: float = 0.5):
        self.cut_difference = cut_difference
        self.tracks: list[Track] = []
        self.count = self.shots = 0
        self.colours: np.ndarray | None = None

    def follow(self, frame: Image.Image, faces: Faces, time_s: float) -> list[Track]:
        """Process the next frame, and return the track of each of its faces."""
        colours = compute_colour_shares(frame)
        if self.colours is None or np.abs(colours - self.colours).sum() / 2 > self.cut_difference:
            self.tracks, self.shots = [], self.shots + 1
        self.colours = colours
        self.tracks = [track for track in self.tracks if time_s - track.time_s <= LOST_AFTER_S]
        matches = self._match(faces.boxes)
        tracks = []
        for number, box in enumerate(faces.boxes):
            track = matches.get(number)
            if track is None:
                self.count += 1
                track = Track(self.count, box, time_s)
                self.tracks.append(track)
            track.box, track.time_s = box, time_s
            tracks.append(track)
        return tracks

    def _match(self, boxes: np.ndarray) -> dict[int, Track]:
        """Match faces to existing tracks with the smallest total cost; returns the track by the number of the face."""
        if not len(boxes) or not self.tracks:
            return {}
        last_boxes = np.stack([track.box for track in self.tracks])
        sides, last_sides = (_get_sides(group) for group in (boxes, last_boxes))
        centres, last_centres = (group.reshape(-1, 2, 2).mean(axis=1) for group in (boxes, last_boxes))
        move = np.linalg.norm(centres[:, None] - last_centres, axis=2) / np.sqrt(sides[:, None] * last_sides)
        change = np.abs(np.log(sides[:, None] / last_sides))
        costs = np.where((move < MAX_MOVE) & (change < np.log(MAX_SIZE_RATIO)), move + change, 1e3)  # (faces, tracks)
        return {
            int(face): self.tracks[track]
            for face, track in zip(*linear_sum_assignment(costs))
            if costs[face, track] < 1e3
        }


def _get_sides(boxes: np.ndarray) -> np.ndarray:
    """Return the longer side of each box."""
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def compute_colour_shares(image: Image.Image) -> np.ndarray:
    """Compute the colour histogram of an image with 8 x 8 x 8 bins, `(512,)`, with the sum 1."""
    small = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX)) // (256 // COLOUR_LEVELS)
    cells = small.reshape(-1, 3).astype(int) @ (COLOUR_LEVELS**2, COLOUR_LEVELS, 1)
    return np.bincount(cells, minlength=COLOUR_LEVELS**3) / len(cells)
