"""Makes `hub_cards/pcl-small-faces` of a pre-training run: weights of half the bytes, and a head for each task:

python scripts/ship_small_faces.py runs/long --expressions_train fer2013_train.parquet \\
    --expressions_test fer2013_public_test.parquet --head_pose corpora/genki4k --portraits utkface.parquet \\
    --people celeba.parquet

Of each head there are several, and that is kept which is best on validation data. README.md, scores and pictures
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
# What heads may read, at which side in px; at 64 px validation scores are lower for every task (scores.csv).
CANDIDATES = (("trunk", 100), ("face", 100))
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


def make_head(name: str, candidates: tuple[tuple[str, int], ...], options: list[str]):
    """Probe each feature and side, and keep the head with the best score on validation data with its results."""
    with tempfile.TemporaryDirectory() as scratch:
        records = {}
        for feature, side in candidates:
            folder = Path(scratch) / f"{feature} at {side} px"
            words = [str(FOLDER), "--output_dir", str(folder), "--image_size", str(side), "--features", feature]
            print(f"{name}, {folder.name}\n{probe(parse([*words, *options], 'pcl probe'))}", flush=True)
            records[folder] = json.loads((folder / "results.json").read_text())
        scores = {path.name: record["head"][0]["score"] for path, record in records.items() if "head" in record}
        best = max(records, key=lambda path: scores.get(path.name, 0.0))
        copy_in_half_precision(best, FOLDER / name)
        write_json(FOLDER / name / "results.json", without_private(records[best] | {"validation_scores": scores}))


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
    common = ["--epochs", options.epochs, "--seeds", "0"]
    expression = ["--train", options.expressions_train, "--test", options.expressions_test]
    make_head("expression", CANDIDATES, ["--task", "expression", *expression, *common])
    make_head("head_pose", CANDIDATES, ["--task", "head_pose", "--train", options.head_pose, *common])
    smile = ["--task", "expression", "--train", options.head_pose, "--label_column", "smile"]
    make_head("smile", CANDIDATES, [*smile, *common])
    gender = ["--label_column", "gender", *groups]
    make_head("gender", CANDIDATES, ["--task", "expression", "--train", options.portraits, *gender, *common])
    make_head("age", CANDIDATES, ["--task", "regression", "--train", options.portraits, *groups, *common])
    # Pairs have no validation data: the feature is the one made for it, the side that at which the others read better.
    verification = ["--task", "verification", "--test", options.people, "--subject_column", "identity"]
    make_head("verification", (("face", 100),), verification)


if __name__ == "__main__":
    main()
