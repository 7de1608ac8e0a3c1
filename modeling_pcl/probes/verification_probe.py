"""The verification probe: cosines of features, or of a linear embedding of them, in folds that share no person."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from ..pictures.charts import draw_roc
from .arguments import VerificationArguments
from .encoder import Encoder
from .groups import format_group_tables, measure_groups, read_groups
from .heads import save_embedding, save_head
from .identity_embedding import train_identity_embedding
from .linear import LinearProbe
from .results import results_table, summarise_seeds
from .subset import VALIDATION_SHARE, Subset, encode_subset, open_subset, split_off
from .verification import PAIR_SEED, TestPairs, compute_pair_cosines, open_pairs

MOST_HELD_OUT_PAIRS = 1_000_000  # Those of 1,414 images; every epoch is judged by all of them.
MEASURES = ("accuracy", "accuracy_standard_error", "auc", "tar_at_far_0.01", "tar_at_far_0.001", "equal_error_rate")


def run_verification_probe(arguments: VerificationArguments, encoder: Encoder, folder: Path) -> tuple[dict, str]:
    """Measure how well features, and embeddings where asked for, tell people apart; as `probe.RUNS` says."""
    image_size, features = arguments.image_size or encoder.image_size, arguments.feature_names()
    pairs = open_pairs(arguments, arguments.test)
    groups = read_groups(pairs.corpus, arguments.group_by, pairs.source)
    table = encoder.extract(pairs.corpus, image_size, "float32", pairs.source)
    pairs = pairs.drop_broken(table.broken)
    cosines = {feature: pairs.compute_cosines(table.features[feature]) for feature in features}
    measured = {feature: pairs.measure(cosines[feature]) for feature in features}
    facts = {
        "metric": "accuracy",
        "selection": "each fold is tested with the threshold that is best on the other folds",
        "image_size": image_size,
        "protocol": arguments.protocol,
        "parts": [{"test": pairs.describe()}],
        "results": {feature: {"cosine": summarise_seeds([measured[feature]])} for feature in features},
    }
    columns = {f"{feature} cosine": values for feature, values in cosines.items()}
    config = encoder.model.config
    if arguments.identity_embedding:
        trained, parts = train_embeddings(arguments, encoder, image_size, pairs)
        embedded = {
            key: pairs.compute_cosines(probe.compute_logits(table.features[key[0]][:]))
            for key, probe in trained.items()
        }
        for feature in features:
            of_seeds = [pairs.measure(embedded[feature, seed]) for seed in arguments.seeds]
            facts["results"][feature]["identity embedding"] = summarise_seeds(of_seeds)
        feature, seed = best = max(trained, key=lambda key: trained[key].selection.score or 0)
        chosen = trained[best]
        facts["parts"][0] |= parts
        facts["seeds"] = arguments.seeds
        facts["head"] = [{"feature": feature, "seed": seed} | chosen.selection.describe()]
        columns[f"{feature} identity embedding"] = embedded[best]
        config.verification_threshold = pairs.measure(embedded[best])["threshold"]
        save_embedding(encoder.model, chosen.weight, chosen.bias, feature, image_size, folder)
    else:
        best = max(features, key=lambda feature: measured[feature]["accuracy"])
        config.verification_feature, config.verification_threshold = best, measured[best]["threshold"]
        config.image_size = image_size  # For which the threshold holds; the encoder takes any.
        save_head(encoder.model, folder)
    tables = [results_table(facts["results"], MEASURES)]
    if groups:
        best = max(columns, key=lambda name: pairs.measure(columns[name])["accuracy"])
        facts["groups"] = _measure_groups(pairs, groups, best, columns[best])
        tables.append(format_group_tables(facts["groups"], MEASURES, "pairs"))
    curves = {name: roc_curve(pairs.same, values, drop_intermediate=False)[:2] for name, values in columns.items()}
    draw_roc(curves, f"{len(pairs.same):,} pairs of {encoder.name}").save(folder / "roc.png")
    pd.DataFrame(pairs.to_columns() | columns).to_csv(folder / "predictions.csv", index=False)
    return facts, "\n\n".join(tables)


def train_embeddings(
    arguments: VerificationArguments, encoder: Encoder, image_size: int, pairs: TestPairs
) -> tuple[dict[tuple[str, int], LinearProbe], dict]:
    """A linear embedding for each feature and seed, its epoch chosen by AUC on people held out of `--train`.

    Returns:
        The embeddings by feature and seed, and what they were trained and chosen on.

    Raises:
        ValueError: If there is no `--train`, too few people, or only images and people of the test pairs.
    """
    if arguments.train is None:
        raise ValueError("`--identity_embedding` needs `--train`, a corpus whose people are known.")
    people = open_subset(arguments.train, "train", None, arguments.train_subjects, arguments.subject_column)
    people = _drop_people_of(people.drop_images_of(pairs.image_subset()), pairs)
    people, held_out, score = encode_subset(encoder, people, image_size, "bf16"), None, None
    if arguments.protocol == "strict":
        people, held_out = split_off(people, VALIDATION_SHARE)
        first, second, same = choose_held_out_pairs(held_out.subjects())
    trained = {}
    for feature in arguments.feature_names():
        rows = people.feature(feature)
        if held_out is not None:
            held_rows = held_out.feature(feature).float()

            def score(weight: torch.Tensor, bias: torch.Tensor, held_rows=held_rows) -> float:
                return float(roc_auc_score(same, compute_pair_cosines(held_rows @ weight.T + bias, first, second)))

        for seed in arguments.seeds:
            trained[feature, seed] = train_identity_embedding(rows, people.subjects(), score, seed=seed)
    return trained, {"train": people.describe(), "validation": held_out and held_out.describe()}


def _drop_people_of(people: Subset, pairs: TestPairs) -> Subset:
    """The people without the people of the pairs, where their names are known."""
    if "subject" not in pairs.corpus.column_names:
        return people
    tested = set(pairs.corpus.select_columns("subject")[:]["subject"])
    kept = np.array([subject not in tested for subject in people.subjects()])
    if not kept.any():
        raise ValueError(f"Every person of {people.source} is in the test pairs, too; give another `--train`.")
    if kept.all():
        return people
    return people.keep_rows(people.rows[kept], f"{people.source}, without the people of the test pairs")


def choose_held_out_pairs(subjects: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of held-out images, or a million of them, on which the epoch of an embedding is chosen.

    Args:
        subjects: Who each image shows.

    Returns:
        The two images, and whether they show one person, each `(pairs,)`.

    Raises:
        ValueError: If the pairs are all of one kind.
    """
    people = np.array(subjects, dtype=object)
    first, second = np.triu_indices(len(people), k=1)
    if len(first) > MOST_HELD_OUT_PAIRS:
        chosen = np.random.default_rng(PAIR_SEED).choice(len(first), MOST_HELD_OUT_PAIRS, replace=False)
        first, second = first[chosen], second[chosen]
    same = people[first] == people[second]
    if same.all() or not same.any():
        raise ValueError(
            f"A tenth of the people, {len(set(subjects))}, is held out to choose the epoch: that must be two, and "
            "two images of one of them. Give a larger `--train`."
        )
    return first, second, same


def _measure_groups(pairs: TestPairs, groups: dict[str, np.ndarray], name: str, cosines: np.ndarray) -> dict:
    """Measures of the pairs whose both images are of a group; none where these are all of one kind or fold."""

    def measure(places: np.ndarray) -> list[dict]:
        of_group = pairs.select(places)
        has_both = 0 < of_group.same.sum() < len(of_group.same) and len(set(of_group.fold)) > 1
        return [of_group.measure(cosines[places])] if has_both else []

    sides = {column: (of_row[pairs.first], of_row[pairs.second]) for column, of_row in groups.items()}
    within = {column: np.where(first == second, first, None) for column, (first, second) in sides.items()}
    return measure_groups(within, name, "pairs", measure)
