"""Training and testing of heads, on frozen features or together with the network."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from ..data.image_decoder import CorpusImages
from .arguments import HeadArguments
from .encoder import Encoder
from .finetuning import Finetuning
from .heads import Head, build_head, set_head
from .linear import PUBLISHED, LinearProbe, train_linear, tune_thresholds
from .logistic_regression import fit_logistic_regression
from .objectives import OBJECTIVES, Selection
from .scores import classification_scores
from .subset import Round, Subset, encode_subset
from .tasks import HeadTask

NEIGHBOURS = (5, 20)
FINETUNING_BATCH_SIZE = 64
PROBE_EPOCHS = 50  # For the probe that fine-tuning starts from: fewer than for a probe that is reported.
MIRRORED_SIGNS = torch.tensor([-1.0, 1.0, -1.0])  # of yaw, pitch and roll


@dataclass
class TrainedHead:
    """A trained and tested head.

    Args:
        feature: Feature that the head reads.
        seed: Seed of its training.
        selection: Chosen hyper-parameters and epoch, with their score.
        logits: Logits of the test images, `(images, outputs)` float32.
        test: The test images.
        make: Builds the model.
    """

    feature: str
    seed: int
    selection: Selection
    logits: torch.Tensor
    test: Subset
    make: Callable[[], Head]

    def describe(self) -> dict:
        """Return the facts about the head for results.json."""
        return {"feature": self.feature, "seed": self.seed} | self.selection.describe()


class HeadProbe:
    """The probe of one model on one task, with one training set and one test set.

    Args:
        arguments: Options of the probe.
        task: The task.
        encoder: The model.
        parts: Training, validation and test set.
    """

    def __init__(self, arguments: HeadArguments, task: HeadTask, encoder: Encoder, parts: Round):
        self.arguments, self.encoder, self.parts = arguments, encoder, parts
        self.image_size = arguments.image_size or task.image_size
        self.objective = OBJECTIVES[arguments.task]
        self.names = parts.train.labels.names

    @cached_property
    def train(self) -> Subset:
        """Training set with features."""
        return encode_subset(self.encoder, self.parts.train, self.image_size, "bf16")

    @cached_property
    def test(self) -> Subset:
        """Test set with features, in float32 as in a pipeline, so that the saved head predicts what was measured."""
        return encode_subset(self.encoder, self.parts.test, self.image_size, "float32")

    @cached_property
    def held_out(self) -> Subset:
        """Set with features on which the epoch is chosen: the validation set, or the test set without one."""
        if self.parts.validation is None:
            return self.test
        return encode_subset(self.encoder, self.parts.validation, self.image_size, "bf16")

    def train_linear_heads(self) -> Iterator[TrainedHead]:
        """Train and test a linear head for each feature and seed."""
        for feature, seed, probe in self._train_probes(self.arguments.epochs):
            logits = probe.compute_logits(self.test.feature(feature))
            make = partial(self._make_head, feature, probe)
            yield TrainedHead(feature, seed, probe.selection, logits, self.test, make)

    def finetune_heads(self) -> Iterator[TrainedHead]:
        """Fine-tune and test the whole network for each feature and seed.

        Training starts from a linear probe as the head, because gradients through a random head would distort the
        features.

        Source:
            Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution.
        """
        batch_size = self.arguments.batch_size or FINETUNING_BATCH_SIZE
        train, held_out, test = (
            SubsetImages(part, self.image_size, batch_size)
            for part in (self.parts.train, self.parts.validation, self.parts.test)
        )
        names = ("learning_rates", "layer_decays", "epochs")
        options = {name: getattr(self.arguments, name) for name in names if getattr(self.arguments, name)}
        # Mirroring changes the sign of yaw and roll, and no class, unit or other number.
        signs = MIRRORED_SIGNS if self.arguments.task == "head_pose" else 1
        for feature, seed, probe in self._train_probes(PROBE_EPOCHS):
            model, selection = Finetuning(
                partial(train.shuffled_batches, seed),
                held_out.ordered_batches,
                self.objective,
                seed,
                train.steps,
                lambda targets: targets * signs,
                **options,
            ).run(partial(self._make_head, feature, probe))
            logits, tested_images = test.compute_logits(model)
            yield TrainedHead(feature, seed, selection, logits, tested_images, lambda model=model: model)

    def _train_probes(self, epochs: int | None) -> Iterator[tuple[str, int, LinearProbe]]:
        """Train a linear layer for each feature and seed; None trains for the published number of epochs."""
        recipe = PUBLISHED[self.arguments.task]
        if self.arguments.protocol == "strict":
            recipe = recipe.with_search()
        recipe = dataclasses.replace(recipe, epochs=epochs or recipe.epochs, one_scale=self.arguments.one_scale)
        if self.arguments.weight_decay is not None:
            recipe = dataclasses.replace(recipe, optimizer="adamw", weight_decay=self.arguments.weight_decay)
        for feature, seed in itertools.product(self.arguments.feature_names(), self.arguments.seeds):
            train, held_out = self.train.examples(feature), self.held_out.examples(feature)
            description = f"{feature}, seed {seed}"
            probe = train_linear(train, held_out, len(self.names), self.objective, recipe, seed, description)
            if getattr(self.arguments, "tune_thresholds", False):
                probe = tune_thresholds(probe, held_out)
            yield feature, seed, probe

    def _make_head(self, feature: str, probe: LinearProbe) -> Head:
        model = build_head(self.encoder.model, self.arguments.task, self.names, feature, self.image_size)
        set_head(model, probe.weight, probe.bias)
        return model

    def measure_other_classifiers(self, feature: str) -> dict[str, dict]:
        """Measure nearest neighbours (by cosine) and logistic regression, which need no seed."""
        (rows, labels), test_rows = self.train.features_and_targets(feature), self.test.feature(feature)
        results = {}
        for k in NEIGHBOURS:
            if k <= len(rows):
                classifier = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
                classifier.fit(rows.float().numpy(), labels.numpy())
                results[f"{k} nearest neighbours"] = self._measure(classifier.predict(test_rows.float().numpy()))
        validation = None if self.parts.validation is None else self.held_out.features_and_targets(feature)
        logistic = fit_logistic_regression(rows, labels, validation)
        facts = {"inverse_penalty": logistic.model.C, "converged": logistic.converged}
        return results | {"logistic regression": self._measure(logistic.predict(test_rows)) | facts}

    def _measure(self, predictions: np.ndarray) -> dict:
        return classification_scores(predictions, self.test.targets().numpy())


class SubsetImages:
    """Images and targets of a subset, in batches. Images that do not decode are left out.

    Args:
        part: The subset.
        size_px: Side of the images, in px.
        batch_size: Images per batch.
    """

    def __init__(self, part: Subset, size_px: int, batch_size: int):
        self.part, self.batch_size = part, batch_size
        self.images = CorpusImages(part.corpus, size_px, part.source)
        self.steps = -(-len(part.rows) // batch_size)

    def shuffled_batches(self, seed: int, epoch: int):
        """Yield batches in an order that depends on seed and epoch."""
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        return self._batches(torch.randperm(len(self.part.rows), generator=generator))

    def ordered_batches(self):
        """Yield batches in the order of the subset."""
        return self._batches(torch.arange(len(self.part.rows)))

    def _batches(self, positions: torch.Tensor):
        with ThreadPoolExecutor() as pool:
            for batch in positions.split(self.batch_size):
                rows = self.part.rows[batch.numpy()]
                images = self.images.load(rows.tolist(), pool)
                decodes = torch.tensor([row not in self.images.broken for row in rows.tolist()])
                yield images[decodes], self.part.labels.targets[torch.from_numpy(rows)][decodes]

    @torch.no_grad()
    def compute_logits(self, model: Head) -> tuple[torch.Tensor, Subset]:
        """Compute the logits of every image that decodes. Returns them with the subset of these images."""
        batches = [model(images.to(model.device).float() / 255).logits.cpu() for images, _ in self.ordered_batches()]
        return torch.cat(batches), self.part.drop_broken(self.images.broken)
