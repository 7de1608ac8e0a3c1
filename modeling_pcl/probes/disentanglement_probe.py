"""What trunk, face and pose features hold of pose, identity and expression, and how far they move with the image."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image

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
from .disentanglement import leakage, mirror_movement, read_pose
from .encoder import Encoder
from .features import extract_features
from .labels import Labels, read_classes, read_head_pose
from .logistic_regression import fit_logistic_regression
from .results import over_seeds, results_table
from .scores import accuracy
from .subset import (
    CUT_SEED,
    TEST_SHARE,
    VALIDATION_SHARE,
    EncodedSubset,
    Subset,
    check_same_labels,
    encode_subset,
    open_subset,
    split_off,
)
from .verification import open_pairs

SWAPPED, MIRRORED = 8, 1000


def run_disentanglement_probe(arguments: DisentanglementArguments, encoder: Encoder, folder: Path) -> tuple[dict, str]:
    """Measure what each branch holds of pose, identity and expression; as `probe.RUNS` says."""
    size = arguments.image_size or encoder.image_size
    read = partial(read_classes, column=arguments.label_column, names=tuple(arguments.label_names))
    poses, faces = (
        [encode_subset(encoder, part, size, "float32") for part in open_train_and_test(name, reader)]
        for name, reader in ((arguments.pose, read_head_pose), (arguments.expression, read))
    )
    pairs = open_pairs(arguments, arguments.identity)
    table = encoder.table(pairs.corpus, size, "float32", pairs.source)
    pairs = pairs.without(table.broken)
    movement = _mirror_movement(encoder, size, poses[1].part)
    results = {}
    for feature in FEATURES:
        pose, identity = _read(read_pose, poses, feature), pairs.measure(pairs.cosines(table.features[feature]))
        values = {"pose R²": pose["r2"]["mean"], "pose MAE": pose["mae"]["mean"]}
        values |= {f"{angle} R²": pose["r2"][angle] for angle in ANGLES}
        values |= {"identity AUC": identity["auc"], "identity accuracy": identity["accuracy"]}
        values |= {"expression accuracy": _read(_read_classes, faces, feature), "mirror movement": movement[feature]}
        results[feature] = values
    measures = ("pose R²", "identity AUC", "expression accuracy")
    readings = {measure: {name: values[measure] for name, values in results.items()} for measure in measures}
    majority = float(faces[1].part.targets().bincount().max() / len(faces[1].part.rows))
    leaks = leakage(dict(zip(("pose", "identity", "expression"), readings.values())), chance=majority)
    ratio = movement["face"] / movement["pose"] if movement["pose"] else None
    parts = {name: _describe(*encoded) for name, encoded in (("pose", poses), ("expression", faces))}
    facts = {
        "metric": "pose_in_face",
        "selection": "ridge regression with the best leave-one-out penalty, logistic regression with the best on a "
        "tenth of the training images",
        "image_size": size,
        "parts": parts | {"identity": pairs.describe()},
        "chance": {"pose": 0.0, "identity": 0.5, "expression": majority},
        "results": {name: {"linear readings": over_seeds([values])} for name, values in results.items()},
        "leakage": leaks,
        "mirror_movement_face_over_pose": ratio,
    }
    swaps = _swaps(arguments.model, poses[1].part)
    picture = draw_leakage(readings, movement, swaps, f"{encoder.name} at {size} px")
    picture.save(folder / "disentanglement.png")
    lines = [results_table(facts["results"], list(results["face"])), ""]
    for name, leak in leaks.items():
        value = f"not known, {leak['reason']}" if leak["value"] is None else f"{leak['value']:.3f}"
        lines.append(f"{name.replace('_', ' ')}: {value}")
    lines.append(f"mirror movement, face over pose: {'not known' if ratio is None else format(ratio, '.3f')}")
    return facts, "\n".join(lines)


def open_train_and_test(name: str, read: Callable[[Dataset], Labels]) -> tuple[Subset, Subset]:
    """The splits of a labelled corpus, or four fifths of it and one, with no image in both."""
    train = open_subset(name, "train", read)
    if "test" in corpus_splits(name) and len(corpus_splits(name)) > 1:
        test = open_subset(name, "test", read)
        check_same_labels(train, test)
        return train.without_images_of(test), test
    return split_off(train, TEST_SHARE)


def _describe(train: EncodedSubset, test: EncodedSubset) -> dict:
    return {"train": train.part.describe(), "test": test.part.describe()}


def _read(reader: Callable, encoded: list[EncodedSubset], feature: str):
    """What a reader makes of a feature."""
    train, test = encoded
    return reader(train.rows(feature), train.part.targets(), test.rows(feature), test.part.targets())


def _read_classes(train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, test_labels: torch.Tensor) -> float:
    """Accuracy of a logistic regression whose penalty is chosen on a tenth of the training images."""
    shares = {"kept": 1 - VALIDATION_SHARE, "held_out": VALIDATION_SHARE}
    rows = split_stratified(labels.tolist(), shares, CUT_SEED)
    kept, held_out = ((train[part], labels[part]) for part in map(torch.from_numpy, rows.values()))
    probe = fit_logistic_regression(*kept, held_out)
    return accuracy(probe.classes[probe.logits(test).argmax(dim=1).numpy()], test_labels.numpy())


def _evenly(rows: np.ndarray, count: int) -> np.ndarray:
    """Some of the rows, evenly spaced."""
    return rows[torch.linspace(0, len(rows) - 1, count).long().numpy()]


def _mirror_movement(encoder: Encoder, size: int, part: Subset) -> dict[str, float]:
    chosen = _evenly(part.rows, min(MIRRORED, len(part.rows)))
    with ThreadPoolExecutor() as pool:
        images = CorpusImages(part.corpus, size, part.source).load(chosen.tolist(), pool)  # uint8
    seen, mirrored = (
        extract_features(encoder.model, batches.split(encoder.batch_size)) for batches in (images, images.flip(3))
    )
    return {name: mirror_movement(seen[name], mirrored[name]) for name in FEATURES}


def _swaps(model_name: str, part: Subset) -> Image.Image | None:
    """Every face in every pose, if the model has a decoder."""
    model = open_model(model_name)
    if not isinstance(model, PCLForPreTraining):
        return None
    order = torch.argsort(part.targets()[:, 0]).numpy()  # By yaw, so that the poses differ.
    rows = part.corpus.with_format(None).select(_evenly(part.rows[order], SWAPPED))["image"]
    images = torch.stack([decode_image(row, model.config.image_size) for row in rows]).float() / 255
    return draw_face_rows(swap_rows(model, images), title="face of each row in the pose of each column")
