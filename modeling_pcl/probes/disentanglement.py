"""What each branch knows that the other should: pose in the face branch, identity and expression in the pose branch."""

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from ..head_pose_pcl import ANGLES

RIDGE_PENALTIES = np.logspace(-1, 7, 9)
# What leaks: the reading, the branch where it does not belong, the branch where it does.
LEAKS = {
    "pose_in_face": ("pose", "face", "pose"),
    "identity_in_pose": ("identity", "pose", "face"),
    "expression_in_pose": ("expression", "pose", "face"),
}
POSE_CHANCE, IDENTITY_CHANCE = 0.0, 0.5
ROWS_AT_ONCE = 256


def read_pose(
    train: torch.Tensor, train_angles: torch.Tensor, test: torch.Tensor, test_angles: torch.Tensor
) -> dict[str, dict[str, float | None]]:
    """Read head pose from features by ridge regression, each angle with its own penalty.

    The features are standardised; the penalty is the one with the least squared error of leave-one-out on the training
    images, which has a closed form. The time grows with images * dim * min(images, dim): 2,400 images of 8,192 features
    take ten seconds on one thread.

    Args:
        train: Features, `(train images, dim)`, any floating dtype.
        train_angles: Yaw, pitch and roll in degrees, `(train images, 3)`.
        test: Features, `(test images, dim)`.
        test_angles: `(test images, 3)`.

    Returns:
        `r2`, at most 1, 0 for an angle that is always guessed at the test images' mean; `mae` in degrees; each by angle
        and `mean`. `penalty` by angle. R2 is None for an angle that is constant in the test images, and `mean` is over
        the others, None if there are none.

    Raises:
        ValueError: If the angles are not three for each image, or features or angles are not finite.
    """
    for name, features, angles in (("train", train, train_angles), ("test", test, test_angles)):
        if angles.shape != (features.shape[0], 3):
            raise ValueError(f"`{name}_angles` must be ({features.shape[0]}, 3), got {tuple(angles.shape)}.")
        if not features.isfinite().all() or not angles.isfinite().all():
            raise ValueError(
                f"`{name}` and `{name}_angles` must be finite, got NaN or infinity; leave out such images."
            )
    # float64, since float32 cannot tell the smallest penalties from rounding of the largest eigenvalues.
    model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_PENALTIES, alpha_per_target=True))
    model.fit(train.double().numpy(), train_angles.double().numpy())
    truth, predicted = test_angles.double().numpy(), model.predict(test.double().numpy())
    r2 = [r2_score(true, read) if np.ptp(true) > 0 else None for true, read in zip(truth.T, predicted.T)]
    return {
        "r2": _by_angle(r2),
        "mae": _by_angle(mean_absolute_error(truth, predicted, multioutput="raw_values")),
        "penalty": dict(zip(ANGLES, model[-1].alpha_.tolist())),
    }


def _by_angle(values) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    named = {angle: None if value is None else float(value) for angle, value in zip(ANGLES, values)}
    return named | {"mean": float(np.mean(known)) if known else None}


def leakage(readings: Mapping[str, Mapping[str, float | None]], chance: float) -> dict[str, dict]:
    """How much of what belongs in one branch can be read from the other.

    Args:
        readings: What was read from `face` and `pose`, higher is better: `pose`, R2; `identity`, AUC of verification;
            `expression`, accuracy. Other branches are not looked at; a reading may be missing.
        chance: Accuracy of always saying the most frequent expression, in [0, 1]. R2 has 0 and AUC 0.5.

    Returns:
        `pose_in_face`, `identity_in_pose` and `expression_in_pose`, as far as there are readings. Each has a `value`,
        at least 0: the reading above chance in the branch where it does not belong, over that in the branch where it
        does. 0: nothing leaks, the reading is at or below chance; 1: as much as in the branch where it belongs. It is
        None, and `reason` says why, where a reading is None or the branch where it belongs is not above chance.

    Raises:
        KeyError: If a reading lacks `face` or `pose`.
    """
    levels = {"pose": POSE_CHANCE, "identity": IDENTITY_CHANCE, "expression": chance}
    leaks = {}
    for name, (kind, other, home) in LEAKS.items():
        if kind not in readings:
            continue
        there, here, level = readings[kind][other], readings[kind][home], levels[kind]
        if here is None or there is None:
            leaks[name] = {"value": None, "reason": f"{kind} could not be read"}
        elif here <= level:
            leaks[name] = {
                "value": None,
                "reason": f"{kind} from {home} is not above chance, {here:.3f} <= {level:.3f}",
            }
        else:
            leaks[name] = {"value": max(0.0, there - level) / (here - level)}
    return leaks


def mirror_movement(features: torch.Tensor, mirrored_features: torch.Tensor) -> float:
    """How far features move when the image is mirrored.

    Args:
        features: `(images, dim)`, any floating dtype.
        mirrored_features: Of the mirrored images, `(images, dim)`, rows paired with `features`.

    Returns:
        Mean cosine distance between an image and its mirror over that between two different images, all pairs: 0 does
        not move, 1 moves as far as to another image.

    Raises:
        ValueError: If the shapes differ, there are fewer than two images, features are not finite, or all images have
            the same direction.
    """
    images = features.shape[0]
    if features.shape != mirrored_features.shape or images < 2:
        raise ValueError(
            "`features` and `mirrored_features` must have one shape and at least 2 rows, "
            f"got {tuple(features.shape)} and {tuple(mirrored_features.shape)}."
        )
    # All pairs without an (images, images) table: the sum of all cosines is the squared length of the summed rows.
    cosine_to_mirror = squares = total = 0.0
    for rows, mirrored in zip(features.split(ROWS_AT_ONCE), mirrored_features.split(ROWS_AT_ONCE)):
        rows, mirrored = F.normalize(rows.double(), dim=1), F.normalize(mirrored.double(), dim=1)
        cosine_to_mirror += (rows * mirrored).sum()
        squares += rows.square().sum()
        total += rows.sum(dim=0)  # (dim,)
    if not (cosine_to_mirror + squares).isfinite():
        raise ValueError("`features` and `mirrored_features` must be finite, got NaN or infinity.")
    # The squared sum of all rows is the cosines of all ordered pairs, those of a row with itself included.
    to_others = 1 - (total.square().sum() - squares) / (images * (images - 1))
    if to_others < 1e-12:  # Rounding in float64; float32 features that differ at all differ by more.
        raise ValueError("`features` must differ between images, got one direction for all.")
    return float((1 - cosine_to_mirror / images) / to_others)
