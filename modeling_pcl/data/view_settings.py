"""How views are drawn: every probability, strength and number of them."""

import math
from dataclasses import dataclass
from typing import Literal

from ..options import option

BLUR_SIGMA_MIN_PX = 0.1
POSE_NEGATIVES = ("mirror", "geometric", "video", "batch")


@dataclass(frozen=True)
class PhotometricSettings:
    """How often each operation of the photometric list is drawn, and how strong; the defaults are the published ones.

    An operation of probability 0 is left out and costs nothing.

    Args:
        jitter_probability: Of the colour jitter, in [0, 1], and likewise the other probabilities.
        jitter_strength: Factors of brightness, contrast and saturation are uniform in [1 - strength, 1 + strength],
            in [0, 1]; 0 leaves the three out.
        hue_strength: Most turns of the colour wheel, either way, in [0, 1/3]; 0 leaves hues as they are.
        grey_probability: Of taking the colours away.
        blur_probability: Of the Gaussian blur.
        blur_sigma_max_px: Its standard deviation is uniform in [0.1, this].
        gradient_probability: Of replacing the image by its gradient magnitude.

    Raises:
        ValueError: If a value is out of its range.
    """

    jitter_probability: float = option(0.8, "Probability of the colour jitter of a view, in [0, 1]; 0 leaves it out.")
    jitter_strength: float = option(
        0.8, "Brightness, contrast and saturation are multiplied by 1 - this to 1 + this, in [0, 1]."
    )
    hue_strength: float = option(0.2, "Most turns of the colour wheel in the jitter, either way, in [0, 1/3].")
    grey_probability: float = option(0.2, "Probability that a view loses its colours.")
    blur_probability: float = option(0.8, "Probability that a view is blurred.")
    blur_sigma_max_px: float = option(2.0, "Largest standard deviation of the blur, in px, at least 0.1.")
    gradient_probability: float = option(0.6, "Probability that a view becomes its gradient magnitude.")

    def __post_init__(self):
        for name in ("jitter_probability", "grey_probability", "blur_probability", "gradient_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")
        if not 0 <= self.jitter_strength <= 1:
            raise ValueError(f"`jitter_strength` must be in [0, 1], got {self.jitter_strength}.")
        if not 0 <= self.hue_strength <= 1 / 3:
            raise ValueError(f"`hue_strength` must be in [0, 1/3], turns of the wheel, got {self.hue_strength}.")
        if not BLUR_SIGMA_MIN_PX <= self.blur_sigma_max_px < math.inf:
            raise ValueError(f"`blur_sigma_max_px` must be at least {BLUR_SIGMA_MIN_PX}, got {self.blur_sigma_max_px}.")


@dataclass(frozen=True)
class ViewSettings(PhotometricSettings):
    """How views are drawn. Plain values, so that a run can write them down; the defaults are the published ones.

    Args:
        face_views: `"windows"`, two small windows in different quadrants, or `"random_resized_crop"`.
        face_positives: Whether the second view is of the same image, or of another frame of the same video where there
            is one, `"same_video"`.
        face_mirror_probability: Probability that a face view is flipped along the width, in [0, 1], for each view.
            Published: 0. SimCLR uses 0.5.
        face_turn_probability: Probability that the image of a face view is turned first, in [0, 1], for each view, as
            geometric negatives of the pose contrast are, by `turn_deg` and the three after it.
        crop_area_min: Least share of the image's area that a random resized crop keeps, in (0, 1].
        crop_aspect_max: Most that a random resized crop is wider than high, or higher than wide, at least 1. Views are
            squares: it is squeezed by as much.
        mixing_alpha: Negatives are mixed with shares from Beta(alpha, alpha); 0 mixes nothing.
        disentangling_images: Images of a batch that objective 1 takes, the first; None for all of them.
        noise_std: Standard deviation of the noise on the encoder's inputs in objective 1, where images are in [0, 1];
            0 adds none.
        pose_images: Images that take part in one pose contrast: the first of the batch, at least 1.
        pose_negatives_per_image: Negatives of each of these, at least 1 of each kind.
        pose_negatives: Kinds of negatives, which share their number: `"mirror"`, the image's mirror; `"geometric"`, its
            mirror and the image itself turned, by turns; `"video"`, other frames of its video, or its mirror where
            there are none; `"batch"`, the mirrors of all images that take part.
        turn_deg: Largest turn in the plane of a geometric negative, in degrees, in [0, 180]; the least is a quarter.
        turn_out_of_plane_deg: The same for turns about the upright axis, in [0, 60), of every other turned image.
        turn_zoom: Turned images are enlarged by up to 1 + this, or made as much smaller, in [0, 1].
        turn_shear: They are sheared along the width by up to this share of their height, in [0, 1].

    Raises:
        ValueError: If a value is out of its range.
    """

    face_views: Literal["windows", "random_resized_crop"] = option(
        "windows", "Face views are two small windows in different quadrants (published), or random resized crops."
    )
    face_positives: Literal["same_image", "same_video"] = option(
        "same_image",
        "The second face view is of the same image (published), or of another frame of its video, where the corpus has "
        "columns `video` and, if videos are numbered within people, `subject`.",
    )
    face_mirror_probability: float = option(0.0, "Probability that a face view is flipped, in [0, 1].")
    face_turn_probability: float = option(
        0.0,
        "Probability that the image of a face view is turned as geometric pose negatives are, in [0, 1]: the face "
        "branch is told not to hold how a head is turned.",
    )
    crop_area_min: float = option(0.2, "Least share of the image's area in a random resized crop, in (0, 1].")
    crop_aspect_max: float = option(
        4 / 3, "Most that a random resized crop is wider than high, or higher than wide, at least 1."
    )
    mixing_alpha: float = option(1.6, "Negatives are mixed with shares from Beta(alpha, alpha); 0 mixes nothing.")
    disentangling_images: int | None = option(
        None, "Images of a batch that objective 1 encodes and decodes; by default all of them."
    )
    noise_std: float = option(0.4, "Noise on the encoder's inputs in objective 1, for images in [0, 1]; 0 adds none.")
    pose_images: int = option(10, "Images of a batch that take part in the pose contrast.")
    pose_negatives_per_image: int = option(100, "Negatives of each of these images, in all.")
    pose_negatives: list[str] = option(
        ["mirror"],
        "Kinds of pose negatives, which share their number: `mirror` (published), the image's mirror; `geometric`, its "
        "mirror and the image itself turned; `video`, other frames of its video, where the corpus has that column; "
        "`batch`, the mirrors of all these images.",
    )
    turn_deg: float = option(40.0, "Largest turn in the plane of a geometric pose negative, in degrees.")
    turn_out_of_plane_deg: float = option(
        0.0, "Largest turn about the upright axis, as of a cylinder, of every other turned image, in degrees, below 60."
    )
    turn_zoom: float = option(0.1, "Turned images are enlarged by up to 1 + this, or made as much smaller.")
    turn_shear: float = option(0.1, "Turned images are sheared by up to this share of their height.")

    def __post_init__(self):
        super().__post_init__()
        choices = {"face_views": ("windows", "random_resized_crop"), "face_positives": ("same_image", "same_video")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f'`{name}` must be "{known[0]}" or "{known[1]}", got {getattr(self, name)!r}.')
        for name in ("face_mirror_probability", "face_turn_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")
        if not self.crop_aspect_max >= 1:
            raise ValueError(f"`crop_aspect_max` must be at least 1, got {self.crop_aspect_max}.")
        if not 0 < self.crop_area_min <= 1:
            raise ValueError(f"`crop_area_min` must be in (0, 1], a share of the area, got {self.crop_area_min}.")
        for name in ("mixing_alpha", "noise_std"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 (none) or a positive number, got {getattr(self, name)}.")
        for name in ("pose_images", "pose_negatives_per_image", "disentangling_images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        self._check_pose_negatives()

    def _check_pose_negatives(self):
        kinds = self.pose_negatives
        if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(POSE_NEGATIVES):
            raise ValueError(f"`pose_negatives` must name some of {', '.join(POSE_NEGATIVES)}, each once, got {kinds}.")
        if self.pose_negatives_per_image < len(kinds):
            raise ValueError(
                f"`pose_negatives_per_image` must be at least {len(kinds)}, one of each of `pose_negatives`, got "
                f"{self.pose_negatives_per_image}."
            )
        most = {"turn_deg": 180, "turn_out_of_plane_deg": 59.9, "turn_zoom": 1, "turn_shear": 1}
        for name, limit in most.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"`{name}` must be in [0, {limit}], got {getattr(self, name)}.")
        if "geometric" in kinds and not (self.turn_deg or self.turn_out_of_plane_deg):
            raise ValueError(
                "`turn_deg` and `turn_out_of_plane_deg` must not both be 0 with geometric `pose_negatives`: an image "
                "that is not turned is a positive."
            )

    @property
    def needs_videos(self) -> bool:
        """Whether any view is of another frame of an image's video."""
        return self.face_positives == "same_video" or "video" in self.pose_negatives
