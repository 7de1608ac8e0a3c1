"""Scores of an encoder on validation data, within a minute, to compare recipes and checkpoints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score
from torch.nn import functional as F

from ..data.corpora import load_corpus
from ..data.images import decode_image
from ..features_pcl import READABLE_FEATURES, feature_parts
from ..head_pose_pcl import ANGLES
from .disentanglement import measure_mirror_movement
from .encoder import extract_features
from .search_arguments import ScoreCorpora
from .verification import compute_pair_cosines

BATCH_SIZE = 128
HEAD_POSE_SHARE = 0.9  # Share of the side that is kept: head-pose collections have wider margins around the face.
MIRRORED = "mirrored_head_pose"
TRAIN_SHARE = {"head_pose": 0.8, "portraits": 5 / 6}
PAIRS_OF_A_KIND = 4000  # The standard error of an AUC near 0.6 is then 0.006.
EPOCHS, ROWS_AT_ONCE = 30, 256
# Leave-one-out, as in `disentanglement.measure_pose_readings`, would take a minute for each feature.
RIDGE_PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)
CHOSEN_ON = 1 / 6  # Share of the training images, from the end, on which the penalty is chosen.


# By corpus: the names of its labels, each with the columns that may hold it.
COLUMNS = {
    "expressions_train": {"label": ("label", "expression")},
    "expressions_validation": {"label": ("label", "expression")},
    "identities": {"identity": ("identity", "subject")},
    "head_pose": {name: (name,) for name in (*ANGLES, "smile")},
    "portraits": {name: (name,) for name in ("age", "gender")},
}


@dataclass(frozen=True)
class ScoreData:
    """Decoded images and labels, by corpus.

    Args:
        images: `(images, 3, side, side)` uint8.
        labels: By name, each `(images,)`.
    """

    images: dict[str, torch.Tensor]
    labels: dict[str, dict[str, np.ndarray]]


def read_score_data(corpora: ScoreCorpora, side_px: int) -> ScoreData:
    """Open and decode all corpora at one side. The corpus of head pose is shuffled, because smiling faces come first.

    Raises:
        ValueError: If a corpus is not given, cannot be opened, or lacks a column.
    """
    images, labels = {}, {}
    for name, columns in COLUMNS.items():
        corpus_name, is_pose = getattr(corpora, name), name == "head_pose"
        if not corpus_name:
            raise ValueError(f"`--{name}` must be given: a corpus as `pcl pretrain` opens it.")
        split = "test" if name == "expressions_validation" and not corpus_name.endswith(".parquet") else "train"
        corpus = load_corpus(corpus_name, split)
        chosen_columns = {}
        for label, names in columns.items():
            chosen_columns[label] = next((column for column in names if column in corpus.column_names), None)
            if chosen_columns[label] is None:
                raise ValueError(f"`--{name}` needs a column `{label}`; it has {corpus.column_names}.")
        order = torch.arange(len(corpus))
        if is_pose:
            order = torch.randperm(len(corpus), generator=torch.Generator().manual_seed(5))
        records = corpus.select_columns("image").with_format(None)["image"]
        decoded = [
            decode_image(record, side_px, name=f"row {row}", kept_share=HEAD_POSE_SHARE if is_pose else 1.0)
            for row, record in enumerate(records)
        ]
        images[name] = torch.stack(decoded)[order]
        table = corpus.select_columns(list(chosen_columns.values()))[:]
        labels[name] = {label: np.array(table[column])[order.numpy()] for label, column in chosen_columns.items()}
    return ScoreData(images, labels)


def compute_quick_scores(
    model, data: ScoreData, names: Sequence[str] = READABLE_FEATURES
) -> Iterator[tuple[str, dict[str, float]]]:
    """Score the features of an encoder.

    Args:
        model: A `PCLModel`.
        data: Images and labels, as `read_score_data` returns them.
        names: Features to score, out of `trunk`, `face`, `pose` and `face+pose`.

    Yields:
        For each feature, its name and the scores: `expression_accuracy`, `verification_auc`, `yaw_mae` (degrees) and
        `yaw_r2` (likewise for pitch and roll), `smile_accuracy`, `gender_accuracy`, `age_mae` (years),
        `mirror_movement`.
    """
    images_by_name = {**data.images, MIRRORED: data.images["head_pose"].flip(-1)}
    encoded = {
        name: extract_features(model, images.split(BATCH_SIZE), precision="bf16")
        for name, images in images_by_name.items()
    }
    for feature in names:
        rows = {
            name: torch.cat([features[part] for part in feature_parts(feature)], dim=1).float()
            for name, features in encoded.items()
        }
        yield feature, _score_features(rows, data.labels)


def _score_features(rows: dict[str, torch.Tensor], labels: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """Compute all scores of one feature from its rows, `(images, dim)`, by corpus."""

    def split(corpus: str, values: np.ndarray) -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
        """Split features and labels into those of the first images, for training, and the rest."""
        count = round(TRAIN_SHARE[corpus] * len(values))
        return rows[corpus][:count], values[:count], rows[corpus][count:], values[count:]

    train, validation = "expressions_train", "expressions_validation"
    parts = rows[train], labels[train]["label"], rows[validation], labels[validation]["label"]
    scores = {
        "expression_accuracy": measure_linear_accuracy(*parts),
        "verification_auc": measure_verification_auc(rows["identities"], labels["identities"]["identity"]),
    }
    poses, portraits = labels["head_pose"], labels["portraits"]
    train, angles, test, truth = split("head_pose", np.stack([poses[a] for a in ANGLES], axis=1).astype(np.float32))
    predictions = predict_by_ridge(train, torch.from_numpy(angles), test).numpy()
    for angle, true, values in zip(ANGLES, truth.T, predictions.T):
        scores |= {f"{angle}_mae": mean_absolute_error(true, values), f"{angle}_r2": r2_score(true, values)}
    train, ages, test, truth = split("portraits", portraits["age"])
    predictions = predict_by_ridge(train, torch.tensor(ages, dtype=torch.float32)[:, None], test).numpy()
    return scores | {
        "smile_accuracy": measure_linear_accuracy(*split("head_pose", poses["smile"])),
        "gender_accuracy": measure_linear_accuracy(*split("portraits", portraits["gender"])),
        "age_mae": mean_absolute_error(truth, predictions[:, 0]),
        "mirror_movement": measure_mirror_movement(rows["head_pose"], rows[MIRRORED]),
    }


def predict_by_ridge(train: torch.Tensor, targets: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    """Predict numbers from standardised features by ridge regression.

    Args:
        train: Features, `(images, dim)`. The penalty with the least absolute error on the last sixth is chosen.
        targets: `(images, targets)`.
        test: Features of the test images, `(test images, dim)`.

    Returns:
        Predictions, `(test images, targets)`.
    """
    # Standardised, because scales of features differ by a factor of a hundred, and a ridge would read only the largest.
    scale, centre = train.std(dim=0) + 1e-5, train.mean(dim=0)
    train, test, mean = (train - centre) / scale, (test - centre) / scale, targets.mean(dim=0)
    split = len(train) - round(CHOSEN_ON * len(train))
    errors = [
        (train[split:] @ weight + mean - targets[split:]).abs().mean()
        for weight in _solve_ridge(train[:split], targets[:split] - mean, RIDGE_PENALTIES)
    ]
    penalty = RIDGE_PENALTIES[int(torch.stack(errors).argmin())]
    (weight,) = _solve_ridge(train, targets - mean, [penalty])
    return test @ weight + mean


def _solve_ridge(rows: torch.Tensor, targets: torch.Tensor, penalties: Sequence[float]) -> list[torch.Tensor]:
    """Solve for the weights at each penalty, `(dim, targets)`, by the smaller of the two Gram matrices."""
    x, y = rows.double(), targets.double()
    is_dual = len(x) < x.shape[1]
    gram, moment = (x @ x.T, y) if is_dual else (x.T @ x, x.T @ y)
    one = torch.eye(len(gram), dtype=torch.double)
    solved = [torch.cholesky_solve(moment, torch.linalg.cholesky(gram + penalty * one)) for penalty in penalties]
    return [(x.T @ solution if is_dual else solution).float() for solution in solved]


def measure_linear_accuracy(train: torch.Tensor, train_labels, test: torch.Tensor, test_labels) -> float:
    """Measure the accuracy of a logistic regression that AdamW trains for 30 epochs on standardised features.

    Args:
        train: Features, `(images, dim)`.
        train_labels: Classes, `(images,)`.
        test: Features of the test images, `(test images, dim)`.
        test_labels: Classes, `(test images,)`. Classes without training images count as wrong.
    """
    classes, targets = np.unique(train_labels, return_inverse=True)
    mean, scale = train.mean(dim=0), train.std(dim=0) + 1e-5
    train, targets = (train - mean) / scale, torch.from_numpy(targets)
    generator = torch.Generator().manual_seed(0)
    head = torch.zeros(train.shape[1] + 1, len(classes), requires_grad=True)
    optimizer = torch.optim.AdamW([head], lr=1e-3, weight_decay=0.5, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train), generator=generator).split(ROWS_AT_ONCE):
            optimizer.zero_grad()
            F.cross_entropy(train[rows] @ head[1:] + head[0], targets[rows]).backward()
            optimizer.step()
        schedule.step()
    logits = (test - mean) / scale @ head.detach()[1:] + head.detach()[0]
    return float((classes[logits.argmax(dim=1).numpy()] == np.asarray(test_labels)).mean())


def measure_verification_auc(features: torch.Tensor, people: np.ndarray) -> float:
    """Measure the AUC of cosines of centred features, over equally many pairs of one person and of two.

    Args:
        features: `(images, dim)`.
        people: Person in each image, `(images,)`.
    """
    first, second, same = sample_pairs(people)
    return float(roc_auc_score(same, compute_pair_cosines(features - features.mean(dim=0), first, second)))


def sample_pairs(people: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose 4,000 pairs of one person and 4,000 random pairs of two people.

    Pairs of one person are the first, in the order of the people's first images.

    Returns:
        Indices of the two images, and whether they show one person; each `(pairs,)`.

    Raises:
        ValueError: If there is only one person, or nobody has two images.
    """
    images_by_person = {}
    for image, person in enumerate(people.tolist()):
        images_by_person.setdefault(person, []).append(image)
    pairs = [(a, b) for images in images_by_person.values() for number, a in enumerate(images) for b in images[:number]]
    if len(images_by_person) < 2 or not pairs:
        raise ValueError("Verification needs several people, one of them with two images.")
    generator, count = torch.Generator().manual_seed(0), min(len(pairs), PAIRS_OF_A_KIND)
    different = []
    while len(different) < count:
        a, b = torch.randint(len(people), (2,), generator=generator).tolist()
        if people[a] != people[b]:
            different.append((a, b))
    first, second = np.array(pairs[:count] + different).T
    return first, second, np.arange(2 * count) < count
