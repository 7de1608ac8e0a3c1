"""Heads trained together with the network, from a linear probe on."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from modeling_pcl.probes.finetuning import FinetunedModel, FinetuningRecipe, finetune
from modeling_pcl.probes.heads import Head

from .arguments import ProbeArguments
from .heads import HeadProbe, Trained
from .images import CorpusImages
from .part import Part

EPOCHS, BATCH_SIZE, PROBE_EPOCHS = 20, 64, 50
MIRRORED_SIGNS = torch.tensor([-1.0, 1.0, -1.0])  # of yaw, pitch and roll


def finetune_heads(task: HeadProbe) -> list[Trained]:
    """Train the whole network for each feature and seed, and test it.

    It starts with a linear probe as its head, so that the first steps do not spoil the features for a random one.

    Source:
        Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution.
    """
    arguments, recipe = task.arguments, recipe_of(task.arguments)
    train, held_out, test = (
        PartImages(part, task.image_size, arguments.batch_size or BATCH_SIZE)
        for part in (task.parts.train, task.parts.validation, task.parts.test)
    )
    trained = []
    for feature, seed, probe in task.probes(PROBE_EPOCHS):
        result = finetune(
            partial(task.head_of, feature, probe),
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
        make = partial(_same, result.model)
        trained.append(Trained(feature, seed, result.score, chosen, _histories(result), logits, tested, make))
    return trained


def recipe_of(arguments: ProbeArguments) -> FinetuningRecipe:
    """The recipe that the options ask for."""
    candidates = {"learning_rates": arguments.learning_rates, "layer_decays": arguments.layer_decays}
    given = {name: tuple(values) for name, values in candidates.items() if values}
    return dataclasses.replace(FinetuningRecipe(epochs=arguments.epochs or EPOCHS), **given)


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


def _same(model: Head) -> Head:
    return model


class PartImages:
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
