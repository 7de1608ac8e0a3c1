"""Heads trained on frozen features, tested as they are saved."""

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from modeling_pcl.probes.heads import Head, build_head, set_head
from modeling_pcl.probes.linear import PUBLISHED, Examples, LinearProbe, train_linear
from modeling_pcl.probes.logistic_regression import fit_logistic_regression
from modeling_pcl.probes.neighbours import nearest_neighbours
from modeling_pcl.probes.objectives import OBJECTIVES
from modeling_pcl.probes.thresholds import with_best_thresholds

from .arguments import ProbeArguments
from .encoder import Encoder
from .head_tasks import HeadTask, head_task, measure_predictions
from .part import Part
from .parts import Round

PUBLISHED_EPOCHS = 300
NEIGHBOURS = (5, 20)


@dataclass
class Trained:
    """One head, tested.

    Args:
        feature: What it reads.
        seed: Of its training.
        score: On what the epoch was chosen on.
        chosen: Hyper-parameters and epoch.
        history: Score after each epoch, by candidate.
        logits: Of the test images, `(images, outputs)` float32.
        test: The test images.
        make: Builds the model.
    """

    feature: str
    seed: int
    score: float
    chosen: dict
    history: dict
    logits: torch.Tensor
    test: Part
    make: partial


class HeadProbe:
    """A task on one model: one training set, one test set.

    Args:
        arguments: The options.
        encoder: The model.
        parts: What to train, choose and test on.
    """

    def __init__(self, arguments: ProbeArguments, encoder: Encoder, parts: Round):
        self.arguments, self.encoder = arguments, encoder
        self.task: HeadTask = head_task(arguments)
        self.image_size = arguments.image_size or self.task.image_size
        self.objective = OBJECTIVES[arguments.task]
        self.names = parts.train.labels.names
        self.parts = parts

    def features(self) -> list[str]:
        return self.arguments.feature_names()

    def linear(self) -> list[Trained]:
        """A linear head for each feature and seed, tested."""
        test, features = self._table(self.parts.test, "float32")  # As a pipeline computes it.
        trained = []
        for feature, seed, probe in self.probes(self.arguments.epochs or PUBLISHED_EPOCHS):
            chosen = {"learning_rate": probe.learning_rate, "epoch": probe.epoch}
            make = partial(self.head_of, feature, probe)
            logits = probe.logits(features[feature][torch.from_numpy(test.rows)])
            trained.append(Trained(feature, seed, probe.score, chosen, probe.history, logits, test, make))
        return trained

    def probes(self, epochs: int) -> Iterator[tuple[str, int, LinearProbe]]:
        """Train a linear layer for each feature and seed."""
        recipe = PUBLISHED[self.arguments.task]
        if self.arguments.protocol == "strict":
            recipe = recipe.searched()
        recipe = dataclasses.replace(recipe, epochs=epochs)
        train, held_out = self._table(self.parts.train, "bf16"), self._held_out()
        for feature, seed in itertools.product(self.features(), self.arguments.seeds):
            tables = (_examples(table, feature) for table in (train, held_out))
            words = f"{feature}, seed {seed}"
            probe = train_linear(*tables, len(self.names), self.objective, recipe, seed, words)
            if self.arguments.tune_thresholds:
                probe = with_best_thresholds(probe, _examples(held_out, feature))
            yield feature, seed, probe

    def head_of(self, feature: str, probe: LinearProbe) -> Head:
        """The model with a linear probe as its head."""
        model = build_head(self.encoder.model, self.arguments.task, self.names, feature, self.image_size)
        set_head(model, probe.weight, probe.bias)
        return model

    def _held_out(self) -> tuple[Part, dict]:
        """What the epoch is chosen on, with features; the test set is encoded in one precision only."""
        if self.parts.validation is None:
            return self._table(self.parts.test, "float32")
        return self._table(self.parts.validation, "bf16")

    def _table(self, part: Part, precision) -> tuple[Part, dict]:
        table = self.encoder.table(part.corpus, self.image_size, precision, part.source)
        return part.without(table.broken), table.features

    def classical(self) -> dict[str, dict[str, dict]]:
        """Nearest neighbours and logistic regression, for each feature; they have no seed."""
        train, train_features = self._table(self.parts.train, "bf16")
        test, test_features = self._table(self.parts.test, "float32")
        held_out = self._held_out()
        results = {}
        for feature in self.features():
            rows = train_features[feature][torch.from_numpy(train.rows)]
            test_rows = test_features[feature][torch.from_numpy(test.rows)]
            ks = [k for k in NEIGHBOURS if k <= len(rows)]
            by_neighbours = nearest_neighbours(rows, train.targets(), test_rows, ks) if ks else {}
            results[feature] = {
                f"{k} nearest neighbours": self._measure(predicted.tolist(), test)
                for k, predicted in by_neighbours.items()
            }
            validation = None
            if self.parts.validation is not None:
                validation = _examples(held_out, feature).at(torch.arange(len(held_out[0].rows)))
            logistic = fit_logistic_regression(rows, train.targets(), validation)
            logits = test_rows.float() @ logistic.weight.T + logistic.bias
            predicted = logistic.classes[logits.argmax(dim=1).numpy()]
            results[feature]["logistic regression"] = self._measure(predicted.tolist(), test) | {
                "inverse_penalty": logistic.inverse_penalty,
                "converged": logistic.converged,
            }
        return results

    def _measure(self, predictions: list[int], test: Part) -> dict:
        return measure_predictions(predictions, test.targets(), self.names)


def _examples(table: tuple[Part, dict], feature: str) -> Examples:
    part, features = table
    return Examples(features[feature], part.labels.targets, torch.from_numpy(part.rows))
