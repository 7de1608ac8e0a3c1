"""Heads trained on frozen features, or together with the network, and tested as they are saved."""

import dataclasses
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..data.image_decoder import CorpusImages
from .arguments import HeadArguments
from .encoder import Encoder
from .finetuning import FinetunedModel, FinetuningRecipe, finetune
from .heads import Head, build_head, set_head
from .linear import PUBLISHED, Examples, LinearProbe, train_linear
from .logistic_regression import fit_logistic_regression
from .neighbours import nearest_neighbours
from .objectives import OBJECTIVES
from .scores import classification_scores
from .subset import Round, Subset
from .tasks import HeadTask
from .thresholds import with_best_thresholds

PUBLISHED_EPOCHS = 300
NEIGHBOURS = (5, 20)
FINETUNING_EPOCHS, FINETUNING_BATCH_SIZE, PROBE_EPOCHS = 20, 64, 50
MIRRORED_SIGNS = torch.tensor([-1.0, 1.0, -1.0])  # of yaw, pitch and roll


@dataclass
class TrainedHead:
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
    test: Subset
    make: partial


class HeadProbe:
    """A task on one model: one training set, one test set.

    Args:
        arguments: The options.
        task: What they name.
        encoder: The model.
        parts: What to train, choose and test on.
    """

    def __init__(self, arguments: HeadArguments, task: HeadTask, encoder: Encoder, parts: Round):
        self.arguments, self.encoder = arguments, encoder
        self.image_size = arguments.image_size or task.image_size
        self.objective = OBJECTIVES[arguments.task]
        self.names = parts.train.labels.names
        self.parts = parts

    def train_linear_heads(self) -> list[TrainedHead]:
        """A linear head for each feature and seed, tested."""
        test, features = self._encode(self.parts.test, "float32")  # As a pipeline computes it.
        trained = []
        for feature, seed, probe in self.train_probes(self.arguments.epochs or PUBLISHED_EPOCHS):
            chosen = {"learning_rate": probe.learning_rate, "epoch": probe.epoch}
            make = partial(self.make_head, feature, probe)
            logits = probe.logits(features[feature][torch.from_numpy(test.rows)])
            trained.append(TrainedHead(feature, seed, probe.score, chosen, probe.history, logits, test, make))
        return trained

    def train_probes(self, epochs: int) -> Iterator[tuple[str, int, LinearProbe]]:
        """Train a linear layer for each feature and seed."""
        recipe = PUBLISHED[self.arguments.task]
        if self.arguments.protocol == "strict":
            recipe = recipe.searched()
        recipe = dataclasses.replace(recipe, epochs=epochs)
        train, held_out = self._encode(self.parts.train, "bf16"), self._encode_held_out()
        for feature, seed in itertools.product(self.arguments.feature_names(), self.arguments.seeds):
            tables = (_examples(encoded, feature) for encoded in (train, held_out))
            words = f"{feature}, seed {seed}"
            probe = train_linear(*tables, len(self.names), self.objective, recipe, seed, words)
            if getattr(self.arguments, "tune_thresholds", False):
                probe = with_best_thresholds(probe, _examples(held_out, feature))
            yield feature, seed, probe

    def make_head(self, feature: str, probe: LinearProbe) -> Head:
        """The model with a linear probe as its head."""
        model = build_head(self.encoder.model, self.arguments.task, self.names, feature, self.image_size)
        set_head(model, probe.weight, probe.bias)
        return model

    def _encode_held_out(self) -> tuple[Subset, dict]:
        """What the epoch is chosen on, with features; the test set is encoded in one precision only."""
        if self.parts.validation is None:
            return self._encode(self.parts.test, "float32")
        return self._encode(self.parts.validation, "bf16")

    def _encode(self, part: Subset, precision) -> tuple[Subset, dict]:
        table = self.encoder.table(part.corpus, self.image_size, precision, part.source)
        return part.without(table.broken), table.features

    def measure_others(self) -> dict[str, dict[str, dict]]:
        """Measure nearest neighbours and logistic regression, for each feature; they have no seed."""
        train, train_features = self._encode(self.parts.train, "bf16")
        test, test_features = self._encode(self.parts.test, "float32")
        held_out = self._encode_held_out()
        results = {}
        for feature in self.arguments.feature_names():
            rows = train_features[feature][torch.from_numpy(train.rows)]
            test_rows = test_features[feature][torch.from_numpy(test.rows)]
            ks = [k for k in NEIGHBOURS if k <= len(rows)]
            results[feature] = {
                f"{k} nearest neighbours": _measure(nearest_neighbours(rows, train.targets(), test_rows, k), test)
                for k in ks
            }
            validation = None
            if self.parts.validation is not None:
                validation = _examples(held_out, feature).at(torch.arange(len(held_out[0].rows)))
            logistic = fit_logistic_regression(rows, train.targets(), validation)
            predicted = logistic.classes[logistic.logits(test_rows).argmax(dim=1).numpy()]
            results[feature]["logistic regression"] = _measure(predicted, test) | {
                "inverse_penalty": logistic.inverse_penalty,
                "converged": logistic.converged,
            }
        return results


def _measure(predictions: np.ndarray, test: Subset) -> dict:
    return classification_scores(predictions.tolist(), test.targets().tolist())


def _examples(encoded: tuple[Subset, dict], feature: str) -> Examples:
    part, features = encoded
    return Examples(features[feature], part.labels.targets, torch.from_numpy(part.rows))


def finetune_heads(task: HeadProbe) -> list[TrainedHead]:
    """Train the whole network for each feature and seed, and test it.

    It starts with a linear probe as its head, so that the first steps do not spoil the features for a random one.

    Source:
        Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution.
    """
    arguments, recipe = task.arguments, finetuning_recipe(task.arguments)
    train, held_out, test = (
        SubsetImages(part, task.image_size, arguments.batch_size or FINETUNING_BATCH_SIZE)
        for part in (task.parts.train, task.parts.validation, task.parts.test)
    )
    trained = []
    for feature, seed, probe in task.train_probes(PROBE_EPOCHS):
        result = finetune(
            partial(task.make_head, feature, probe),
            partial(train.shuffled, seed),
            held_out.in_order,
            task.objective,
            recipe,
            seed,
            train.steps,
            _mirror_pose if arguments.task == "head_pose" else _mirror_nothing,
        )
        chosen = {name: getattr(result, name) for name in ("learning_rate", "layer_decay", "epoch")}
        logits, tested = test.logits(result.model)
        make = partial(_identity, result.model)
        trained.append(TrainedHead(feature, seed, result.score, chosen, _histories(result), logits, tested, make))
    return trained


def finetuning_recipe(arguments: HeadArguments) -> FinetuningRecipe:
    """The recipe that the options ask for."""
    candidates = {"learning_rates": arguments.learning_rates, "layer_decays": arguments.layer_decays}
    given = {name: tuple(values) for name, values in candidates.items() if values}
    return dataclasses.replace(FinetuningRecipe(epochs=arguments.epochs or FINETUNING_EPOCHS), **given)


def _histories(result: FinetunedModel) -> dict[str, list[float]]:
    return {
        f"learning rate {run['learning_rate']:g}, layer decay {run['layer_decay']:g}": run["scores"]
        for run in result.history
    }


def _mirror_pose(targets: torch.Tensor) -> torch.Tensor:
    """Angles of mirrored images."""
    return targets * MIRRORED_SIGNS.to(targets.device)


def _mirror_nothing(targets: torch.Tensor) -> torch.Tensor:
    """Classes and units are those of the mirrored images, too."""
    return targets


def _identity(model: Head) -> Head:
    return model


class SubsetImages:
    """A subset's images and targets in batches; an image that does not decode is left out."""

    def __init__(self, part: Subset, size_px: int, batch_size: int):
        self.part, self.batch_size = part, batch_size
        self.images = CorpusImages(part.corpus, size_px, part.source)
        self.steps = -(-len(part.rows) // batch_size)

    def shuffled(self, seed: int, epoch: int):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        return self._batches(torch.randperm(len(self.part.rows), generator=generator))

    def in_order(self):
        return self._batches(torch.arange(len(self.part.rows)))

    def _batches(self, places: torch.Tensor):
        with ThreadPoolExecutor() as pool:
            for chosen in places.split(self.batch_size):
                rows = self.part.rows[chosen.numpy()]
                images = self.images.load(rows.tolist(), pool)
                decodes = torch.tensor([row not in self.images.broken for row in rows.tolist()])
                yield images[decodes], self.part.labels.targets[torch.from_numpy(rows)][decodes]

    @torch.no_grad()
    def logits(self, model: Head) -> tuple[torch.Tensor, Subset]:
        """Of every image that decodes, with the part that they are."""
        batches = [model(images.to(model.device).float() / 255).logits.cpu() for images, _ in self.in_order()]
        return torch.cat(batches), self.part.without(self.images.broken)
