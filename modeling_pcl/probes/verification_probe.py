"""The verification probe: cosines of features, or of a linear embedding of them, in folds without a common person."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from ..data.corpora import corpus_splits
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

# All pairs of 1,414 images. The limit bounds the time of a candidate, which is scored on all pairs.
MOST_HELD_OUT_PAIRS = 1_000_000
MEASURES = ("accuracy", "accuracy_standard_error", "auc", "tar_at_far_0.01", "tar_at_far_0.001", "equal_error_rate")


def run_verification_probe(arguments: VerificationArguments, encoder: Encoder, folder: Path) -> tuple[dict, str]:
    """Measure how well features, and with `--identity_embedding` embeddings, tell people apart.

    Returns:
        The facts for results.json, and a table.
    """
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
            feature: pairs.compute_cosines(embedding.compute_logits(table.features[feature][:]))
            for feature, embedding in trained.items()
        }
        for feature in features:
            measures = pairs.measure(embedded[feature])
            facts["results"][feature]["identity embedding"] = summarise_seeds([measures])
        best = max(trained, key=lambda feature: trained[feature].selection.score or 0)
        embedding = trained[best]
        facts["parts"][0] |= parts
        facts["head"] = [{"feature": best} | embedding.selection.describe()]
        columns[f"{best} identity embedding"] = embedded[best]
        config.verification_threshold = pairs.measure(embedded[best])["threshold"]
        save_embedding(encoder.model, embedding.weight, embedding.bias, best, image_size, folder)
    else:
        best = max(features, key=lambda feature: measured[feature]["accuracy"])
        config.verification_feature, config.verification_threshold = best, measured[best]["threshold"]
        config.image_size = image_size  # The threshold holds for this size only.
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
) -> tuple[dict[str, LinearProbe], dict]:
    """Train a linear embedding for each feature.

    In the strict protocol, its components and shrinkage are chosen by AUC on pairs of the people of `--validation`, by
    default of a tenth of the people of `--train`.

    Returns:
        The embeddings, by feature, and the facts about the sets they were trained and chosen on.

    Raises:
        ValueError: If `--train` is missing, has too few people, or only images or people of the test pairs.
    """
    if arguments.train is None:
        raise ValueError("`--identity_embedding` needs `--train`, a corpus with known people.")
    people = _open_people(arguments, arguments.train, "train", arguments.train_subjects, pairs)
    held_out = score = None
    if arguments.protocol == "strict":
        has_validation = "validation" in corpus_splits(arguments.train)
        validation = arguments.validation or (arguments.train if has_validation else None)
        if validation is not None:
            held_out = _open_people(arguments, validation, "validation", None, pairs)
            people = people.drop_images_of(held_out)
            people = _drop_people(people, held_out.subjects(), "the people of `--validation`")
            held_out = encode_subset(encoder, held_out, image_size, "bf16")
    people = encode_subset(encoder, people, image_size, "bf16")
    if arguments.protocol == "strict":
        if held_out is None:
            people, held_out = split_off(people, VALIDATION_SHARE)
        first, second, same = choose_held_out_pairs(held_out.subjects())
    trained = {}
    for feature in arguments.feature_names():
        features = people.feature(feature)
        if held_out is not None:
            held_out_features = held_out.feature(feature).float()

            def score(weight: torch.Tensor, bias: torch.Tensor, features=held_out_features) -> float:
                return float(roc_auc_score(same, compute_pair_cosines(features @ weight.T + bias, first, second)))

        trained[feature] = train_identity_embedding(features, people.subjects(), score)
    return trained, {"train": people.describe(), "validation": held_out and held_out.describe()}


def _open_people(
    arguments: VerificationArguments, name: str, split: str, subjects: str | None, pairs: TestPairs
) -> Subset:
    """Open a corpus with known people, without the images and, if the test pairs have names, the people of these."""
    people = open_subset(name, split, None, subjects, arguments.subject_column).drop_images_of(pairs.image_subset())
    if "subject" not in pairs.corpus.column_names:
        return people
    test_people = pairs.corpus.select_columns("subject")[:]["subject"]
    return _drop_people(people, test_people, "the people of the test pairs")


def _drop_people(people: Subset, dropped: Sequence[str], description: str) -> Subset:
    dropped = set(dropped)
    kept = np.array([subject not in dropped for subject in people.subjects()])
    if not kept.any():
        raise ValueError(
            f"Every person of {people.source} is one of {description}; give another `--train` or `--validation`."
        )
    return people if kept.all() else people.keep_rows(people.rows[kept], f"{people.source}, without {description}")


def choose_held_out_pairs(subjects: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose the pairs that select an embedding: all pairs of held-out images, or a million of them.

    Args:
        subjects: Person in each image.

    Returns:
        The two images, and whether they show one person, each `(pairs,)`.

    Raises:
        ValueError: If all pairs are of the same kind.
    """
    people = np.array(subjects, dtype=object)
    first, second = np.triu_indices(len(people), k=1)
    if len(first) > MOST_HELD_OUT_PAIRS:
        positions = np.random.default_rng(PAIR_SEED).choice(len(first), MOST_HELD_OUT_PAIRS, replace=False)
        first, second = first[positions], second[positions]
    same = people[first] == people[second]
    if same.all() or not same.any():
        raise ValueError(
            f"The {len(set(subjects))} people who are held out to choose the embedding must be at least two, one of "
            "them with two images; give a larger `--train` or `--validation`."
        )
    return first, second, same


def _measure_groups(pairs: TestPairs, groups: dict[str, np.ndarray], name: str, cosines: np.ndarray) -> dict:
    """Measure the pairs whose images are both of one group.

    A group is left out if its pairs are all of one kind or in one fold.
    """

    def measure(positions: np.ndarray) -> list[dict]:
        group_pairs = pairs.select(positions)
        has_both = 0 < group_pairs.same.sum() < len(group_pairs.same) and len(set(group_pairs.fold)) > 1
        return [group_pairs.measure(cosines[positions])] if has_both else []

    groups_of_images = {column: (of_row[pairs.first], of_row[pairs.second]) for column, of_row in groups.items()}
    groups_of_pairs = {
        column: np.where(first == second, first, None) for column, (first, second) in groups_of_images.items()
    }
    return measure_groups(groups_of_pairs, name, "pairs", measure)
