"""Measure what a frozen PCL encoder knows; for now, whether two images show one person:

python scripts/probe.py --task verification --model runs/quickstart-seed0 --train orl --train_subjects s1-s30 \
    --test orl --test_subjects s31-s40 --output_dir runs/quickstart-seed0/verification
"""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from transformers import HfArgumentParser, set_seed
from transformers.utils.logging import disable_progress_bar

from modeling_pcl import PCLConfig, PCLModel
from modeling_pcl.data.corpora import corpus_revision, load_corpus, select_subjects
from modeling_pcl.data.images import decode_image
from modeling_pcl.probes.features import FEATURES, extract_features
from modeling_pcl.probes.verification import all_pairs, best_threshold, verify


@dataclass
class ProbeArguments:
    """What to measure, on what."""

    model: str = field(metadata={"help": "Folder or Hub id of a PCL model."})
    train: str = field(metadata={"help": "Corpus with a `subject` column; the threshold is chosen on its pairs."})
    test: str = field(metadata={"help": "Corpus with a `subject` column, of other people."})
    task: Literal["verification"] = field(
        default="verification", metadata={"help": "Same or different person, by the cosine of the features."}
    )
    train_subjects: str | None = field(default=None, metadata={"help": "`s1-s30`, or names with commas between them."})
    test_subjects: str | None = field(default=None, metadata={"help": "`s31-s40`, or names with commas between them."})
    feature: Literal["trunk", "face", "pose", "all"] = field(default="all", metadata={"help": "What is compared."})
    random_seeds: int = field(
        default=3, metadata={"help": "Random initialisations of the same config to measure beside the model."}
    )
    batch_size: int = field(default=64, metadata={"help": "Images encoded at once."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder for results.json."})


def open_corpus(name: str, subjects: str | None):
    corpus = load_corpus(name)
    corpus = corpus if subjects is None else select_subjects(corpus, subjects)
    if "subject" not in corpus.column_names:
        raise ValueError(f"`{name}` has no column `subject`, only {corpus.column_names}.")
    return corpus


def image_batches(corpus, size_px: int, batch_size: int):
    for start in range(0, len(corpus), batch_size):
        rows = corpus[start : start + batch_size]["image"]
        yield torch.stack([decode_image(row, size_px) for row in rows])


def measure(model: PCLModel, train, test, arguments: ProbeArguments) -> dict[str, dict[str, float]]:
    """AUC and accuracy of each feature asked for."""

    def pairs(corpus) -> dict:
        batches = image_batches(corpus, model.config.image_size, arguments.batch_size)
        features = extract_features(model, batches, total=-(-len(corpus) // arguments.batch_size))
        return {name: all_pairs(features[name], list(corpus["subject"])) for name in names}

    names = list(FEATURES) if arguments.feature == "all" else [arguments.feature]
    train_pairs, test_pairs = pairs(train), pairs(test)
    return {name: verify(test_pairs[name], best_threshold(train_pairs[name])) for name in names}


def random_baselines(config: PCLConfig, train, test, arguments: ProbeArguments) -> list[dict]:
    results = []
    for seed in range(arguments.random_seeds):
        set_seed(seed)
        results.append(measure(PCLModel(config), train, test, arguments))
    return results


def table(results: dict, baselines: list[dict]) -> str:
    """A line for each feature and metric: the model, and the random initialisations' mean and spread."""
    lines = [f"{'feature':8} {'metric':9} {'model':>7}   random initialisation"]
    for name, values in results.items():
        for metric in ("auc", "accuracy"):
            line = f"{name:8} {metric:9} {values[metric]:7.3f}"
            if baselines:
                others = [baseline[name][metric] for baseline in baselines]
                line += f"   {statistics.mean(others):.3f} ({min(others):.3f} to {max(others):.3f})"
            lines.append(line)
    return "\n".join(lines)


def main():
    parser = HfArgumentParser(ProbeArguments, description=__doc__)
    (arguments,) = parser.parse_args_into_dataclasses()
    disable_progress_bar()  # transformers' own, for the weights
    try:
        train = open_corpus(arguments.train, arguments.train_subjects)
        test = open_corpus(arguments.test, arguments.test_subjects)
        shared = set(train["subject"]) & set(test["subject"])
        if shared:
            raise ValueError(f"The same people are in train and test: {', '.join(sorted(shared)[:5])} …")
        model = PCLModel.from_pretrained(arguments.model)
        results = measure(model, train, test, arguments)
        baselines = random_baselines(model.config, train, test, arguments)
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    print(table(results, baselines))
    if arguments.output_dir is not None:
        folder = Path(arguments.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        record = {"arguments": asdict(arguments), "results": results, "random_initialisations": baselines}
        record["data_revisions"] = {"train": corpus_revision(train), "test": corpus_revision(test)}
        (folder / "results.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
