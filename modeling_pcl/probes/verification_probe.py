"""The verification probe: cosines of features, or of a linear embedding of them, in folds that share no person."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from ..image_processing_pcl import PCLImageProcessor
from ..pictures.charts import draw_roc
from .arguments import VerificationArguments
from .encoder import Encoder
from .heads import save_embedding
from .identity_embedding import IdentityEmbedding, train_identity_embedding
from .results import (
    group_tables,
    measure_groups,
    over_seeds,
    remove_old_results,
    results_table,
    write_predictions,
    write_results,
)
from .subset import VALIDATION_SHARE, Subset, open_subset, split_off
from .verification import PAIR_SEED, TestPairs, Verification, pair_cosines

logger = logging.getLogger(__name__)

MOST_HELD_OUT_PAIRS = 1_000_000
MEASURES = ("accuracy", "accuracy_standard_error", "auc", "tar_at_far_0.01", "tar_at_far_0.001", "equal_error_rate")


@dataclass
class TrainedEmbedding:
    """An identity embedding, with the feature that it reads and the seed of its training."""

    feature: str
    seed: int
    embedding: IdentityEmbedding


def train_embeddings(
    arguments: VerificationArguments, probe: Verification, features: Sequence[str]
) -> tuple[list[TrainedEmbedding], dict]:
    """A linear embedding for each feature and seed, its epoch chosen by AUC on people held out of `--train`.

    Returns:
        The embeddings, and what they were trained and chosen on.

    Raises:
        ValueError: If there is no `--train`, too few people, or only images and people of the test pairs.
    """
    if arguments.train is None:
        raise ValueError("`--identity_embedding` needs `--train`, a corpus whose people are known.")
    people = open_subset(arguments.train, "train", None, arguments.train_subjects, arguments.subject_column)
    people = _without_people_of(people.without_images_of(probe.pairs.images_subset()), probe.pairs)
    encoded = probe.encoder.table(people.corpus, probe.image_size, "bf16", people.source)
    people, held_out = people.without(encoded.broken), None
    if arguments.protocol == "strict":
        people, held_out = split_off(people, VALIDATION_SHARE)
    score = None if held_out is None else HeldOutPeople(held_out.subjects())
    trained = []
    for feature in features:
        rows = encoded.features[feature][torch.from_numpy(people.rows)]
        held_rows = None if held_out is None else encoded.features[feature][torch.from_numpy(held_out.rows)].float()
        for seed in arguments.seeds:
            held_out_score = None if score is None else partial(score.auc, held_rows)
            embedding = train_identity_embedding(rows, people.subjects(), held_out_score, seed=seed)
            trained.append(TrainedEmbedding(feature, seed, embedding))
    return trained, {"train": people.describe(), "validation": held_out and held_out.describe()}


def _without_people_of(people: Subset, pairs: TestPairs) -> Subset:
    """The people without the people of the pairs, where their names are known."""
    if "subject" not in pairs.images.column_names:
        return people
    tested = set(pairs.images.select_columns("subject")[:]["subject"])
    kept = np.array([subject not in tested for subject in people.subjects()])
    if not kept.any():
        raise ValueError(f"Every person of {people.source} is in the test pairs, too; give another `--train`.")
    if kept.all():
        return people
    return people.keeping(people.rows[kept], f"{people.source}, without the people of the test pairs")


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


def run_verification_probe(arguments: VerificationArguments) -> str:
    """Measure how well features, and embeddings where they are asked for, tell people apart.

    Returns:
        A table of the results; all that remains is in `output_dir`.

    Raises:
        ValueError, OSError: If an option, a corpus or the model is not as it must be.
    """
    folder = Path(arguments.output_dir)
    remove_old_results(folder)
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
        columns |= _add_embeddings(arguments, probe, features, facts, folder)
    else:
        best = max(features, key=lambda feature: measured[feature]["accuracy"])
        config = encoder.model.config
        config.verification_feature, config.verification_threshold = best, measured[best]["threshold"]
        config.image_size = probe.image_size  # For which the threshold holds; the encoder takes any.
        encoder.model.save_pretrained(folder)
        PCLImageProcessor.for_image_size(probe.image_size).save_pretrained(folder)
    curves = {
        name: roc_curve(probe.pairs.same, values, drop_intermediate=False)[:2] for name, values in columns.items()
    }
    draw_roc(curves, f"{len(probe.pairs.same):,} pairs of {encoder.name}").save(folder / "roc.png")
    write_predictions(folder, probe.pairs.columns() | columns)
    tables = [results_table(results, MEASURES)]
    if probe.groups:
        name, cosines = max(columns.items(), key=lambda column: probe.pairs.compute(column[1])["accuracy"])
        facts["groups"] = _measure_groups(probe.pairs, probe.groups, name, cosines)
        tables.append(group_tables(facts["groups"], MEASURES, "pairs"))
    write_results(arguments, encoder, facts)
    return "\n\n".join(tables)


def _measure_groups(pairs: TestPairs, groups: dict[str, np.ndarray], name: str, cosines: np.ndarray) -> dict:
    """Measures of the pairs whose both images are of a group; none where these are all of one kind or fold."""

    def measure(places: np.ndarray) -> list[dict]:
        columns = ("first", "second", "same", "fold")
        of_group = replace(pairs, **{column: getattr(pairs, column)[places] for column in columns})
        has_both = 0 < of_group.same.sum() < len(of_group.same) and len(set(of_group.fold)) > 1
        return [of_group.compute(cosines[places])] if has_both else []

    within = {
        column: np.where(of_row[pairs.first] == of_row[pairs.second], of_row[pairs.first], None)
        for column, of_row in groups.items()
    }
    return {column: measure_groups(of_pair, name, "pairs", measure) for column, of_pair in within.items()}


def _add_embeddings(
    arguments: VerificationArguments, probe: Verification, features: list[str], facts: dict, folder: Path
) -> dict:
    """Train embeddings, add their results to the facts and save the best one, whose cosines are returned."""
    trained, parts = train_embeddings(arguments, probe, features)
    facts["parts"][0] |= parts
    facts["seeds"] = arguments.seeds
    for feature in features:
        measured = [
            probe.pairs.compute(probe.cosines(feature, entry.embedding))
            for entry in trained
            if entry.feature == feature
        ]
        facts["results"][feature]["identity embedding"] = over_seeds(measured)
    best = max(trained, key=lambda entry: entry.embedding.score or 0)
    chosen = {"learning_rate": best.embedding.learning_rate, "epoch": best.embedding.epoch}
    facts["head"] = [{"feature": best.feature, "seed": best.seed, "score": best.embedding.score} | chosen]
    cosines = probe.cosines(best.feature, best.embedding)
    weight, bias = best.embedding.weight, best.embedding.bias
    probe.encoder.model.config.verification_threshold = probe.pairs.compute(cosines)["threshold"]
    save_embedding(probe.encoder.model, weight, bias, best.feature, probe.image_size, folder)
    return {f"{best.feature} identity embedding": cosines}
