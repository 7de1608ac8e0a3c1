"""Settings of the random views: probabilities, strengths and numbers, with their help texts."""

import math
from dataclasses import dataclass
from typing import Literal

from ..options import option

BLUR_SIGMA_MIN_PX = 0.1
# `mirror` is what the paper describes. `batch` is what the authors' code does by an ordering slip: every image gets the
# mirrors of all images.
POSE_NEGATIVES = ("mirror", "geometric", "video", "batch")


def _check_ranges(settings: object, **ranges: tuple[float, float]):
    """Raise a ValueError if a setting is not in its closed range. None is accepted."""
    for name, (minimum, maximum) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not (minimum <= value <= maximum and value < math.inf):  # Also refuses NaN.
            is_bounded = maximum < math.inf
            range_ = f"in [{minimum:.4g}, {maximum:.4g}]" if is_bounded else f"a number of at least {minimum}"
            raise ValueError(f"`{name}` must be {range_}, got {value}.")


@dataclass(frozen=True)
class PhotometricSettings:
    """Probabilities and strengths of the photometric operations. The defaults are the published values.

    An operation with probability 0 is not computed. The help texts of the fields give ranges and units.

    Raises:
        ValueError: If a value is out of its range.
    """

    jitter_probability: float = option(0.8, "Probability that the colours of a view are jittered, in [0, 1].")
    jitter_strength: float = option(
        0.8,
        "Brightness, contrast and saturation are multiplied by factors from 1 - this to 1 + this, in [0, 1]; 0 "
        "changes none of them.",
    )
    hue_strength: float = option(
        0.2,
        "Largest shift of the hue in the jitter, in turns of the colour wheel, in [0, 1/3]; 0 keeps hues.",
    )
    grey_probability: float = option(0.2, "Probability that a view becomes grey, in [0, 1].")
    blur_probability: float = option(0.8, "Probability that a view is blurred, in [0, 1].")
    blur_sigma_max_px: float = option(
        2.0, "Largest standard deviation of the blur in px, at least 0.1. It is drawn uniformly from 0.1 to this."
    )
    # At this probability a quarter-width model does not learn during its first half million images.
    gradient_probability: float = option(0.6, "Probability that a view becomes its gradient magnitude, in [0, 1].")

    def __post_init__(self):
        _check_ranges(
            self,
            jitter_probability=(0, 1),
            jitter_strength=(0, 1),
            hue_strength=(0, 1 / 3),  # The formula of `adjust_hue` is valid up to there.
            grey_probability=(0, 1),
            blur_probability=(0, 1),
            blur_sigma_max_px=(BLUR_SIGMA_MIN_PX, math.inf),
            gradient_probability=(0, 1),
        )


@dataclass(frozen=True)
class ViewSettings(PhotometricSettings):
    """Settings of all views. They are plain values, so that a run can record them. The defaults are the published ones.

    The help texts of the fields give ranges and units.

    Raises:
        ValueError: If a value is out of its range.
    """

    # At quarter width, the loss with `windows` stays above chance level for the first 900 iterations, while random
    # resized crops learn within the first hundred.
    face_views: Literal["windows", "random_resized_crop"] = option(
        "windows", "Face views are two small windows in different quadrants (published), or random resized crops."
    )
    face_positives: Literal["same_image", "same_video"] = option(
        "same_image",
        "The second face view comes from the same image (published), or from another frame of its video if there is "
        "one. `same_video` needs a column `video`, and `subject` if names of videos repeat between subjects.",
    )
    face_mirror_probability: float = option(
        0.0, "Probability that a face view is flipped along the width, in [0, 1]. SimCLR uses 0.5."
    )
    face_turn_probability: float = option(
        0.0,
        "Probability that the image of a face view is turned like geometric pose negatives, in [0, 1]. This teaches "
        "the face branch to ignore how a head is turned.",
    )
    # Crops of at least half of the area keep the layout of a face, which suits flattened features better.
    crop_area_min: float = option(0.2, "Smallest area of a random resized crop, as a share of the image, in [1e-4, 1].")
    crop_aspect_max: float = option(
        4 / 3,
        "Largest ratio of the longer to the shorter side of a random resized crop, at least 1. Crops are resized to "
        "squares, so faces are distorted by this ratio.",
    )
    mixing_alpha: float = option(1.6, "Negatives are mixed with shares from Beta(alpha, alpha); 0 disables mixing.")
    disentangling_images: int | None = option(
        None, "Objective 1 encodes and decodes this many images, the first of each batch, at least 2; by default all."
    )
    noise_std: float = option(
        0.4,
        "Standard deviation of the noise on the inputs of objective 1, for images in [0, 1]; 0 adds none.",
    )
    pose_images: int = option(10, "The pose contrast uses this many images, the first of each batch; at least 1.")
    pose_negatives_per_image: int = option(100, "Number of negatives of each of these images, at least 1 per kind.")
    pose_negatives: list[str] = option(
        ["mirror"],
        "Kinds of pose negatives, in equal numbers: `mirror` (published), the mirrored image; `geometric`, alternately "
        "the mirrored and the turned image; `video`, other frames of its video, which need a column `video`, or the "
        "mirrored image if there are none; `batch`, the mirrors of all images in the pose contrast.",
    )
    turn_deg: float = option(
        40.0,
        "Largest turn in the plane of a geometric pose negative, in degrees, in [0, 180]. The smallest is a quarter.",
    )
    turn_out_of_plane_deg: float = option(
        0.0, "Largest turn of every other turned image about the upright axis, as a cylinder, in degrees, below 60."
    )
    turn_zoom: float = option(0.1, "Turned images are scaled by factors from 1 / (1 + this) to 1 + this, in [0, 1].")
    turn_shear: float = option(
        0.1, "Turned images are sheared along the width by up to this share of their height, in [0, 1]."
    )

    def __post_init__(self):
        super().__post_init__()
        choices = {"face_views": ("windows", "random_resized_crop"), "face_positives": ("same_image", "same_video")}
        for name, values in choices.items():
            if getattr(self, name) not in values:
                raise ValueError(f'`{name}` must be "{values[0]}" or "{values[1]}", got {getattr(self, name)!r}.')
        kinds = self.pose_negatives
        if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(POSE_NEGATIVES):
            raise ValueError(f"`pose_negatives` must name some of {', '.join(POSE_NEGATIVES)}, each once, got {kinds}.")
        _check_ranges(
            self,
            face_mirror_probability=(0, 1),
            face_turn_probability=(0, 1),
            crop_area_min=(1e-4, 1),  # A crop without area has no pixels.
            crop_aspect_max=(1, math.inf),
            mixing_alpha=(0, math.inf),
            disentangling_images=(2, math.inf),  # The orthogonality is measured over several images.
            noise_std=(0, math.inf),
            pose_images=(1, math.inf),
            pose_negatives_per_image=(len(kinds), math.inf),
            turn_deg=(0, 180),
            turn_out_of_plane_deg=(0, 59.9),
            turn_zoom=(0, 1),
            turn_shear=(0, 1),
        )
        if self.pose_images * self.pose_negatives_per_image < 2:  # Of a single embedding, batch norm has no spread.
            raise ValueError("`pose_images` times `pose_negatives_per_image` must be at least 2, got 1.")
        if "geometric" in kinds and not (self.turn_deg or self.turn_out_of_plane_deg):
            raise ValueError(
                "`turn_deg` and `turn_out_of_plane_deg` must not both be 0 with geometric `pose_negatives`: an image "
                "that is not turned would be a positive."
            )

    @property
    def needs_videos(self) -> bool:
        """Whether any view comes from another frame of the video of an image."""
        return self.face_positives == "same_video" or "video" in self.pose_negatives
