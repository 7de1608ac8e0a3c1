"""Make `hub_cards/pcl-small-faces` from a pre-training run: float16 weights, and a head for each task:

python scripts/ship_small_faces.py runs/long --expressions_train fer2013_train.parquet \\
    --expressions_test fer2013_public_test.parquet --head_pose corpora/genki4k --portraits utkface.parquet \\
    --people_train youtube_faces.parquet --people celeba.parquet

For each task several heads are trained, and the one with the best score on validation data is kept. README.md, scores
and pictures in the folder are not changed.
"""

import argparse
import io
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import torch
from datasets import DatasetDict, concatenate_datasets
from safetensors.torch import load_file, save_file

from modeling_pcl.commands.probe import parse
from modeling_pcl.configuration_pcl import OBJECTIVES
from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.data.images import image_bytes
from modeling_pcl.files import write_json
from modeling_pcl.hub.published import remove_private
from modeling_pcl.hub.repository import HEAD_FILES
from modeling_pcl.images_pcl import open_image
from modeling_pcl.probes.probe import run_probe
from modeling_pcl.training.recipes import RECIPES

FOLDER = Path(__file__).parents[1] / "hub_cards" / "pcl-small-faces"
TIGHTER_CROPS = (0.85, 0.7)  # Fractions of the side.
# Candidates for heads: the feature, and the side in px. At 64 px validation scores of these tasks are lower
# (scores.csv).
CANDIDATES = (("trunk", 100), ("face", 100))
# Parts of names of tensors that stay float32: heads fit the scale of the features, and statistics may have any scale.
KEPT_AS_THEY_ARE = ("classifier.", "regressor.", ".running_")


def copy_in_half_precision(source: Path, folder: Path):
    """Copy a model with float16 weights, except those of its head. The config's `dtype` opens them as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in HEAD_FILES:
        shutil.copyfile(source / name, folder / name)
    tensors = load_file(source / "model.safetensors")
    halved = {
        name: tensor.half() if tensor.is_floating_point() and not any(map(name.count, KEPT_AS_THEY_ARE)) else tensor
        for name, tensor in tensors.items()
    }
    if not all(tensor.isfinite().all() for tensor in halved.values()):
        raise ValueError(f"{source} holds weights that are out of the range of float16.")
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})


def split_with_tighter_crops(corpus: str, folder: Path) -> str:
    """Split a corpus into training, validation and test images, and add tighter crops of the training images.

    All images of these collections have the same crop, and a head that was trained on one crop only fails on others.
    """
    faces = load_corpus(corpus)
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0)).tolist()
    parts = {"test": order[: len(order) // 5], "validation": order[len(order) // 5 : len(order) * 3 // 10]}
    splits = {name: faces.select(rows) for name, rows in parts.items()}
    train = faces.select(order[len(order) * 3 // 10 :])
    tighter = [train.map(partial(cut_middle, share=share), desc=f"crops of {share}") for share in TIGHTER_CROPS]
    splits["train"] = concatenate_datasets([train, *tighter])
    DatasetDict(splits).save_to_disk(folder)
    return str(folder)


def cut_middle(row: dict, share: float) -> dict:
    """Keep the central square of an image, whose side is a fraction of the shorter side."""
    image = open_image(image_bytes(row["image"]))
    side, file = share * min(image.size), io.BytesIO()
    left, top = (image.width - side) / 2, (image.height - side) / 2
    image.crop((round(left), round(top), round(left + side), round(top + side))).save(file, "PNG")
    return {"image": {"bytes": file.getvalue(), "path": None}}


def make_head(name: str, candidates: tuple[tuple[str, int], ...], options: list[str]):
    """Probe each feature and side, and keep the head with the best score on validation data with its results."""
    with tempfile.TemporaryDirectory() as scratch:
        records = {}
        for feature, side in candidates:
            folder = Path(scratch) / f"{feature} at {side} px"
            words = [str(FOLDER), "--output_dir", str(folder), "--image_size", str(side), "--features", feature]
            print(f"{name}, {folder.name}\n{run_probe(parse([*words, *options], 'pcl probe'))}", flush=True)
            records[folder] = json.loads((folder / "results.json").read_text())
        scores = {path.name: record["head"][0]["score"] for path, record in records.items() if "head" in record}
        best = max(records, key=lambda path: scores.get(path.name, 0.0))
        copy_in_half_precision(best, FOLDER / name)
        write_json(FOLDER / name / "results.json", remove_private(records[best] | {"validation_scores": scores}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Folder of the run.")
    for name in ("expressions_train", "expressions_test", "head_pose", "portraits", "people_train", "people"):
        parser.add_argument(f"--{name}", required=True, metavar="CORPUS")
    parser.add_argument("--epochs", default="60")
    options = parser.parse_args()
    torch.set_num_threads(1)
    copy_in_half_precision(options.run, FOLDER)
    # The last run may have trained the decoder only; further training should use all objectives.
    config = json.loads((FOLDER / "config.json").read_text())
    weights = {f"{name}_weight": RECIPES["small"].get(f"{name}_weight", 1.0) for name in OBJECTIVES}
    write_json(FOLDER / "config.json", config | weights)
    groups = ["--group_by", "gender", "ethnicity", "age"]
    common = ["--epochs", options.epochs, "--seeds", "0", "--one_scale"]
    classes = ["--task", "expression", "--linear_only", *common]
    expression = ["--train", options.expressions_train, "--test", options.expressions_test]
    make_head("expression", CANDIDATES, [*classes, *expression])
    make_head("head_pose", CANDIDATES, ["--task", "head_pose", "--train", options.head_pose, *common])
    with tempfile.TemporaryDirectory() as scratch:
        smiles = split_with_tighter_crops(options.head_pose, Path(scratch) / "smiles")
        portraits = split_with_tighter_crops(options.portraits, Path(scratch) / "portraits")
        make_head("smile", CANDIDATES, [*classes, "--train", smiles, "--label_column", "smile"])
        make_head("gender", CANDIDATES, [*classes, "--train", portraits, "--label_column", "gender", *groups])
        make_head("age", CANDIDATES, ["--task", "regression", "--train", portraits, *groups, *common])
    # Unlike for the other tasks, the face branch distinguishes people better at 64 px.
    embedding = ["--identity_embedding", "--train", options.people_train, "--test", options.people, "--seeds", "0"]
    make_head("verification", (("face", 64),), ["--task", "verification", *embedding])


if __name__ == "__main__":
    main()
