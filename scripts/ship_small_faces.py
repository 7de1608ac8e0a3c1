"""Makes `hub_cards/pcl-small-faces` of a pre-training run: weights of half the bytes, and a head for each task:

python scripts/ship_small_faces.py runs/long --expressions_train fer2013_train.parquet \\
    --expressions_test fer2013_public_test.parquet --head_pose corpora/genki4k --portraits utkface.parquet \\
    --people celeba.parquet

Each head is trained at several sides, and that is kept which is best on validation data. README.md, scores and pictures
that are in the folder stay.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from modeling_pcl.commands.probe import parse
from modeling_pcl.files import write_json
from modeling_pcl.hub.published import without_private
from modeling_pcl.hub.repository import HEAD_FILES
from modeling_pcl.probes.probe import probe

FOLDER = Path(__file__).parents[1] / "hub_cards" / "pcl-small-faces"
SIDES_PX = (64, 100)
# Heads read features as they are, and statistics are of any size.
KEPT_AS_THEY_ARE = ("classifier.", "regressor.", ".running_")


def copy_in_half_precision(source: Path, folder: Path):
    """Copy a model; its weights are float16, but for a head's own. Its config's `dtype` opens them as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in HEAD_FILES:
        shutil.copyfile(source / name, folder / name)
    tensors = load_file(source / "model.safetensors")
    halved = {
        name: tensor.half() if tensor.is_floating_point() and not any(map(name.count, KEPT_AS_THEY_ARE)) else tensor
        for name, tensor in tensors.items()
    }
    if not all(tensor.isfinite().all() for tensor in halved.values()):
        raise ValueError(f"{source} holds weights beyond the reach of float16.")
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})


def make_head(name: str, sides_px: tuple[int, ...], options: list[str]):
    """Probe at each side, and keep the head with the best score on validation data with its results."""
    with tempfile.TemporaryDirectory() as scratch:
        scores = {}
        for side in sides_px:
            words = [str(FOLDER), "--output_dir", f"{scratch}/{side}", "--image_size", str(side), *options]
            print(f"{name} at {side} px\n{probe(parse(words, 'pcl probe'))}")
            results = json.loads(Path(f"{scratch}/{side}/results.json").read_text())
            scores[side] = results["head"][0]["score"] if "head" in results else 0.0
        side = max(scores, key=scores.get)
        copy_in_half_precision(Path(f"{scratch}/{side}"), FOLDER / name)
        results = json.loads(Path(f"{scratch}/{side}/results.json").read_text())
        write_json(FOLDER / name / "results.json", without_private(results | {"validation_scores": scores}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Folder of the run.")
    for name in ("expressions_train", "expressions_test", "head_pose", "portraits", "people"):
        parser.add_argument(f"--{name}", required=True, metavar="CORPUS")
    parser.add_argument("--epochs", default="60")
    options = parser.parse_args()
    torch.set_num_threads(1)
    copy_in_half_precision(options.run, FOLDER)
    groups = ["--group_by", "gender", "ethnicity", "age"]
    common = ["--epochs", options.epochs]
    expression = ["--train", options.expressions_train, "--test", options.expressions_test]
    make_head("expression", SIDES_PX, ["--task", "expression", *expression, *common])
    make_head("head_pose", SIDES_PX, ["--task", "head_pose", "--train", options.head_pose, *common])
    smile = ["--task", "expression", "--train", options.head_pose, "--label_column", "smile"]
    make_head("smile", SIDES_PX, [*smile, *common])
    gender = ["--label_column", "gender", *groups]
    make_head("gender", SIDES_PX, ["--task", "expression", "--train", options.portraits, *gender, *common])
    make_head("age", SIDES_PX, ["--task", "regression", "--train", options.portraits, *groups, *common])
    # Pairs have no validation data: the larger side, at which the others read better.
    verification = ["--test", options.people, "--subject_column", "identity"]
    make_head("verification", SIDES_PX[-1:], ["--task", "verification", *verification])


if __name__ == "__main__":
    main()
