"""Faces of a video's frames, followed so that one person gets one number in a shot."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from ...detection_pcl import Faces

FARTHEST = 0.6  # Of a face's side that it moves between two frames, at most.
LARGEST_CHANGE = 1.6  # Factor by which its side changes, at most.
LOST_AFTER_S = 1.0  # A face that is not seen for so long is another one's when it comes back.
COLOUR_LEVELS = 8  # Of each channel, in the histograms by which shots are told apart.
THUMBNAIL_PX = 16


@dataclass
class Track:
    """One person in one shot.

    Args:
        number: From 1, in order of appearance in the video.
        box: Where the face was last seen.
        time_s: When.
        thumbnail: Of the last face that was kept, `(16, 16)` float32 grey levels; None before the first.
    """

    number: int
    box: np.ndarray
    time_s: float
    thumbnail: np.ndarray | None = None

    def is_near_duplicate(self, face: Image.Image, least_difference: float) -> bool:
        """Whether a cut face differs from the last that was kept by less than so many grey levels on average, both at
        16 x 16 px; if not, it is the last that is kept."""
        small = np.asarray(face.convert("L").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX), np.float32)
        if self.thumbnail is not None and np.abs(small - self.thumbnail).mean() < least_difference:
            return True
        self.thumbnail = small
        return False


class FaceTracker:
    """Follows faces from frame to frame by where they are and how large; a new shot begins with new people.

    Who comes back after a cut, or after a second out of sight, gets a new number: faces are not recognised.

    Args:
        cut_difference: Share of the colours that must change between two frames for a cut, in (0, 1].
    """

    def __init__(self, cut_difference: float = 0.5):
        self.cut_difference = cut_difference
        self.tracks: list[Track] = []
        self.count = self.shots = 0
        self.colours: np.ndarray | None = None

    def follow(self, frame: Image.Image, faces: Faces, time_s: float) -> list[Track]:
        """The track of each face of the next frame."""
        colours = colour_shares(frame)
        if self.colours is None or np.abs(colours - self.colours).sum() / 2 > self.cut_difference:
            self.tracks, self.shots = [], self.shots + 1
        self.colours = colours
        self.tracks = [track for track in self.tracks if time_s - track.time_s <= LOST_AFTER_S]
        followed = self._matches(faces.boxes)
        tracks = []
        for number, box in enumerate(faces.boxes):
            track = followed.get(number)
            if track is None:
                self.count += 1
                track = Track(self.count, box, time_s)
                self.tracks.append(track)
            track.box, track.time_s = box, time_s
            tracks.append(track)
        return tracks

    def _matches(self, boxes: np.ndarray) -> dict[int, Track]:
        """Known tracks by the number of the face that goes on with each, all together as near as possible."""
        if not len(boxes) or not self.tracks:
            return {}
        before = np.stack([track.box for track in self.tracks])
        sides, sides_before = (_sides(each) for each in (boxes, before))
        centres, centres_before = (each.reshape(-1, 2, 2).mean(axis=1) for each in (boxes, before))
        moved = np.linalg.norm(centres[:, None] - centres_before, axis=2) / np.sqrt(sides[:, None] * sides_before)
        change = np.abs(np.log(sides[:, None] / sides_before))
        costs = np.where((moved < FARTHEST) & (change < np.log(LARGEST_CHANGE)), moved + change, 1e3)
        return {
            int(face): self.tracks[track]
            for face, track in zip(*linear_sum_assignment(costs))
            if costs[face, track] < 1e3
        }


def _sides(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def colour_shares(image: Image.Image) -> np.ndarray:
    """How a picture's colours are shared out over 8 x 8 x 8 levels, `(512,)`, with the sum 1."""
    small = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BOX)) // (256 // COLOUR_LEVELS)
    cells = small.reshape(-1, 3).astype(int) @ (COLOUR_LEVELS**2, COLOUR_LEVELS, 1)
    return np.bincount(cells, minlength=COLOUR_LEVELS**3) / len(cells)
