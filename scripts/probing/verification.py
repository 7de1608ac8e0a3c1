"""Same or different person: features compared by their cosine, in folds that share no person."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from sklearn.metrics import roc_auc_score, roc_curve

from modeling_pcl import PCLImageProcessor
from modeling_pcl.data.corpora import corpus_splits, load_pairs
from modeling_pcl.data.pairs import make_pairs
from modeling_pcl.probes.curve_pictures import draw_roc
from modeling_pcl.probes.features import FEATURES
from modeling_pcl.probes.heads import save_embedding
from modeling_pcl.probes.identity_embedding import IdentityEmbedding, train_identity_embedding
from modeling_pcl.probes.metrics import load_metric
from modeling_pcl.probes.verification import pair_cosines

from .arguments import ProbeArguments
from .encoder import Encoder
from .parts import VALIDATION_SHARE, Part, cut, open_part
from .report import describe, over_seeds, table, write_predictions, write_results

logger = logging.getLogger(__name__)

FOLDS, PAIR_SEED = 10, 0
METRIC = "fold_verification"
MEASURES = ("accuracy", "accuracy_standard_error", "auc", "tar_at_far_0.01", "tar_at_far_0.001", "equal_error_rate")


@dataclass(frozen=True)
class TestPairs:
    """Pairs of rows of a corpus.

    Args:
        images: A corpus with the images.
        first, second: Row numbers, `(pairs,)`.
        same: Whether both show one person, `(pairs,)`.
        fold: Number of each pair's fold, `(pairs,)`.
        source: Where they are from, in words.
    """

    images: Dataset
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    source: str

    def whole(self, broken) -> "TestPairs":
        """Without the pairs of which an image does not decode."""
        kept = ~(np.isin(self.first, list(broken)) | np.isin(self.second, list(broken)))
        columns = (column[kept] for column in (self.first, self.second, self.same, self.fold))
        return TestPairs(self.images, *columns, self.source)

    def compute(self, cosines: np.ndarray) -> dict:
        return load_metric(METRIC).compute(
            predictions=cosines.tolist(), references=self.same.astype(int).tolist(), folds=self.fold.tolist()
        )


def open_pairs(arguments: ProbeArguments, name: str | None) -> TestPairs:
    """A list of pairs, or pairs drawn from a corpus whose people are known.

    Raises:
        ValueError: If there is no name, the corpus has neither pairs nor people, or too few for so many pairs.
    """
    if name is None:
        raise ValueError("`--task verification` needs `--test`, pairs or a corpus whose people are known.")
    splits = corpus_splits(name)
    try:
        return _listed(load_pairs(name, "test" if "test" in splits else splits[0]), name)
    except ValueError:
        if name.endswith(":pairs"):
            raise
    part = with_subjects(open_part(name, "test", subjects=arguments.test_subjects), arguments.label_column, name)
    folds = arguments.folds or FOLDS
    pairs = make_pairs(part.subjects(), arguments.pairs, folds, PAIR_SEED)
    source = f"{arguments.pairs} pairs of {part.source}, drawn with seed {PAIR_SEED}, {folds} folds by subject"
    return TestPairs(part.corpus, pairs.first, pairs.second, pairs.same, pairs.fold, source)


def _listed(pairs: Dataset, name: str) -> TestPairs:
    sides = [pairs.select_columns(column).rename_column(column, "image") for column in ("image_a", "image_b")]
    rows = np.arange(len(pairs))
    same, fold = (np.array(pairs.select_columns(column)[:][column]) for column in ("same", "fold"))
    return TestPairs(concatenate_datasets(sides), rows, rows + len(pairs), same.astype(bool), fold, name)


def with_subjects(part: Part, column: str | None, name: str) -> Part:
    """The corpus with its people as `subject`."""
    corpus, column = part.corpus, column or "subject"
    if column != "subject" and column in corpus.column_names:
        corpus = corpus.select_columns(["image", column]).rename_column(column, "subject")
    if "subject" not in corpus.column_names:
        raise ValueError(
            f"`{name}` has no column `subject`, only {corpus.column_names}; name the one of the people with "
            "`--label_column`."
        )
    return Part(corpus, part.rows, part.labels, part.source)


class Verification:
    """Pairs under one model.

    Args:
        arguments: The options.
        encoder: The model.
        name: Of the pairs or the corpus.
    """

    def __init__(self, arguments: ProbeArguments, encoder: Encoder, name: str | None):
        self.arguments, self.encoder = arguments, encoder
        self.image_size = arguments.image_size or encoder.model.config.image_size
        pairs = open_pairs(arguments, name)
        features = encoder.table(pairs.images, self.image_size, "float32", pairs.source)
        self.pairs, self.features = pairs.whole(features.broken), features.features

    def cosines(self, feature: str, embedding: IdentityEmbedding | None = None) -> np.ndarray:
        """Of every pair, in [-1, 1]."""
        rows = self.features[feature]
        if embedding is not None:
            rows = rows @ embedding.weight.T + embedding.bias
        return pair_cosines(rows, self.pairs.first, self.pairs.second)


def train_embeddings(
    arguments: ProbeArguments, encoder: Encoder, image_size: int, features: Sequence[str]
) -> dict[str, list[IdentityEmbedding]]:
    """A linear embedding for each feature and seed, its epoch chosen by AUC on people held out of `--train`."""
    if arguments.train is None:
        raise ValueError("`--identity_embedding` needs `--train`, a corpus whose people are known.")
    part = open_part(arguments.train, "train", subjects=arguments.train_subjects)
    part = with_subjects(part, arguments.label_column, arguments.train)
    encoded = encoder.table(part.corpus, image_size, "bf16", part.source)
    train, held_out = cut(part.without(encoded.broken), VALIDATION_SHARE)
    people = np.array(held_out.subjects())
    first, second = np.triu_indices(len(people), k=1)
    if len(first) > 1_000_000:
        chosen = np.random.default_rng(PAIR_SEED).choice(len(first), 1_000_000, replace=False)
        first, second = first[chosen], second[chosen]
    same = people[first] == people[second]

    def trained(feature: str, seed: int) -> IdentityEmbedding:
        rows, held_rows = (encoded.features[feature][torch.from_numpy(p.rows)] for p in (train, held_out))

        def score(weight: torch.Tensor, bias: torch.Tensor) -> float:
            return float(roc_auc_score(same, pair_cosines(held_rows.float() @ weight.T + bias, first, second)))

        chooses = score if arguments.protocol == "strict" else None
        return train_identity_embedding(rows, train.subjects(), chooses, seed=seed)

    return {feature: [trained(feature, seed) for seed in arguments.seeds] for feature in features}


def run(arguments: ProbeArguments) -> str:
    """Do it all; what remains is in `--output_dir`, and a table in words is returned."""
    encoder, folder = Encoder(arguments.model, arguments.cache_dir, arguments.batch_size), Path(arguments.output_dir)
    probe = Verification(arguments, encoder, arguments.test)
    features = list(FEATURES) if arguments.feature == "all" else [arguments.feature]
    cosines = {feature: {"cosine": [probe.cosines(feature)]} for feature in features}
    embeddings = {}
    if arguments.identity_embedding:
        embeddings = train_embeddings(arguments, encoder, probe.image_size, features)
        for feature, trained in embeddings.items():
            cosines[feature]["identity embedding"] = [probe.cosines(feature, embedding) for embedding in trained]
    results = {
        feature: {kind: over_seeds([probe.pairs.compute(values) for values in runs]) for kind, runs in kinds.items()}
        for feature, kinds in cosines.items()
    }
    _save(folder, encoder, probe, embeddings)
    _draw(folder, probe, cosines)
    facts = {
        "metric": "accuracy",
        "selection": "each fold is tested with the threshold that is best on the other folds",
        "image_size": probe.image_size,
        "parts": [{"test": {"source": probe.pairs.source, "pairs": len(probe.pairs.same)}}],
        "results": results,
    }
    write_results(folder, describe(arguments, encoder, facts))
    return table(results, MEASURES)


def _save(folder: Path, encoder: Encoder, probe: Verification, embeddings: dict[str, list[IdentityEmbedding]]):
    """The model that was compared: the encoder itself, or the best embedding as a head."""
    if embeddings:
        feature, embedding = max(
            ((feature, embedding) for feature, trained in embeddings.items() for embedding in trained),
            key=lambda pair: pair[1].score if pair[1].score is not None else 0,
        )
        save_embedding(encoder.model, embedding.weight, embedding.bias, feature, probe.image_size, folder)
    else:
        encoder.model.save_pretrained(folder)
        PCLImageProcessor.for_image_size(probe.image_size).save_pretrained(folder)


def _draw(folder: Path, probe: Verification, cosines: dict[str, dict[str, list[np.ndarray]]]):
    curves = {}
    for feature, kinds in cosines.items():
        for kind, runs in kinds.items():
            false_accepts, true_accepts, _ = roc_curve(probe.pairs.same, runs[0], drop_intermediate=False)
            curves[f"{feature}, {kind}"] = (false_accepts, true_accepts)
    draw_roc(curves, f"{len(probe.pairs.same):,} pairs of {probe.encoder.name}").save(folder / "roc.png")
    columns = {f"{feature} {kind}": runs[0] for feature, kinds in cosines.items() for kind, runs in kinds.items()}
    pairs = {"first": probe.pairs.first, "second": probe.pairs.second, "same": probe.pairs.same}
    write_predictions(folder, pairs | {"fold": probe.pairs.fold} | columns)
