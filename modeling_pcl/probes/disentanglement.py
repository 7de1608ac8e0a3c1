"""The disentanglement probe: pose read from the face branch, identity and expression read from the pose branch."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from ..data.corpora import corpus_splits
from ..data.image_decoder import CorpusImages
from ..data.images import decode_image
from ..data.splits import split_stratified
from ..features_pcl import FEATURES
from ..head_pose_pcl import ANGLES
from ..hub.models import open_model
from ..modeling_pcl import PCLForPreTraining
from ..pictures.comparison import draw_leakage
from ..pictures.faces import draw_face_rows, swap_rows
from .arguments import DisentanglementArguments
from .encoder import Encoder, extract_features
from .labels import Labels, read_classes, read_head_pose
from .logistic_regression import fit_logistic_regression
from .results import results_table, summarise_seeds
from .subset import (
    CUT_SEED,
    TEST_SHARE,
    VALIDATION_SHARE,
    Subset,
    check_same_labels,
    encode_subset,
    open_subset,
    split_off,
    spread_rows,
)
from .verification import open_pairs

# A wide range, because the best penalty grows with the numbers of images and features.
RIDGE_PENALTIES = np.logspace(-1, 7, 9)
POSE, IDENTITY, EXPRESSION = "pose R²", "identity AUC", "expression accuracy"
# By leak: the measure, the branch where the information does not belong, the branch where it belongs.
LEAKS = {
    "pose_in_face": (POSE, "face", "pose"),
    "identity_in_pose": (IDENTITY, "pose", "face"),
    "expression_in_pose": (EXPRESSION, "pose", "face"),
}
SWAPPED = 8  # Faces in the picture of swaps.
MIRRORED = 1000  # Limit on the mirrored images, which are encoded in every run because they are not cached.


def run_disentanglement_probe(arguments: DisentanglementArguments, encoder: Encoder, folder: Path) -> tuple[dict, str]:
    """Measure how well pose, identity and expression can be read from each branch.

    Returns:
        The facts for results.json, and a table.
    """
    size = arguments.image_size or encoder.image_size
    read = partial(read_classes, column=arguments.label_column, names=tuple(arguments.label_names))
    poses, faces = (
        [encode_subset(encoder, part, size, "float32") for part in open_train_and_test(name, reader)]
        for name, reader in ((arguments.pose, read_head_pose), (arguments.expression, read))
    )
    pairs = open_pairs(arguments, arguments.identity)
    table = encoder.extract(pairs.corpus, size, "float32", pairs.source)
    pairs = pairs.drop_broken(table.broken)
    movement = _measure_subset_movement(encoder, size, poses[1])
    results = {}
    for feature in FEATURES:
        identity = pairs.measure(pairs.compute_cosines(table.features[feature]))
        results[feature] = measure_pose_readings(*(part.features_and_targets(feature) for part in poses)) | {
            IDENTITY: identity["auc"],
            "identity accuracy": identity["accuracy"],
            EXPRESSION: _measure_class_accuracy(*(part.features_and_targets(feature) for part in faces)),
            "mirror movement": movement[feature],
        }
    majority = float(faces[1].targets().bincount().max() / len(faces[1].rows))
    chance = {"pose": 0.0, "identity": 0.5, "expression": majority}
    leaks = compute_leakage(results, chance)
    ratio = movement["face"] / movement["pose"] if movement["pose"] else None
    facts = {
        "metric": "pose_in_face",
        "selection": "ridge regression with the best leave-one-out penalty, logistic regression with the best on a "
        "tenth of the training images",
        "image_size": size,
        "parts": {
            name: {"train": train.describe(), "test": test.describe()}
            for name, (train, test) in (("pose", poses), ("expression", faces))
        }
        | {"identity": pairs.describe()},
        "chance": chance,
        "results": {name: {"linear readings": summarise_seeds([values])} for name, values in results.items()},
        "leakage": leaks,
        "mirror_movement_face_over_pose": ratio,
    }
    readings = {name: {feature: results[feature][name] for feature in results} for name in (POSE, IDENTITY, EXPRESSION)}
    swaps = _draw_swaps(arguments.model, poses[1])
    draw_leakage(readings, movement, swaps, f"{encoder.name} at {size} px").save(folder / "disentanglement.png")
    lines = [results_table(facts["results"], list(results["face"])), ""]
    for name, leak in leaks.items():
        value = f"unknown, {leak['reason']}" if leak["value"] is None else f"{leak['value']:.3f}"
        lines.append(f"{name.replace('_', ' ')}: {value}")
    lines.append(f"mirror movement, face over pose: {'unknown' if ratio is None else format(ratio, '.3f')}")
    return facts, "\n".join(lines)


def open_train_and_test(name: str, read: Callable[[Dataset], Labels]) -> tuple[Subset, Subset]:
    """Open the splits of a labelled corpus, or split off a fifth of it for testing. No image is in both sets."""
    train = open_subset(name, "train", read)
    if "test" in corpus_splits(name) and len(corpus_splits(name)) > 1:
        test = open_subset(name, "test", read)
        check_same_labels(train, test)
        return train.drop_images_of(test), test
    return split_off(train, TEST_SHARE)


def measure_pose_readings(
    train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]
) -> dict[str, float | None]:
    """Measure how well a ridge regression reads head pose from features.

    Features are standardised. Each angle has its own penalty: the one with the least squared leave-one-out error on the
    training images, which has a closed form. The time grows with images * dim * min(images, dim): 2,400 images of 8,192
    features take ten seconds on one thread.

    Args:
        train: Features, `(images, dim)`, any floating dtype, and yaw, pitch and roll in degrees, `(images, 3)`.
        test: The same for the test images.

    Returns:
        `pose R²`, the mean over the angles; `pose MAE` in degrees; and `yaw R²`, `pitch R²` and `roll R²`. R² is at
        most 1, and 0 for predicting the mean of the test images. It is None for an angle that is constant in the test
        images, which does not count in the mean; the mean is None if all angles are constant.
    """
    # float64, because in float32 the smallest penalties vanish in the rounding of the largest eigenvalues.
    (rows, angles), (test_rows, truth) = ([values.double().numpy() for values in part] for part in (train, test))
    model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_PENALTIES, alpha_per_target=True))
    predicted = model.fit(rows, angles).predict(test_rows)
    r2 = [float(r2_score(true, read)) if np.ptp(true) > 0 else None for true, read in zip(truth.T, predicted.T)]
    known_r2 = [value for value in r2 if value is not None]
    errors = mean_absolute_error(truth, predicted, multioutput="raw_values")
    means = {POSE: float(np.mean(known_r2)) if known_r2 else None, "pose MAE": float(np.mean(errors))}
    return means | {f"{angle} R²": value for angle, value in zip(ANGLES, r2)}


def _measure_class_accuracy(train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Measure the accuracy of a logistic regression whose penalty is chosen on a tenth of the training images."""
    rows, labels = train
    shares = {"kept": 1 - VALIDATION_SHARE, "held_out": VALIDATION_SHARE}
    parts = split_stratified(labels.tolist(), shares, CUT_SEED).values()
    kept, held_out = ((rows[part], labels[part]) for part in map(torch.from_numpy, parts))
    predicted = fit_logistic_regression(*kept, held_out).predict(test[0])
    return float(np.mean(predicted == test[1].numpy()))


def compute_leakage(
    results: Mapping[str, Mapping[str, float | None]], chance: Mapping[str, float]
) -> dict[str, dict[str, float | str | None]]:
    """Compute how much of what belongs in one branch can be read from the other.

    Args:
        results: Scores of readings from `face` and `pose`, higher is better: `pose R²`, `identity AUC` of verification,
            and `expression accuracy`.
        chance: Scores at chance: 0 for `pose`, 0.5 for `identity`, and for `expression` the accuracy of always
            predicting the most frequent class.

    Returns:
        `pose_in_face`, `identity_in_pose` and `expression_in_pose`. Each has a `value`, at least 0: the score above
        chance in the branch where the information does not belong, divided by that in the branch where it belongs.
        0 means that nothing leaks, because the score is at or below chance; 1 means that as much can be read as in the
        branch where it belongs. The value is None, with a `reason`, if a score is None or the score in the branch where
        it belongs is not above chance.
    """
    leaks = {}
    for name, (measure, other, home) in LEAKS.items():
        kind = measure.split()[0]
        score_in_other, score_in_home, chance_score = results[other][measure], results[home][measure], chance[kind]
        if score_in_home is None or score_in_other is None:
            leaks[name] = {"value": None, "reason": f"{kind} could not be read"}
        elif score_in_home <= chance_score:
            reason = f"{kind} from {home} is not above chance, {score_in_home:.3f} <= {chance_score:.3f}"
            leaks[name] = {"value": None, "reason": reason}
        else:
            leaks[name] = {"value": max(0.0, score_in_other - chance_score) / (score_in_home - chance_score)}
    return leaks


def measure_mirror_movement(features: torch.Tensor, mirrored_features: torch.Tensor) -> float:
    """Measure how far features move when images are mirrored.

    Args:
        features: `(images, dim)`, any floating dtype.
        mirrored_features: Features of the mirrored images, `(images, dim)`, rows paired with `features`.

    Returns:
        Mean cosine distance between an image and its mirror, divided by the mean over all pairs of different images: 0
        does not move, 1 moves as far as to another image.

    Raises:
        ValueError: If there are fewer than two images, features are not finite, or all have the same direction.
    """
    rows, mirrored = (F.normalize(part.double(), dim=1) for part in (features, mirrored_features))
    count, distance_to_mirror = len(rows), 1 - (rows * mirrored).sum(dim=1).mean()
    # The mean over all pairs without an (images, images) matrix: the squared length of the summed rows is the sum of
    # all cosines, including those of each row with itself.
    distance_to_others = 1 - (rows.sum(dim=0).square().sum() - rows.square().sum()) / (count * (count - 1))
    if not distance_to_others >= 1e-12:  # Above float64 rounding, below any difference of float32 features.
        raise ValueError("`features` must be finite, of at least 2 images, and differ between images.")
    return float(distance_to_mirror / distance_to_others)


def _measure_subset_movement(encoder: Encoder, size: int, part: Subset) -> dict[str, float]:
    """Measure the mirror movement of each feature on at most `MIRRORED` images of a subset."""
    rows = part.rows[spread_rows(len(part.rows), MIRRORED)]
    with ThreadPoolExecutor() as pool:
        images = CorpusImages(part.corpus, size, part.source).load(rows.tolist(), pool)  # uint8
    features, mirrored_features = (
        extract_features(encoder.model, batches.split(encoder.batch_size)) for batches in (images, images.flip(3))
    )
    return {name: measure_mirror_movement(features[name], mirrored_features[name]) for name in FEATURES}


def _draw_swaps(model_name: str, part: Subset) -> Image.Image | None:
    """Draw faces in each other's poses; None if the model has no decoder."""
    model = open_model(model_name)
    if not isinstance(model, PCLForPreTraining):
        return None
    order = torch.argsort(part.targets()[:, 0]).numpy()  # Sorted by yaw, so that poses differ.
    rows = part.rows[order][spread_rows(len(order), SWAPPED)]
    records = part.corpus.with_format(None).select(rows)["image"]
    images = torch.stack([decode_image(record, model.config.image_size) for record in records]).float() / 255
    return draw_face_rows(swap_rows(model, images), title="face of each row in the pose of each column")
