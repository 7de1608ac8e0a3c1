"""Make `hub_cards/pcl-small-faces` from a pre-training run: float16 weights, and a head for each task:

python scripts/ship_small_faces.py runs/long --faces faces.parquet --expressions_train fer2013_train.parquet \\
    --expressions_test fer2013_public_test.parquet --head_pose corpora/genki4k --portraits utkface.parquet \\
    --people_train youtube_faces.parquet --people celeba.parquet

README.md, scores and pictures in the folder are not changed.
"""

import argparse
import io
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import to_pil_image

from modeling_pcl import PCLForPreTraining
from modeling_pcl.commands.probe import parse
from modeling_pcl.configuration_pcl import OBJECTIVES
from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.data.images import decode_image
from modeling_pcl.data.splits import cut_off
from modeling_pcl.data.view_settings import ViewSettings
from modeling_pcl.data.views import ViewMaker
from modeling_pcl.files import write_json
from modeling_pcl.hub.published import remove_private
from modeling_pcl.hub.repository import HEAD_FILES
from modeling_pcl.probes.encoder import extract_features
from modeling_pcl.probes.probe import run_probe
from modeling_pcl.probes.subset import ROW, compute_image_digests, open_subset
from modeling_pcl.training.recipes import RECIPES

FOLDER = Path(__file__).parents[1] / "hub_cards" / "pcl-small-faces"
SIDE_PX = 100  # At 64 px, scores of these tasks are lower (scores.csv).
LOAD_PX = 150  # Copies are cut from larger images.
MEASURED_FACES = 8000  # Of the pre-training, for the scale of the channels.
# Twice this many altered copies of each image.
PAIRS_OF_COPIES = {"train": 2, "validation": 1, "people": 1}
# All images of a collection have the same crop, light and sharpness, and a head that was trained on these alone fails
# on others: of ORL's 40 people, 36 of them men, it called most images female, and the median age was 0.
ALTERED = ViewSettings(
    face_views="random_resized_crop",
    crop_area_min=0.35,
    crop_aspect_max=1.0,
    face_mirror_probability=0.5,
    face_turn_probability=0.8,
    turn_deg=12.0,
    turn_zoom=0.25,
    turn_shear=0.0,
    jitter_strength=0.4,
    hue_strength=0.0,
    blur_probability=0.7,
    gradient_probability=0.0,
    mixing_alpha=0.0,
)
HEADS = ("expression", "head_pose", "smile", "gender", "age", "verification")
# Parts of names of tensors that stay float32: heads fit the scale of the features, and statistics may have any scale.
KEPT_AS_THEY_ARE = ("classifier.", "regressor.", ".running_")
KEPT_OF_EMBEDDINGS = (".running_",)  # The embedding has 128 rows, not seven, and only directions count.


@torch.no_grad()
def equalise_channels(run: Path, corpus: Dataset) -> dict[str, torch.Tensor]:
    """Scale the channels of trunk and branches so that those of trunk and face feature vary alike over faces.

    Cosines then weigh all channels alike, where the largest varied ten times as much as the smallest. LeakyReLU passes
    positive factors on, and the layers that read trunk and branches undo them: nothing else changes, but that the
    decoder reads the sum of both features at unit length, and lengths change alike only on average.

    Returns:
        The weights of the run with its channels scaled.

    Raises:
        ValueError: If an image does not decode, or a channel is the same for all faces.
    """
    model = PCLForPreTraining.from_pretrained(run, turn_weight=0.0).eval()  # Without the layer for turns.
    numbered = corpus.select_columns("image").add_column(ROW, np.arange(len(corpus)))
    faces, channels = numbered.shuffle(seed=0)[:MEASURED_FACES], model.config.feature_channels
    variances = {"trunk": [], "face": []}
    for side in (model.config.image_size, SIDE_PX):
        images = torch.stack(
            [decode_image(record, side, name=f"row {row}") for record, row in zip(faces["image"], faces[ROW])]
        )
        features = extract_features(model.pcl, images.split(128), precision="bf16")
        for name, measured in variances.items():
            measured.append(features[name].float().var(dim=0).unflatten(0, (channels, -1)).mean(dim=1))
        if side == model.config.image_size:  # As the decoder was trained.
            sums = (features["face"] + features["pose"]).float().unflatten(1, (channels, -1))
    scales = {}
    for name, measured in variances.items():
        deviations = torch.stack(measured).log().mean(dim=0).div(2).exp()  # By their geometric mean over both sides.
        if not (deviations > 0).all():  # NaN for a single face.
            raise ValueError(f"Channels of the {name} of {run} are the same for all of `--faces`; they have no scale.")
        scales[name] = (deviations / deviations.log().mean().exp())[:, None]
    branches = [model.pcl.face_branch, model.pcl.pose_branch]
    for name, stages in {"trunk": [model.pcl.trunk.stages[-1]], "face": branches}.items():
        for stage in stages:
            stage.conv2.weight /= scales[name][..., None, None]
            stage.conv2.bias /= scales[name][:, 0]
    for branch in branches:
        branch.conv1.weight *= scales["trunk"][..., None]
    for layer in (model.face_projection.fc1, model.pose_projection.fc1, model.decoder.fc):
        layer.weight.unflatten(1, (channels, -1)).mul_(scales["face"])
    lengths = (sums / scales["face"]).flatten(1).norm(dim=1) / sums.flatten(1).norm(dim=1)
    model.decoder.fc.weight *= lengths.mean()
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def copy_in_half_precision(
    source: Path, folder: Path, kept: tuple[str, ...] = KEPT_AS_THEY_ARE, tensors: dict[str, torch.Tensor] | None = None
):
    """Copy a model, or its config with other weights, in float16. The config's `dtype` opens them as float32.

    Weights with a name that contains one of `kept` are not converted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in HEAD_FILES:
        shutil.copyfile(source / name, folder / name)
    tensors = tensors or load_file(source / "model.safetensors")
    halved = {
        name: tensor.half() if tensor.is_floating_point() and not any(map(name.count, kept)) else tensor
        for name, tensor in tensors.items()
    }
    if not all(tensor.isfinite().all() for tensor in halved.values()):
        raise ValueError(f"{source} holds weights that are out of the range of float16.")
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})


def split_with_copies(corpus: str, test: str | None, folder: Path, strata: str):
    """Split a corpus, and add altered copies of the images for training and validation.

    A fifth is the test set, unless there is another one, whose images are left out.
    """
    faces = open_subset(corpus, "train")
    if test:
        faces = faces.drop_images_of(open_subset(test, "test"))
    digests = compute_image_digests(faces.corpus)
    # An image that is there twice must not be in two splits.
    rows = {digests[row]: row for row in reversed(faces.rows.tolist())}
    faces = faces.corpus.select(sorted(rows.values())).remove_columns(ROW)
    values, parts = faces[strata][:], {"train": np.arange(len(faces))}
    for name, share in ([] if test else [("test", 0.2)]) + [("validation", 0.1 if test else 0.125)]:
        rows = parts["train"]
        kept, cut = cut_off(None, [values[row] for row in rows], share, seed=0)
        parts |= {"train": rows[kept], name: rows[cut]}
    splits = {name: faces.select(rows) for name, rows in parts.items()}
    splits |= {name: add_copies(splits[name], PAIRS_OF_COPIES[name]) for name in ("train", "validation")}
    DatasetDict(splits).save_to_disk(folder)


def add_copies(faces: Dataset, pairs: int) -> Dataset:
    """Add pairs of altered copies of each image."""
    copies = [faces.map(partial(alter, copy=copy), True, batched=True) for copy in range(pairs)]
    return concatenate_datasets([faces, *copies])


def alter(rows: dict, numbers: list[int], copy: int) -> dict:
    """Cut, turn, jitter or blur images at random, twice each."""
    images = torch.stack([decode_image(record, LOAD_PX) for record in rows["image"]])
    views = ViewMaker(ALTERED, SIDE_PX, seed=copy).face_contrast(images, step=numbers[0])["face_views"]
    return {name: 2 * values for name, values in rows.items()} | {"image": list(map(encode_png, views))}


def split_people(train: str, other: str, folder: Path) -> tuple[str, str]:
    """Write a corpus of people for training, with half the people of the other corpus, and one of the other half.

    The first has a split `validation` of a tenth of its people. Only images for training have altered copies: pairs of
    an image and its own copy would be too easy to choose an embedding by.
    """
    corpora = {"train": load_corpus(train), "other": load_corpus(other)}
    corpora = {name: corpus.select_columns(["image", "subject"]) for name, corpus in corpora.items()}
    kept, cut = cut_off(corpora["other"]["subject"][:], None, 0.5, seed=0)
    people = concatenate_datasets([corpora["train"], corpora["other"].select(kept).cast(corpora["train"].features)])
    trained, held_out = cut_off(people["subject"][:], None, 0.1, seed=0)
    # An embedding at 64 px called 0.52 of the pairs of different people of ORL the same without copies, with them 0.29.
    copied = add_copies(people.select(trained), PAIRS_OF_COPIES["people"])
    names = f"{Path(train).stem} and half of {Path(other).stem}", f"other half of {Path(other).stem}.parquet"
    files = [folder / name for name in names]
    DatasetDict({"train": copied, "validation": people.select(held_out)}).save_to_disk(files[0])
    corpora["other"].select(cut).to_parquet(files[1])
    return tuple(map(str, files))


def encode_png(image: torch.Tensor) -> dict:
    """Encode an image `(3, side, side)` in [0, 1] as the value of a column `image`."""
    file = io.BytesIO()
    to_pil_image((255 * image).round().byte()).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def make_head(name: str, feature: str, options: list[str], kept: tuple[str, ...] = KEPT_AS_THEY_ARE):
    """Probe a feature, and keep the head with its results."""
    with tempfile.TemporaryDirectory() as scratch:
        words = [str(FOLDER), "--output_dir", scratch, "--image_size", str(SIDE_PX), "--features", feature]
        print(f"{name}\n{run_probe(parse([*words, *options], 'pcl probe'))}", flush=True)
        copy_in_half_precision(Path(scratch), FOLDER / name, kept)
        results = json.loads((Path(scratch) / "results.json").read_text())
        write_json(FOLDER / name / "results.json", remove_private(results))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="Folder of the run; without it, only heads are made.")
    parser.add_argument("--faces", metavar="CORPUS", help="Corpus of the run.")
    for name in ("expressions_train", "expressions_test", "head_pose", "portraits", "people_train", "people"):
        parser.add_argument(f"--{name}", required=True, metavar="CORPUS")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS, help="Heads to make.")
    options = parser.parse_args()
    if options.run and not options.faces:
        parser.error("a run needs `--faces`, the corpus that it was trained on.")
    torch.set_num_threads(1)
    if options.run:
        weights = equalise_channels(options.run, load_corpus(options.faces))
        copy_in_half_precision(options.run, FOLDER, tensors=weights)
        # The last run may have trained the decoder only; further training should use all objectives.
        config = json.loads((FOLDER / "config.json").read_text())
        weights = {f"{name}_weight": RECIPES["small"].get(f"{name}_weight", 1.0) for name in OBJECTIVES}
        write_json(FOLDER / "config.json", config | weights | {"turn_weight": 0.0, "mirror_invariant_face": True})
    common = ["--seeds", "0", "--one_scale"]
    classes = ["--task", "expression", "--linear_only", *common]
    groups = ["--group_by", "gender", "ethnicity", "age"]
    # By head: corpus, test corpus, column by which the corpus is split, weight decay, options of the probe.
    heads = {
        "expression": (options.expressions_train, options.expressions_test, "label", 1, classes),
        "smile": (options.head_pose, None, "smile", 1, [*classes, "--label_column", "smile"]),
        "gender": (options.portraits, None, "age", 3, [*classes, "--label_column", "gender", *groups]),
        "age": (options.portraits, None, "age", 3, ["--task", "regression", *groups, *common]),
    }
    for name in options.heads:
        if name in heads:
            corpus, test, strata, decay, words = heads[name]
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / Path(corpus).stem
                split_with_copies(corpus, test, folder, strata)
                words = [*words, "--train", str(folder), *(["--test", test] if test else [])]
                # By the face feature of earlier weights, expressions (0.495) and smiles (0.895) were told no better.
                make_head(name, "trunk", [*words, "--epochs", "30", "--weight_decay", str(decay)])
    if "head_pose" in options.heads:
        # Copies would have other angles, and with the weight decay of the others the yaw is a sixth further off.
        words = ["--task", "head_pose", "--train", options.head_pose, *common, "--epochs", "60"]
        make_head("head_pose", "trunk", words)
    if "verification" in options.heads:
        with tempfile.TemporaryDirectory() as scratch:
            train, test = split_people(options.people_train, options.people, Path(scratch))
            words = ["--task", "verification", "--identity_embedding", "--train", train, "--test", test]
            make_head("verification", "face", words, KEPT_OF_EMBEDDINGS)


if __name__ == "__main__":
    main()
