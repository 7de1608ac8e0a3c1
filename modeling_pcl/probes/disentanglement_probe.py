"""What trunk, face and pose features hold of pose, identity and expression, and how far they move with the image."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

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
from .results import over_seeds, remove_old_results, results_table, write_results
from .scores import accuracy
from .subset import CUT_SEED, TEST_SHARE, VALIDATION_SHARE, Subset, check_same_labels, open_subset, split_off
from .verification import Verification

SWAPPED, MIRRORED = 8, 1000


def run_disentanglement_probe(arguments: DisentanglementArguments) -> str:
    """Measure what each branch holds of pose, identity and expression.

    Returns:
        A table of the results; all that remains is in `output_dir`.

    Raises:
        ValueError, OSError: If an option, a corpus or the model is not as it must be.
    """
    folder = Path(arguments.output_dir)
    remove_old_results(folder)
    encoder = Encoder(arguments.model, arguments.cache_dir, arguments.batch_size)
    size = arguments.image_size or encoder.model.config.image_size
    poses = Labelled(encoder, size, arguments.pose, read_head_pose)
    names = tuple(arguments.label_names)
    faces = Labelled(
        encoder, size, arguments.expression, partial(read_classes, column=arguments.label_column, names=names)
    )
    pairs = Verification(arguments, encoder, arguments.identity)
    pose, expression = poses.read(read_pose), faces.read(_read_classes)
    identity = {name: pairs.pairs.compute(pairs.cosines(name)) for name in FEATURES}
    movement = _mirror_movement(encoder, size, poses.test)
    majority = float(faces.test.targets().bincount().max() / len(faces.test.rows))
    readings = {
        "pose": {name: pose[name]["r2"]["mean"] for name in FEATURES},
        "identity": {name: identity[name]["auc"] for name in FEATURES},
        "expression": {name: expression[name]["accuracy"] for name in FEATURES},
    }
    facts = {
        "metric": "pose_in_face",
        "selection": "ridge regression with the best leave-one-out penalty, logistic regression with the best on a "
        "tenth of the training images",
        "image_size": size,
        "parts": {"pose": poses.describe(), "expression": faces.describe(), "identity": pairs.pairs.describe()},
        "chance": {"pose": 0.0, "identity": 0.5, "expression": majority},
        "results": {name: _summary(pose[name], identity[name], expression[name], movement[name]) for name in FEATURES},
        "leakage": leakage(readings, chance=majority),
        "mirror_movement_face_over_pose": movement["face"] / movement["pose"] if movement["pose"] else None,
    }
    titled = dict(zip(("pose R²", "identity AUC", "expression accuracy"), readings.values()))
    picture = draw_leakage(titled, movement, _swaps(arguments.model, poses.test), f"{encoder.name} at {size} px")
    picture.save(folder / "disentanglement.png")
    write_results(arguments, encoder, facts)
    return _in_words(facts)


def _in_words(facts: dict) -> str:
    measures = list(facts["results"]["face"]["linear readings"])
    lines = [f"{name.replace('_', ' ')}: {_leak_in_words(leak)}" for name, leak in facts["leakage"].items()]
    ratio = facts["mirror_movement_face_over_pose"]
    lines.append(f"mirror movement, face over pose: {'not known' if ratio is None else format(ratio, '.3f')}")
    return "\n".join([results_table(facts["results"], measures), "", *lines])


def _summary(pose: dict, identity: dict, classes: dict, movement: float) -> dict:
    values = {"pose R²": pose["r2"]["mean"], "pose MAE": pose["mae"]["mean"]}
    values |= {f"{angle} R²": pose["r2"][angle] for angle in ANGLES}
    values |= {"identity AUC": identity["auc"], "identity accuracy": identity["accuracy"]}
    values |= {"expression accuracy": classes["accuracy"], "mirror movement": movement}
    return {"linear readings": over_seeds([values])}


def _leak_in_words(leak: dict) -> str:
    return f"not known, {leak['reason']}" if leak["value"] is None else f"{leak['value']:.3f}"


class Labelled:
    """A labelled corpus under one model.

    Args:
        encoder: The model.
        size: Side of the images, in px.
        name: Of the corpus: its own splits are taken, or four fifths and one.
        read: From the corpus to its labels.
    """

    def __init__(self, encoder: Encoder, size: int, name: str, read: Callable[[Dataset], Labels]):
        train = open_subset(name, "train", read)
        if "test" in corpus_splits(name) and len(corpus_splits(name)) > 1:
            test = open_subset(name, "test", read)
            check_same_labels(train, test)
            train = train.without_images_of(test)
        else:
            train, test = split_off(train, TEST_SHARE)
        self.train, self.train_features = self._encoded(encoder, size, train)
        self.test, self.test_features = self._encoded(encoder, size, test)

    def _encoded(self, encoder: Encoder, size: int, part: Subset) -> tuple[Subset, Mapping[str, torch.Tensor]]:
        encoded = encoder.table(part.corpus, size, "float32", part.source)
        return part.without(encoded.broken), encoded.features

    def read(self, reader: Callable[..., dict]) -> dict[str, dict]:
        """What a reader makes of each feature."""
        train, test = (torch.from_numpy(part.rows) for part in (self.train, self.test))
        return {
            name: reader(
                self.train_features[name][train],
                self.train.targets(),
                self.test_features[name][test],
                self.test.targets(),
            )
            for name in FEATURES
        }

    def describe(self) -> dict:
        return {"train": self.train.describe(), "test": self.test.describe()}


def _read_classes(train: torch.Tensor, train_labels, test: torch.Tensor, test_labels) -> dict:
    shares = {"kept": 1 - VALIDATION_SHARE, "held_out": VALIDATION_SHARE}
    rows = split_stratified(train_labels.tolist(), shares, CUT_SEED)
    kept, held_out = ((train[part], train_labels[part]) for part in map(torch.from_numpy, rows.values()))
    probe = fit_logistic_regression(*kept, held_out)
    predicted = probe.classes[probe.logits(test).argmax(dim=1).numpy()]
    return {"accuracy": accuracy(predicted, test_labels.numpy())}


def _images(part: Subset, size: int, count: int) -> torch.Tensor:
    """Some of the part's images, evenly spaced, `(count, 3, size, size)` uint8."""
    chosen = part.rows[torch.linspace(0, len(part.rows) - 1, min(count, len(part.rows))).long().numpy()]
    with ThreadPoolExecutor() as pool:
        return CorpusImages(part.corpus, size, part.source).load(chosen.tolist(), pool)


def _mirror_movement(encoder: Encoder, size: int, part: Subset) -> dict[str, float]:
    images = _images(part, size, MIRRORED)
    seen, mirrored = (
        extract_features(encoder.model, batches.split(encoder.batch_size)) for batches in (images, images.flip(3))
    )
    return {name: mirror_movement(seen[name], mirrored[name]) for name in FEATURES}


def _swaps(model_name: str, part: Subset) -> Image.Image | None:
    """Every face in every pose, if the model has a decoder."""
    model = open_model(model_name)
    if not isinstance(model, PCLForPreTraining):
        return None
    order = torch.argsort(part.targets()[:, 0])  # By yaw, so that the poses differ.
    chosen = part.rows[order[torch.linspace(0, len(order) - 1, SWAPPED).long()].numpy()]
    rows = part.corpus.with_format(None).select(chosen)["image"]
    images = torch.stack([decode_image(row, model.config.image_size) for row in rows]).float() / 255
    return draw_face_rows(swap_rows(model, images), title="face of each row in the pose of each column")
