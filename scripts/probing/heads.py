"""Train a head on frozen features, or the whole network, and test it as it is saved."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

from modeling_pcl.probes.features import FEATURES
from modeling_pcl.probes.finetuning import FinetuningRecipe, finetune
from modeling_pcl.probes.heads import Head, build_head, set_head
from modeling_pcl.probes.linear import PUBLISHED, Examples, train_linear
from modeling_pcl.probes.logistic_regression import fit_logistic_regression
from modeling_pcl.probes.neighbours import nearest_neighbours
from modeling_pcl.probes.objectives import OBJECTIVES
from modeling_pcl.probes.thresholds import with_best_thresholds

from .arguments import ProbeArguments
from .encoder import Encoder
from .head_tasks import HeadTask, head_task, measure_predictions
from .images import CorpusImages
from .parts import Part, Round

FINETUNING_EPOCHS, FINETUNING_BATCH = 20, 64
NEIGHBOURS = (5, 20)
MIRRORED_SIGNS = torch.tensor([-1.0, 1.0, -1.0])  # of yaw, pitch and roll


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
        return list(FEATURES) if self.arguments.feature == "all" else [self.arguments.feature]

    def linear(self) -> list[Trained]:
        """A linear head for each feature and seed."""
        recipe = PUBLISHED[self.arguments.task]
        if self.arguments.protocol == "strict":
            recipe = recipe.searched()
        if self.arguments.epochs is not None:
            recipe = dataclasses.replace(recipe, epochs=self.arguments.epochs)
        train, held_out, test = self._tables()
        trained = []
        for feature in self.features():
            for seed in self.arguments.seeds:
                probe = train_linear(
                    _examples(train, feature),
                    _examples(held_out, feature),
                    len(self.names),
                    self.objective,
                    recipe,
                    seed,
                    f"{feature}, seed {seed}",
                )
                if self.arguments.tune_thresholds:
                    probe = with_best_thresholds(probe, _examples(held_out, feature))
                make = partial(self._linear_head, feature, probe.weight, probe.bias)
                chosen = {"learning_rate": probe.learning_rate, "epoch": probe.epoch}
                logits = probe.logits(_examples(test, feature).at(torch.arange(len(test[0].rows)))[0])
                trained.append(Trained(feature, seed, probe.score, chosen, probe.history, logits, test[0], make))
        return trained

    def _linear_head(self, feature: str, weight: torch.Tensor, bias: torch.Tensor) -> Head:
        model = self._new_head(feature, seed=0)
        set_head(model, weight, bias)
        return model

    def _new_head(self, feature: str, seed: int) -> Head:
        return build_head(self.encoder.model, self.arguments.task, self.names, feature, self.image_size, seed)

    def _tables(self) -> tuple[tuple[Part, dict], ...]:
        """Train, held-out and test parts with features; the test set is encoded in float32, as by a pipeline."""
        parts = self.parts
        train = self._table(parts.train, "bf16")
        test = self._table(parts.test, "float32")
        return train, test if parts.validation is None else self._table(parts.validation, "bf16"), test

    def _table(self, part: Part, precision) -> tuple[Part, dict]:
        table = self.encoder.table(part.corpus, self.image_size, precision, part.source)
        return part.without(table.broken), table.features

    def classical(self) -> dict[str, dict[str, dict]]:
        """Nearest neighbours and logistic regression, for each feature; they have no seed."""
        (train, train_features), held_out, (test, test_features) = self._tables()
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

    def finetuned(self) -> list[Trained]:
        """The whole network trained, for each feature and seed."""
        arguments = self.arguments
        recipe = FinetuningRecipe(epochs=arguments.epochs or FINETUNING_EPOCHS)
        if arguments.learning_rates:
            recipe = dataclasses.replace(recipe, learning_rates=tuple(arguments.learning_rates))
        if arguments.layer_decays:
            recipe = dataclasses.replace(recipe, layer_decays=tuple(arguments.layer_decays))
        if arguments.protocol == "paper":
            raise ValueError("`--finetune` has no published protocol; choose `--protocol strict`.")
        train, held_out, test = (
            _Images(part, self.image_size, arguments.batch_size or FINETUNING_BATCH)
            for part in (self.parts.train, self.parts.validation, self.parts.test)
        )
        trained = []
        for feature in self.features():
            for seed in arguments.seeds:
                result = finetune(
                    partial(self._new_head, feature, seed),
                    partial(train.shuffled, seed),
                    held_out.in_order,
                    self.objective,
                    recipe,
                    seed,
                    train.steps,
                    self._mirror,
                )
                chosen = {"learning_rate": result.learning_rate, "layer_decay": result.layer_decay}
                chosen["epoch"] = result.epoch
                history = {
                    f"learning rate {run['learning_rate']:g}, layer decay {run['layer_decay']:g}": run["scores"]
                    for run in result.history
                }
                logits, tested = test.logits(result.model)
                make = partial(_same, result.model)
                trained.append(Trained(feature, seed, result.score, chosen, history, logits, tested, make))
        return trained

    def _mirror(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets of mirrored images."""
        return targets * MIRRORED_SIGNS.to(targets.device) if self.arguments.task == "head_pose" else targets


def _same(model: Head) -> Head:
    return model


def _examples(table: tuple[Part, dict], feature: str) -> Examples:
    part, features = table
    return Examples(features[feature], part.labels.targets, torch.from_numpy(part.rows))


class _Images:
    """A part's images and targets in batches; an image that does not decode is left out."""

    def __init__(self, part: Part, size_px: int, batch_size: int):
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
                whole = torch.tensor([row not in self.images.broken for row in rows.tolist()])
                yield images[whole], self.part.labels.targets[torch.from_numpy(rows)][whole]

    @torch.no_grad()
    def logits(self, model: Head) -> tuple[torch.Tensor, Part]:
        """Of every image that decodes, with the part that they are."""
        batches = [model(images.to(model.device).float() / 255).logits.cpu() for images, _ in self.in_order()]
        return torch.cat(batches), self.part.without(self.images.broken)
