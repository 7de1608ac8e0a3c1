"""How views are drawn: every probability, strength and number of them, each described where it is defined."""

import math
from dataclasses import dataclass
from typing import Literal

from ..options import option

BLUR_SIGMA_MIN_PX = 0.1
POSE_NEGATIVES = ("mirror", "geometric", "video", "batch")


def _check_ranges(settings: object, **ranges: tuple[float, float]):
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not (least <= value <= most and value < math.inf):  # NaN is in no range.
            range_ = f"in [{least:.4g}, {most:.4g}]" if most < math.inf else f"a number of at least {least}"
            raise ValueError(f"`{name}` must be {range_}, got {value}.")


@dataclass(frozen=True)
class PhotometricSettings:
    """How often each operation of the photometric list is drawn, and how strong; the defaults are the published ones.

    An operation of probability 0 is left out and costs nothing. The fields' help texts give ranges and units.

    Raises:
        ValueError: If a value is out of its range.
    """

    jitter_probability: float = option(0.8, "Probability of the colour jitter of a view, in [0, 1]; 0 leaves it out.")
    jitter_strength: float = option(
        0.8,
        "Brightness, contrast and saturation are multiplied by 1 - this to 1 + this, in [0, 1]; 0 leaves the three "
        "out.",
    )
    hue_strength: float = option(
        0.2, "Most turns of the colour wheel in the jitter, either way, in [0, 1/3]; 0 leaves hues as they are."
    )
    grey_probability: float = option(0.2, "Probability that a view loses its colours, in [0, 1].")
    blur_probability: float = option(0.8, "Probability that a view is blurred, in [0, 1].")
    blur_sigma_max_px: float = option(
        2.0, "Largest standard deviation of the blur, in px, at least 0.1; it is uniform from 0.1 to this."
    )
    gradient_probability: float = option(0.6, "Probability that a view becomes its gradient magnitude, in [0, 1].")

    def __post_init__(self):
        _check_ranges(
            self,
            jitter_probability=(0, 1),
            jitter_strength=(0, 1),
            hue_strength=(0, 1 / 3),  # The formula of `adjust_hue` ends there.
            grey_probability=(0, 1),
            blur_probability=(0, 1),
            blur_sigma_max_px=(BLUR_SIGMA_MIN_PX, math.inf),
            gradient_probability=(0, 1),
        )


@dataclass(frozen=True)
class ViewSettings(PhotometricSettings):
    """How views are drawn. Plain values, so that a run can write them down; the defaults are the published ones.

    The fields' help texts give ranges and units.

    Raises:
        ValueError: If a value is out of its range.
    """

    face_views: Literal["windows", "random_resized_crop"] = option(
        "windows", "Face views are two small windows in different quadrants (published), or random resized crops."
    )
    face_positives: Literal["same_image", "same_video"] = option(
        "same_image",
        "The second face view is of the same image (published), or of another frame of its video where there is one; "
        "the corpus then has columns `video` and, if videos are numbered within people, `subject`.",
    )
    face_mirror_probability: float = option(
        0.0, "Probability that a face view is flipped along the width, in [0, 1], for each view. SimCLR uses 0.5."
    )
    face_turn_probability: float = option(
        0.0,
        "Probability that the image of a face view is turned first, as geometric pose negatives are, in [0, 1], for "
        "each view: the face branch is told not to hold how a head is turned.",
    )
    crop_area_min: float = option(0.2, "Least share of the image's area in a random resized crop, in [0.0001, 1].")
    crop_aspect_max: float = option(
        4 / 3,
        "Most that a random resized crop is wider than high, or higher than wide, at least 1. Views are squares: it is "
        "squeezed by as much.",
    )
    mixing_alpha: float = option(1.6, "Negatives are mixed with shares from Beta(alpha, alpha); 0 mixes nothing.")
    disentangling_images: int | None = option(
        None, "Images of a batch that objective 1 encodes and decodes, the first; by default all of them."
    )
    noise_std: float = option(
        0.4,
        "Standard deviation of the noise on objective 1's inputs, for images in [0, 1]; 0 adds none.",
    )
    pose_images: int = option(10, "Images of a batch that take part in the pose contrast, the first, at least 1.")
    pose_negatives_per_image: int = option(100, "Negatives of each of these images, in all, at least 1 of each kind.")
    pose_negatives: list[str] = option(
        ["mirror"],
        "Kinds of pose negatives, which share their number: `mirror` (published), the image's mirror; `geometric`, its "
        "mirror and the image itself turned, by turns; `video`, other frames of its video, where the corpus has that "
        "column, or its mirror where there are none; `batch`, the mirrors of all these images.",
    )
    turn_deg: float = option(
        40.0,
        "Largest turn in the plane of a geometric pose negative, in degrees, in [0, 180]; the least is a quarter.",
    )
    turn_out_of_plane_deg: float = option(
        0.0, "Largest turn about the upright axis, as of a cylinder, of every other turned image, in degrees, below 60."
    )
    turn_zoom: float = option(0.1, "Turned images are enlarged by up to 1 + this, or made as much smaller, in [0, 1].")
    turn_shear: float = option(
        0.1, "Turned images are sheared along the width by up to this share of their height, in [0, 1]."
    )

    def __post_init__(self):
        super().__post_init__()
        choices = {"face_views": ("windows", "random_resized_crop"), "face_positives": ("same_image", "same_video")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f'`{name}` must be "{known[0]}" or "{known[1]}", got {getattr(self, name)!r}.')
        kinds = self.pose_negatives
        if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(POSE_NEGATIVES):
            raise ValueError(f"`pose_negatives` must name some of {', '.join(POSE_NEGATIVES)}, each once, got {kinds}.")
        _check_ranges(
            self,
            face_mirror_probability=(0, 1),
            face_turn_probability=(0, 1),
            crop_area_min=(1e-4, 1),  # No area has no pixels.
            crop_aspect_max=(1, math.inf),
            mixing_alpha=(0, math.inf),
            disentangling_images=(1, math.inf),
            noise_std=(0, math.inf),
            pose_images=(1, math.inf),
            pose_negatives_per_image=(len(kinds), math.inf),
            turn_deg=(0, 180),
            turn_out_of_plane_deg=(0, 59.9),
            turn_zoom=(0, 1),
            turn_shear=(0, 1),
        )
        if "geometric" in kinds and not (self.turn_deg or self.turn_out_of_plane_deg):
            raise ValueError(
                "`turn_deg` and `turn_out_of_plane_deg` must not both be 0 with geometric `pose_negatives`: an image "
                "that is not turned is a positive."
            )

    @property
    def needs_videos(self) -> bool:
        """Whether any view is of another frame of an image's video."""
        return self.face_positives == "same_video" or "video" in self.pose_negatives
