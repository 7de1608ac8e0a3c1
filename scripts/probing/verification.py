"""Same or different person: features compared by their cosine, in folds that share no person."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from sklearn.metrics import roc_auc_score, roc_curve

from modeling_pcl import PCLImageProcessor
from modeling_pcl.data.corpora import corpus_revision, corpus_splits, is_list_of_pairs, load_pairs
from modeling_pcl.data.pairs import make_pairs
from modeling_pcl.probes.curve_pictures import draw_roc
from modeling_pcl.probes.heads import save_embedding
from modeling_pcl.probes.identity_embedding import IdentityEmbedding, train_identity_embedding
from modeling_pcl.probes.metrics import load_metric
from modeling_pcl.probes.verification import pair_cosines

from .arguments import ProbeArguments
from .encoder import Encoder
from .groups import by_group, group_tables, read_groups
from .part import NO_LABELS, ROW, Part
from .parts import VALIDATION_SHARE, cut, open_part
from .report import describe, over_seeds, start, table, write_predictions, write_results

logger = logging.getLogger(__name__)

FOLDS, PAIR_SEED, MOST_HELD_OUT_PAIRS = 10, 0, 1_000_000
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
        revision: Of the corpus or the list that was opened.
    """

    images: Dataset
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    source: str
    revision: str

    def whole(self, broken) -> "TestPairs":
        """Without the pairs of which an image does not decode."""
        kept = ~(np.isin(self.first, list(broken)) | np.isin(self.second, list(broken)))
        columns = (column[kept] for column in (self.first, self.second, self.same, self.fold))
        return TestPairs(self.images, *columns, self.source, self.revision)

    def describe(self) -> dict:
        return {"source": self.source, "pairs": len(self.same), "revision": self.revision}

    def columns(self) -> dict[str, np.ndarray]:
        """For `predictions.csv`: the images' rows in the split that was opened, or the pairs' in their list."""
        if ROW in self.images.column_names:
            rows = np.array(self.images.select_columns(ROW)[:][ROW])
            numbers = {"row_a": rows[self.first], "row_b": rows[self.second]}
        else:
            numbers = {"pair": self.first}
        return numbers | {"same": self.same, "fold": self.fold}

    def part(self) -> Part:
        """Every image of the pairs."""
        rows = np.unique(np.concatenate([self.first, self.second]))
        return Part(self.images, rows, NO_LABELS, self.source)

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
    split = "test" if "test" in splits else splits[0]
    if is_list_of_pairs(name, split):
        return _listed(load_pairs(name, split), name)
    part = open_part(name, "test", None, arguments.test_subjects, arguments.subject_column)
    folds = arguments.folds or FOLDS
    try:
        pairs = make_pairs(part.subjects(), arguments.pairs, folds, PAIR_SEED)
    except ValueError as error:
        raise ValueError(f"`--pairs {arguments.pairs}` with `--folds {folds}` from {part.source}: {error}") from error
    source = f"{arguments.pairs} pairs of {part.source}, drawn with seed {PAIR_SEED}, {folds} folds by subject"
    return TestPairs(part.corpus, pairs.first, pairs.second, pairs.same, pairs.fold, source, part.revision)


def _listed(pairs: Dataset, name: str) -> TestPairs:
    same, fold = (np.array(pairs.select_columns(column)[:][column], dtype=float) for column in ("same", "fold"))
    known = np.flatnonzero(~(np.isnan(same) | np.isnan(fold)))
    sides = [pairs.select_columns(column).rename_column(column, "image") for column in ("image_a", "image_b")]
    source = name if len(known) == len(pairs) else f"{name}, without {len(pairs) - len(known)} pairs not labelled"
    images, fold = concatenate_datasets(sides), fold[known].astype(int)
    return TestPairs(images, known, known + len(pairs), same[known] == 1, fold, source, corpus_revision(images))


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
        self.groups = read_groups(pairs.images, arguments.group_by, pairs.source)
        features = encoder.table(pairs.images, self.image_size, "float32", pairs.source)
        self.pairs, self.features = pairs.whole(features.broken), features.features

    def cosines(self, feature: str, embedding: IdentityEmbedding | None = None) -> np.ndarray:
        """Of every pair, in [-1, 1]."""
        rows = self.features[feature]
        if embedding is not None:
            rows = rows[:] @ embedding.weight.T + embedding.bias
        return pair_cosines(rows, self.pairs.first, self.pairs.second)


@dataclass
class Embedded:
    """An identity embedding with where it stands: its feature and seed."""

    feature: str
    seed: int
    embedding: IdentityEmbedding


def train_embeddings(
    arguments: ProbeArguments, probe: "Verification", features: Sequence[str]
) -> tuple[list[Embedded], dict]:
    """A linear embedding for each feature and seed, its epoch chosen by AUC on people held out of `--train`.

    Returns:
        The embeddings, and what they were trained and chosen on.

    Raises:
        ValueError: If there is no `--train`, too few people, or only images and people of the test pairs.
    """
    if arguments.train is None:
        raise ValueError("`--identity_embedding` needs `--train`, a corpus whose people are known.")
    part = open_part(arguments.train, "train", None, arguments.train_subjects, arguments.subject_column)
    part = _without_people_of(part.without_images_of(probe.pairs.part()), probe.pairs)
    table = probe.encoder.table(part.corpus, probe.image_size, "bf16", part.source)
    part, held_out = part.without(table.broken), None
    if arguments.protocol == "strict":
        part, held_out = cut(part, VALIDATION_SHARE)
    score = None if held_out is None else HeldOutPeople(held_out.subjects())
    trained = []
    for feature in features:
        rows = table.features[feature][torch.from_numpy(part.rows)]
        held_rows = None if held_out is None else table.features[feature][torch.from_numpy(held_out.rows)].float()
        for seed in arguments.seeds:
            chooses = None if score is None else partial(score.auc, held_rows)
            embedding = train_identity_embedding(rows, part.subjects(), chooses, seed=seed)
            trained.append(Embedded(feature, seed, embedding))
    return trained, {"train": part.describe(), "validation": held_out and held_out.describe()}


def _without_people_of(part: Part, pairs: TestPairs) -> Part:
    """The part without the people of the pairs, where their names are known."""
    if "subject" not in pairs.images.column_names:
        return part
    tested = set(pairs.images.select_columns("subject")[:]["subject"])
    kept = np.array([subject not in tested for subject in part.subjects()])
    if not kept.any():
        raise ValueError(f"Every person of {part.source} is in the test pairs, too; give another `--train`.")
    if kept.all():
        return part
    return part.keeping(part.rows[kept], f"{part.source}, without the people of the test pairs")


class HeldOutPeople:
    """All pairs of held-out images, or a million of them.

    Args:
        subjects: Who each image shows.

    Raises:
        ValueError: If the pairs are all of one kind.
    """

    def __init__(self, subjects: list):
        people = np.array(subjects, dtype=object)
        self.first, self.second = np.triu_indices(len(people), k=1)
        if len(self.first) > MOST_HELD_OUT_PAIRS:
            chosen = np.random.default_rng(PAIR_SEED).choice(len(self.first), MOST_HELD_OUT_PAIRS, replace=False)
            self.first, self.second = self.first[chosen], self.second[chosen]
        self.same = people[self.first] == people[self.second]
        if self.same.all() or not self.same.any():
            raise ValueError(
                f"A tenth of the people, {len(set(subjects))}, is held out to choose the epoch: that must be two, and "
                "two images of one of them. Give a larger `--train`."
            )

    def auc(self, features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> float:
        """Of the cosines of an embedding."""
        return float(roc_auc_score(self.same, pair_cosines(features @ weight.T + bias, self.first, self.second)))


def run(arguments: ProbeArguments) -> str:
    """Do it all; what remains is in `--output_dir`, and a table in words is returned."""
    folder = Path(arguments.output_dir)
    start(folder)
    encoder = Encoder(arguments.model, arguments.cache_dir, arguments.batch_size)
    probe = Verification(arguments, encoder, arguments.test)
    features = arguments.feature_names()
    cosines = {feature: probe.cosines(feature) for feature in features}
    measured = {feature: probe.pairs.compute(cosines[feature]) for feature in features}
    results = {feature: {"cosine": over_seeds([measured[feature]])} for feature in features}
    facts = {
        "metric": "accuracy",
        "selection": "each fold is tested with the threshold that is best on the other folds",
        "image_size": probe.image_size,
        "protocol": arguments.protocol,
        "parts": [{"test": probe.pairs.describe()}],
        "results": results,
    }
    columns = {f"{feature} cosine": values for feature, values in cosines.items()}
    if arguments.identity_embedding:
        columns |= _embed(arguments, probe, features, facts, folder)
    else:
        best = max(features, key=lambda feature: measured[feature]["accuracy"])
        config = encoder.model.config
        config.verification_feature, config.verification_threshold = best, measured[best]["threshold"]
        config.image_size = probe.image_size  # For which the threshold holds; the encoder takes any.
        encoder.model.save_pretrained(folder)
        PCLImageProcessor.for_image_size(probe.image_size).save_pretrained(folder)
    _draw(folder, probe, columns)
    said = [table(results, MEASURES)]
    if probe.groups:
        name, cosines = max(columns.items(), key=lambda column: probe.pairs.compute(column[1])["accuracy"])
        facts["groups"] = _by_group(probe.pairs, probe.groups, name, cosines)
        said.append(group_tables(facts["groups"], MEASURES, "pairs"))
    write_results(folder, describe(arguments, encoder, facts))
    return "\n\n".join(said)


def _by_group(pairs: TestPairs, groups: dict[str, np.ndarray], name: str, cosines: np.ndarray) -> dict:
    """Measures of the pairs whose both images are of a group; none where these are all of one kind or fold."""

    def measure(places: np.ndarray) -> list[dict]:
        own = replace(pairs, **{part: getattr(pairs, part)[places] for part in ("first", "second", "same", "fold")})
        has_both = 0 < own.same.sum() < len(own.same) and len(set(own.fold)) > 1
        return [own.compute(cosines[places])] if has_both else []

    within = {
        column: np.where(found[pairs.first] == found[pairs.second], found[pairs.first], None)
        for column, found in groups.items()
    }
    return {column: by_group(found, name, "pairs", measure) for column, found in within.items()}


def _embed(arguments: ProbeArguments, probe: "Verification", features: list[str], facts: dict, folder: Path) -> dict:
    """Train embeddings, add their results to the facts and save the best one, whose cosines are returned."""
    trained, parts = train_embeddings(arguments, probe, features)
    facts["parts"][0] |= parts
    facts["seeds"] = arguments.seeds
    for feature in features:
        measured = [
            probe.pairs.compute(probe.cosines(feature, each.embedding)) for each in trained if each.feature == feature
        ]
        facts["results"][feature]["identity embedding"] = over_seeds(measured)
    best = max(trained, key=lambda each: each.embedding.score or 0)
    chosen = {"learning_rate": best.embedding.learning_rate, "epoch": best.embedding.epoch}
    facts["head"] = [{"feature": best.feature, "seed": best.seed, "score": best.embedding.score} | chosen]
    cosines = probe.cosines(best.feature, best.embedding)
    weight, bias = best.embedding.weight, best.embedding.bias
    probe.encoder.model.config.verification_threshold = probe.pairs.compute(cosines)["threshold"]
    save_embedding(probe.encoder.model, weight, bias, best.feature, probe.image_size, folder)
    return {f"{best.feature} identity embedding": cosines}


def _draw(folder: Path, probe: Verification, columns: dict[str, np.ndarray]):
    curves = {
        name: roc_curve(probe.pairs.same, values, drop_intermediate=False)[:2] for name, values in columns.items()
    }
    draw_roc(curves, f"{len(probe.pairs.same):,} pairs of {probe.encoder.name}").save(folder / "roc.png")
    write_predictions(folder, probe.pairs.columns() | columns)
