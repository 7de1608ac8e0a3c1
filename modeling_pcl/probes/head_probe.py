"""Expression, action units and head pose: train, test, save the head, draw."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..pictures.charts import draw_histories
from ..pictures.contact_sheet import draw_class_predictions, draw_pose_predictions
from .arguments import HeadArguments
from .encoder import Encoder
from .head_training import HeadProbe, TrainedHead, finetune_heads
from .heads import save_head
from .results import (
    Groups,
    group_tables,
    measure_groups,
    over_folds,
    over_seeds,
    read_groups,
    remove_old_results,
    results_table,
    write_predictions,
    write_results,
)
from .subset import Round, open_rounds, shared_between
from .tasks import HeadTask, head_task

SELECTION = {
    "strict": "epoch and hyper-parameters with the best validation {metric}; the test set was used once, at the end",
    "paper": "published hyper-parameters, the epoch with the best TEST {metric}: optimistic for new images",
}
SAMPLES = 24


def run_head_probe(arguments: HeadArguments) -> str:
    """Train, test and save heads.

    Returns:
        A table of the results; all that remains is in `output_dir`.

    Raises:
        ValueError, OSError: If an option, a corpus or the model is not as it must be.
    """
    task, folder = head_task(arguments), Path(arguments.output_dir)
    remove_old_results(folder)
    encoder = Encoder(arguments.model, arguments.cache_dir, None if arguments.finetune else arguments.batch_size)
    rounds = open_rounds(arguments, task.read)
    groups = [read_groups(parts.test.corpus, arguments.group_by, parts.test.source) for parts in rounds]
    probes = [HeadProbe(arguments, task, encoder, parts) for parts in rounds]
    trained = [finetune_heads(probe) if arguments.finetune else probe.train_linear_heads() for probe in probes]
    kind = "fine-tuned" if arguments.finetune else "linear"
    results = {feature: {kind: _summary(task, trained, feature)} for feature in arguments.feature_names()}
    # They read features as they are, so they say what a head's training adds.
    if arguments.task == "expression" and not arguments.finetune:
        for feature, others in probes[0].measure_others().items():
            results[feature] |= {name: over_seeds([measures]) for name, measures in others.items()}
    chosen = choose_heads(trained)
    _save(folder, task, arguments, chosen)
    facts = {
        "protocol": arguments.protocol,
        "seeds": arguments.seeds,
        "metric": task.metric,
        "selection": SELECTION[arguments.protocol].format(metric=probes[0].objective.metric),
        "image_size": probes[0].image_size,
        "labels": list(probes[0].names),
        "parts": [_describe(parts) for parts in rounds],
        "results": results,
        "head": [{"feature": best.feature, "seed": best.seed, "score": best.score} | best.chosen for best in chosen],
    }
    tables = [results_table(results, _main_measures(results))]
    if arguments.group_by:
        facts["groups"] = _measure_groups(task, trained, groups, chosen[0].feature, kind)
        tables.append(group_tables(facts["groups"], _main_measures(results), "images"))
    write_results(arguments, encoder, facts)
    return "\n\n".join(tables)


def _measure_groups(
    task: HeadTask, trained: Sequence[Sequence[TrainedHead]], groups: list[dict], feature: str, kind: str
) -> dict[str, Groups]:
    """Measures of one feature in the groups of each column; the test images of all folds together."""
    heads: dict[int, list[TrainedHead]] = {}
    for head in (head for fold in trained for head in fold if head.feature == feature):
        heads.setdefault(head.seed, []).append(head)
    tests = [head.test for head in next(iter(heads.values()))]
    targets = torch.cat([test.targets() for test in tests])
    logits = [torch.cat([head.logits for head in folds]) for folds in heads.values()]

    def measure(places: np.ndarray) -> list[dict]:
        return [task.measure(rows[places], targets[places], tests[0].labels.names) for rows in logits]

    result = {}
    for column in groups[0]:
        columns = np.concatenate([fold[column][test.rows] for fold, test in zip(groups, tests)])
        result[column] = measure_groups(columns, f"{feature} feature, {kind}", "images", measure)
    return result


def _summary(task: HeadTask, trained: Sequence[Sequence[TrainedHead]], feature: str) -> dict:
    """Measures of one feature: of each seed the mean over the folds, then over the seeds."""
    by_seed: dict[int, list] = {}
    for heads in trained:
        for head in heads:
            if head.feature == feature:
                by_seed.setdefault(head.seed, []).append(_measure(task, head))
    return over_seeds([over_folds(measures) for measures in by_seed.values()])


def _measure(task: HeadTask, head: TrainedHead) -> dict:
    return task.measure(head.logits, head.test.targets(), head.test.labels.names)


def choose_heads(trained: Sequence[Sequence[TrainedHead]]) -> list[TrainedHead]:
    """Choose for each fold the head with the best score, of the feature that scores best over all folds."""
    scores: dict[str, list[float]] = {}
    for head in (head for heads in trained for head in heads):
        scores.setdefault(head.feature, []).append(head.score)
    feature = max(scores, key=lambda name: np.mean(scores[name]))
    return [max((head for head in heads if head.feature == feature), key=lambda head: head.score) for heads in trained]


def _save(folder: Path, task: HeadTask, arguments: HeadArguments, chosen: Sequence[TrainedHead]):
    """Heads (of the first fold in the folder itself), predictions and pictures."""
    for number, head in enumerate(chosen, 1):
        save_head(head.make(), folder if number == 1 else folder / f"fold-{number}")
    first = chosen[0]
    logits = torch.cat([head.logits for head in chosen])
    targets = torch.cat([head.test.targets() for head in chosen])
    title = f"{arguments.task} from {first.feature}, {arguments.protocol} protocol, {len(logits)} test images"
    for name, picture in task.draw(logits, targets, first.test.labels.names, title).items():
        picture.save(folder / name)
    draw_histories(first.history, best_candidate(first), title, "score on held-out images").save(folder / "epochs.png")
    _draw_faces(arguments.task, task, first, title, folder / "faces.png")
    folds = [_predictions(task, head, number) for number, head in enumerate(chosen, 1)]
    merged = {name: [value for fold in folds for value in fold[name]] for name in folds[0]}
    write_predictions(folder, merged)


def best_candidate(head: TrainedHead) -> tuple[str, int]:
    """Name the candidate that was kept, as its history does, and its epoch."""
    names = [name for name, scores in head.history.items() if head.chosen["epoch"] <= len(scores)]
    candidate = max(names, key=lambda name: head.history[name][head.chosen["epoch"] - 1])
    return candidate, head.chosen["epoch"]


def _predictions(task: HeadTask, head: TrainedHead, fold: int) -> dict[str, list]:
    """A line for each test image: its row in the split that was opened, its labels, and what was predicted."""
    targets, names = head.test.targets(), head.test.labels.names
    if targets.dim() == 1:
        labelled = {"label": [names[number] for number in targets.tolist()]}
    else:
        labelled = {f"label_{name}": column.tolist() for name, column in zip(names, targets.T)}
    rows = {"fold": [fold] * len(targets), "row": head.test.numbers()}
    return rows | labelled | task.predict(head.logits, names)


def _draw_faces(name: str, task: HeadTask, head: TrainedHead, title: str, path: Path):
    """Some test faces with labels and predictions, evenly from the order of their labels (of yaw, for head pose)."""
    if name == "action_units":
        return
    targets = head.test.targets()
    order = torch.argsort(targets if targets.dim() == 1 else targets[:, 0], stable=True)
    count = min(SAMPLES // targets.dim(), len(order))
    chosen = order[torch.linspace(0, len(order) - 1, count).long()]
    images = head.test.corpus.with_format(None).select(head.test.rows[chosen.numpy()])["image"]
    if name == "head_pose":
        picture = draw_pose_predictions(list(images), targets[chosen].tolist(), head.logits[chosen].tolist(), title)
    else:
        names = head.test.labels.names
        labelled, guessed = targets[chosen].tolist(), head.logits[chosen].argmax(dim=1).tolist()
        picture = draw_class_predictions(
            list(images), [names[number] for number in labelled], [names[number] for number in guessed], title
        )
    picture.save(path)


def _describe(parts: Round) -> dict:
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    shared = shared_between(parts.train, parts.test)
    return {name: part and part.describe() for name, part in named.items()} | {"shared_by_train_and_test": shared}


def _main_measures(results: dict) -> list[str]:
    first = next(iter(next(iter(results.values())).values()))
    return [name for name in first if name not in ("images", "dropped")][:7]
