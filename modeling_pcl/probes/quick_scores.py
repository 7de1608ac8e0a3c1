"""What an encoder knows, in a minute: figures on validation data, by which recipes and checkpoints are compared."""

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
from .arguments import ScoreCorpora
from .disentanglement import measure_mirror_movement
from .encoder import extract_features
from .verification import compute_pair_cosines

BATCH_SIZE = 128
HEAD_POSE_SHARE = 0.9  # Of a picture's side that is kept: head-pose collections leave more around the face.
MIRRORED = "mirrored_head_pose"
TRAIN_SHARE = {"head_pose": 0.8, "portraits": 5 / 6}
PAIRS_OF_A_KIND = 4000  # The standard error of an AUC near 0.6 is then 0.006.
EPOCHS, ROWS_AT_ONCE = 30, 256
# Leave-one-out, as `disentanglement.read_pose` has it, would take a minute for each feature.
RIDGE_PENALTIES, CHOSEN_ON = (1e1, 1e2, 1e3, 1e4, 1e5), 1 / 6  # Of the training images, the last are chosen on.


# Labels by corpus: how they are called, and the columns that they may stand in.
COLUMNS = {
    "expressions_train": {"label": ("label", "expression")},
    "expressions_validation": {"label": ("label", "expression")},
    "identities": {"identity": ("identity", "subject")},
    "head_pose": {name: (name,) for name in (*ANGLES, "smile")},
    "portraits": {name: (name,) for name in ("age", "gender")},
}


@dataclass(frozen=True)
class ScoreData:
    """Decoded images, `(images, 3, side, side)` uint8, and their labels, by corpus."""

    images: dict[str, torch.Tensor]
    labels: dict[str, dict[str, np.ndarray]]


def read_score_data(corpora: ScoreCorpora, side_px: int) -> ScoreData:
    """Open and decode all corpora at one side. That of head pose, which begins with all that smile, is shuffled.

    Raises:
        ValueError: If a corpus is not given, does not open, or lacks a column.
    """
    images, labels = {}, {}
    for name, columns in COLUMNS.items():
        corpus_name, is_pose = getattr(corpora, name), name == "head_pose"
        if not corpus_name:
            raise ValueError(f"`--{name}` must be given, a corpus as `pcl pretrain` opens it.")
        split = "test" if name == "expressions_validation" and not corpus_name.endswith(".parquet") else "train"
        corpus = load_corpus(corpus_name, split)
        chosen = {}
        for label, names in columns.items():
            chosen[label] = next((column for column in names if column in corpus.column_names), None)
            if chosen[label] is None:
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
        table = corpus.select_columns(list(chosen.values()))[:]
        labels[name] = {label: np.array(table[column])[order.numpy()] for label, column in chosen.items()}
    return ScoreData(images, labels)


def compute_quick_scores(
    model, data: ScoreData, names: Sequence[str] = READABLE_FEATURES
) -> Iterator[tuple[str, dict[str, float]]]:
    """Score an encoder's features.

    Args:
        model: A `PCLModel`.
        data: As `read_score_data` gives it.
        names: Features out of `trunk`, `face`, `pose` and `face+pose`.

    Yields:
        For each feature its name and `expression_accuracy`, `verification_auc`, `yaw_mae` and `yaw_r2` (and
        of pitch and roll, degrees), `smile_accuracy`, `gender_accuracy`, `age_mae` (years), `mirror_movement`.
    """
    images_of = {**data.images, MIRRORED: data.images["head_pose"].flip(-1)}
    encoded = {
        name: extract_features(model, images.split(BATCH_SIZE), precision="bf16") for name, images in images_of.items()
    }
    for feature in names:
        rows = {
            name: torch.cat([features[part] for part in feature_parts(feature)], dim=1).float()
            for name, features in encoded.items()
        }
        yield feature, _score_features(rows, data.labels)


def _score_features(rows: dict[str, torch.Tensor], labels: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    def split(corpus: str, values: np.ndarray) -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
        """Features and labels of the first images, which are trained on, and of the rest."""
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
    read = predict_by_ridge(train, torch.from_numpy(angles), test).numpy()
    for angle, true, values in zip(ANGLES, truth.T, read.T):
        scores |= {f"{angle}_mae": mean_absolute_error(true, values), f"{angle}_r2": r2_score(true, values)}
    train, ages, test, truth = split("portraits", portraits["age"])
    read = predict_by_ridge(train, torch.tensor(ages, dtype=torch.float32)[:, None], test).numpy()
    return scores | {
        "smile_accuracy": measure_linear_accuracy(*split("head_pose", poses["smile"])),
        "gender_accuracy": measure_linear_accuracy(*split("portraits", portraits["gender"])),
        "age_mae": mean_absolute_error(truth, read[:, 0]),
        "mirror_movement": measure_mirror_movement(rows["head_pose"], rows[MIRRORED]),
    }


def predict_by_ridge(train: torch.Tensor, targets: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    """Read numbers from standardised features by ridge regression.

    Args:
        train: Features, `(images, dim)`; the penalty is the one with the least absolute error on the last sixth.
        targets: `(images, targets)`.
        test: `(test images, dim)`.

    Returns:
        `(test images, targets)`.
    """
    # Standardised, since features' scales differ by a hundred, and a ridge would only read the largest.
    scale, centre = train.std(dim=0) + 1e-5, train.mean(dim=0)
    train, test, mean = (train - centre) / scale, (test - centre) / scale, targets.mean(dim=0)
    chosen = len(train) - round(CHOSEN_ON * len(train))
    errors = [
        (train[chosen:] @ weight + mean - targets[chosen:]).abs().mean()
        for weight in _solve_ridge(train[:chosen], targets[:chosen] - mean, RIDGE_PENALTIES)
    ]
    penalty = RIDGE_PENALTIES[int(torch.stack(errors).argmin())]
    (weight,) = _solve_ridge(train, targets - mean, [penalty])
    return test @ weight + mean


def _solve_ridge(rows: torch.Tensor, targets: torch.Tensor, penalties: Sequence[float]) -> list[torch.Tensor]:
    """Weights at each penalty, `(dim, targets)`, through whichever of the two Gram matrices is smaller."""
    x, y = rows.double(), targets.double()
    is_dual = len(x) < x.shape[1]
    gram, moment = (x @ x.T, y) if is_dual else (x.T @ x, x.T @ y)
    one = torch.eye(len(gram), dtype=torch.double)
    solved = [torch.cholesky_solve(moment, torch.linalg.cholesky(gram + penalty * one)) for penalty in penalties]
    return [(x.T @ solution if is_dual else solution).float() for solution in solved]


def measure_linear_accuracy(train: torch.Tensor, train_labels, test: torch.Tensor, test_labels) -> float:
    """Accuracy of a logistic regression, trained for 30 epochs by AdamW on standardised features.

    Args:
        train: Features, `(images, dim)`.
        train_labels: Their classes, `(images,)`.
        test: `(test images, dim)`.
        test_labels: `(test images,)`; a class that was not trained counts as wrong.
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
    """AUC of the cosine of centred features over as many pairs of one person as of two.

    Args:
        features: `(images, dim)`.
        people: Who each image shows, `(images,)`.
    """
    first, second, same = sample_pairs(people)
    return float(roc_auc_score(same, compute_pair_cosines(features - features.mean(dim=0), first, second)))


def sample_pairs(people: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first 4,000 pairs of one person, in the order of the people's first images, and 4,000 random ones of two.

    Returns:
        Indices of the two images, and whether they show one person; each `(pairs,)`.

    Raises:
        ValueError: If there is only one person, or nobody has two images.
    """
    images_of = {}
    for image, person in enumerate(people.tolist()):
        images_of.setdefault(person, []).append(image)
    pairs = [(a, b) for images in images_of.values() for number, a in enumerate(images) for b in images[:number]]
    if len(images_of) < 2 or not pairs:
        raise ValueError("Verification needs several people, one of them with two images.")
    generator, count = torch.Generator().manual_seed(0), min(len(pairs), PAIRS_OF_A_KIND)
    different = []
    while len(different) < count:
        a, b = torch.randint(len(people), (2,), generator=generator).tolist()
        if people[a] != people[b]:
            different.append((a, b))
    first, second = np.array(pairs[:count] + different).T
    return first, second, np.arange(2 * count) < count
