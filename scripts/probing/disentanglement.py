"""What trunk, face and pose features hold of pose, identity and expression, and how far they move with the image."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoConfig

from modeling_pcl import PCLForPreTraining
from modeling_pcl.data.images import decode_image
from modeling_pcl.probes.disentanglement import leakage, mirror_movement, read_pose
from modeling_pcl.probes.features import FEATURES, extract_features
from modeling_pcl.probes.leakage_picture import draw_leakage
from modeling_pcl.probes.logistic_regression import fit_logistic_regression
from modeling_pcl.training.pictures import draw_rows, swap_rows

from .arguments import ProbeArguments
from .encoder import Encoder
from .images import CorpusImages
from .labels import ANGLES, read_classes, read_head_pose
from .parts import TEST_SHARE, Part, cut, open_part
from .report import describe, over_seeds, table, write_results
from .verification import Verification

SWAPPED, MIRRORED = 8, 1000


def run(arguments: ProbeArguments) -> str:
    """Do it all; what remains is in `--output_dir`, and a table in words is returned."""
    for name in ("pose", "identity", "expression"):
        if getattr(arguments, name) is None:
            raise ValueError(f"`--task disentanglement` needs `--{name}`, a corpus with labels of {name}.")
    encoder = Encoder(arguments.model, arguments.cache_dir, arguments.batch_size)
    size = arguments.image_size or encoder.model.config.image_size
    pose_train, pose_test = _train_and_test(arguments.pose, read_head_pose)
    class_train, class_test = _train_and_test(arguments.expression, partial(read_classes, column=None))
    verification = Verification(arguments, encoder, arguments.identity)
    pose = _read(encoder, size, pose_train, pose_test, read_pose)
    classes = _read(encoder, size, class_train, class_test, _read_classes)
    identity = {name: verification.pairs.compute(verification.cosines(name)) for name in FEATURES}
    majority = float(class_test.targets().bincount().max() / len(class_test.rows))
    readings = {
        "pose": {name: pose[name]["r2"]["mean"] for name in FEATURES},
        "identity": {name: identity[name]["auc"] for name in FEATURES},
        "expression": {name: classes[name]["accuracy"] for name in FEATURES},
    }
    leaks = leakage(readings, chance=majority)
    movement = _mirror_movement(encoder, size, pose_test)
    facts = {
        "metric": "pose_in_face",
        "selection": "ridge and logistic regression; their penalties were chosen on training images",
        "image_size": size,
        "parts": {
            "pose": [pose_train.describe(), pose_test.describe()],
            "expression": [class_train.describe(), class_test.describe()],
            "identity": {"source": verification.pairs.source, "pairs": len(verification.pairs.same)},
        },
        "chance": {"pose": 0.0, "identity": 0.5, "expression": majority},
        "results": {name: _summary(pose[name], identity[name], classes[name], movement[name]) for name in FEATURES},
        "leakage": leaks,
        "mirror_movement_face_over_pose": movement["face"] / movement["pose"],
    }
    folder = Path(arguments.output_dir)
    write_results(folder, describe(arguments, encoder, facts))
    named = {"pose R²": readings["pose"], "identity AUC": readings["identity"]}
    named |= {"expression accuracy": readings["expression"]}
    title = f"{encoder.name} at {size} px"
    draw_leakage(named, movement, _swaps(arguments.model, pose_test), title).save(folder / "disentanglement.png")
    measures = list(next(iter(facts["results"].values()))["linear readings"])
    words = [f"{name.replace('_', ' ')}: {_leak_in_words(leak)}" for name, leak in leaks.items()]
    words.append(f"mirror movement, face over pose: {facts['mirror_movement_face_over_pose']:.3f}")
    return "\n".join([table(facts["results"], measures), "", *words])


def _summary(pose: dict, identity: dict, classes: dict, movement: float) -> dict:
    values = {"pose R²": pose["r2"]["mean"], "pose MAE": pose["mae"]["mean"]}
    values |= {f"{angle} R²": pose["r2"][angle] for angle in ANGLES}
    values |= {"identity AUC": identity["auc"], "identity accuracy": identity["accuracy"]}
    values |= {"expression accuracy": classes["accuracy"], "mirror movement": movement}
    return {"linear readings": over_seeds([values])}


def _leak_in_words(leak: dict) -> str:
    return f"not known, {leak['reason']}" if leak["value"] is None else f"{leak['value']:.3f}"


def _train_and_test(name: str, read) -> tuple[Part, Part]:
    """The corpus's own splits, or four fifths and one."""
    train = open_part(name, "train", read)
    try:
        test = open_part(name, "test", read)
    except ValueError:
        test = train
    return (train, test) if test.source != train.source else cut(train, TEST_SHARE)


def _read(encoder: Encoder, size: int, train: Part, test: Part, reader) -> dict[str, dict]:
    """What a reader makes of each feature."""
    tables = [encoder.table(part.corpus, size, "float32", part.source) for part in (train, test)]
    train, test = (part.without(table.broken) for part, table in zip((train, test), tables))

    def rows(place: int, part: Part, feature: str) -> torch.Tensor:
        return tables[place].features[feature][torch.from_numpy(part.rows)]

    return {
        feature: reader(rows(0, train, feature), train.targets(), rows(1, test, feature), test.targets())
        for feature in FEATURES
    }


def _read_classes(train: torch.Tensor, train_labels, test: torch.Tensor, test_labels) -> dict:
    probe = fit_logistic_regression(train, train_labels)
    predicted = probe.classes[(test.float() @ probe.weight.T + probe.bias).argmax(dim=1).numpy()]
    return {"accuracy": float((predicted == test_labels.numpy()).mean())}


def _images(part: Part, size: int, count: int) -> torch.Tensor:
    """Some of the part's images, evenly spaced, `(count, 3, size, size)` uint8."""
    chosen = part.rows[torch.linspace(0, len(part.rows) - 1, min(count, len(part.rows))).long().numpy()]
    with ThreadPoolExecutor() as pool:
        return CorpusImages(part.corpus, size, part.source).load(chosen.tolist(), pool)


def _mirror_movement(encoder: Encoder, size: int, part: Part) -> dict[str, float]:
    images = _images(part, size, MIRRORED)
    seen, mirrored = (
        extract_features(encoder.model, batches.split(encoder.batch_size)) for batches in (images, images.flip(3))
    )
    return {name: mirror_movement(seen[name], mirrored[name]) for name in FEATURES}


def _swaps(model_name: str, part: Part) -> Image.Image | None:
    """Every face in every pose, if the model has a decoder."""
    if "PCLForPreTraining" not in (AutoConfig.from_pretrained(model_name).architectures or []):
        return None
    model = PCLForPreTraining.from_pretrained(model_name)
    order = torch.argsort(part.targets()[:, 0])  # By yaw, so that the poses differ.
    chosen = part.rows[order[torch.linspace(0, len(order) - 1, SWAPPED).long()].numpy()]
    rows = part.corpus.with_format(None).select(chosen)["image"]
    images = torch.stack([decode_image(row, model.config.image_size) for row in rows]).float() / 255
    return draw_rows(swap_rows(model, images), title="face of each row in the pose of each column")
