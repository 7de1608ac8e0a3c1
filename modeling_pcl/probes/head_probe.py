"""Probes with a head, for classes, action units, head pose and other numbers: train, test, save and draw."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..pictures.charts import draw_histories
from ..pictures.contact_sheet import draw_class_predictions, draw_pose_predictions
from .arguments import HeadArguments
from .encoder import Encoder
from .groups import Groups, format_group_tables, measure_groups, read_groups
from .head_training import HeadProbe, TrainedHead
from .heads import save_head
from .objectives import format_candidate
from .results import average_folds, results_table, summarise_seeds
from .subset import open_rounds, spread_rows
from .tasks import HeadTask, make_head_task

SELECTION = {
    "strict": "epoch and hyper-parameters with the best validation {metric}; the test set was used once, at the end",
    "paper": "published hyper-parameters, the epoch with the best TEST {metric}: optimistic for new images",
}
SAMPLES = 24


def run_head_probe(arguments: HeadArguments, encoder: Encoder, folder: Path) -> tuple[dict, str]:
    """Train, test and save heads. Returns the facts for results.json and a table."""
    task = make_head_task(arguments)
    rounds = open_rounds(arguments, task.read)
    groups = [read_groups(parts.test.corpus, arguments.group_by, parts.test.source) for parts in rounds]
    probes = [HeadProbe(arguments, task, encoder, parts) for parts in rounds]
    train = HeadProbe.finetune_heads if arguments.finetune else HeadProbe.train_linear_heads
    trained = [list(train(probe)) for probe in probes]
    kind = "fine-tuned" if arguments.finetune else "linear"
    names, results = probes[0].names, {}
    for feature in arguments.feature_names():
        measures = [
            average_folds([task.measure(head.logits, head.test.targets(), names) for head in folds])
            for folds in group_heads_by_seed(trained, feature).values()
        ]
        results[feature] = {kind: summarise_seeds(measures)}
        # They use the features without training, so the difference to them shows the gain by training a head.
        if arguments.task == "expression" and not (arguments.finetune or arguments.linear_only):
            other_results = probes[0].measure_other_classifiers(feature)
            results[feature] |= {name: summarise_seeds([measures]) for name, measures in other_results.items()}
    heads = choose_heads(trained)
    _save_results(folder, task, arguments, heads)
    facts = {
        "protocol": arguments.protocol,
        "seeds": arguments.seeds,
        "metric": task.metric,
        "selection": SELECTION[arguments.protocol].format(metric=probes[0].objective.metric),
        "image_size": probes[0].image_size,
        "labels": list(names),
        "parts": [parts.describe() for parts in rounds],
        "results": results,
        "head": [head.describe() for head in heads],
    }
    measures = [name for name in results[heads[0].feature][kind] if name not in ("images", "dropped")][:7]
    tables = [results_table(results, measures)]
    if arguments.group_by:
        feature = heads[0].feature
        by_seed = group_heads_by_seed(trained, feature)
        facts["groups"] = _measure_groups(task, by_seed, groups, f"{feature} feature, {kind}")
        tables.append(format_group_tables(facts["groups"], measures, "images"))
    return facts, "\n\n".join(tables)


def group_heads_by_seed(trained: Sequence[Sequence[TrainedHead]], feature: str) -> dict[int, list[TrainedHead]]:
    """Group the heads of one feature by seed, each with one head per fold."""
    heads: dict[int, list[TrainedHead]] = {}
    for head in (head for fold in trained for head in fold if head.feature == feature):
        heads.setdefault(head.seed, []).append(head)
    return heads


def _measure_groups(
    task: HeadTask, heads: dict[int, list[TrainedHead]], groups: list[dict], method: str
) -> dict[str, Groups]:
    """Measure the groups of each column, over the test images of all folds."""
    tests = [head.test for head in next(iter(heads.values()))]
    targets = torch.cat([test.targets() for test in tests])
    logits = [torch.cat([head.logits for head in folds]) for folds in heads.values()]

    def measure(positions: np.ndarray) -> list[dict]:
        measures = [task.measure(rows[positions], targets[positions], tests[0].labels.names) for rows in logits]
        # Within a group of ages, R² mostly reflects their narrow range.
        return [{name: value for name, value in of_seed.items() if name != "r2"} for of_seed in measures]

    image_groups = {
        column: np.concatenate([fold[column][test.rows] for fold, test in zip(groups, tests)]) for column in groups[0]
    }
    return measure_groups(image_groups, method, "images", measure)


def choose_heads(trained: Sequence[Sequence[TrainedHead]]) -> list[TrainedHead]:
    """Choose the feature with the best mean score over all folds, and for each fold its head with the best score."""
    scores: dict[str, list[float]] = {}
    for head in (head for heads in trained for head in heads):
        scores.setdefault(head.feature, []).append(head.selection.score)
    feature = max(scores, key=lambda name: np.mean(scores[name]))
    candidates = [[head for head in heads if head.feature == feature] for heads in trained]
    return [max(heads, key=lambda head: head.selection.score) for heads in candidates]


def _save_results(folder: Path, task: HeadTask, arguments: HeadArguments, heads: Sequence[TrainedHead]):
    """Save heads (that of the first fold in the folder itself), predictions and pictures."""
    for number, head in enumerate(heads, 1):
        save_head(head.make(), folder if number == 1 else folder / f"fold-{number}")
    first = heads[0]
    logits = torch.cat([head.logits for head in heads])
    targets = torch.cat([head.test.targets() for head in heads])
    title = f"{arguments.task} from {first.feature}, {arguments.protocol} protocol, {len(logits)} test images"
    task.draw(logits, targets, first.test.labels.names, title).save(folder / task.picture)
    best = format_candidate(first.selection.candidate), first.selection.epoch
    draw_histories(first.selection.history, best, title, "score on held-out images").save(folder / "epochs.png")
    if arguments.task in ("expression", "head_pose"):
        _draw_faces(first, title, folder / "faces.png")
    tables = [pd.DataFrame(_tabulate_predictions(task, head, number)) for number, head in enumerate(heads, 1)]
    pd.concat(tables).to_csv(folder / "predictions.csv", index=False)


def _tabulate_predictions(task: HeadTask, head: TrainedHead, fold: int) -> dict[str, list]:
    """List row number in the opened split, labels and predictions of each test image, as columns."""
    targets, names = head.test.targets(), head.test.labels.names
    if targets.dim() == 1:
        labelled = {"label": [names[number] for number in targets.tolist()]}
    else:
        labelled = {f"label_{name}": column.tolist() for name, column in zip(names, targets.T)}
    rows = {"fold": [fold] * len(targets), "row": head.test.row_numbers()}
    return rows | labelled | task.predict(head.logits, names)


def _draw_faces(head: TrainedHead, title: str, path: Path):
    """Draw test faces with labels and predictions, equally spaced in the order of their labels (yaw for head pose)."""
    targets, names = head.test.targets(), head.test.labels.names
    is_pose = targets.dim() == 2
    order = torch.argsort(targets[:, 0] if is_pose else targets, stable=True)
    positions = order[spread_rows(len(order), SAMPLES // targets.dim())]
    images = list(head.test.corpus.with_format(None).select(head.test.rows[positions.numpy()])["image"])
    if is_pose:
        picture = draw_pose_predictions(images, targets[positions].tolist(), head.logits[positions].tolist(), title)
    else:
        labels, predictions = targets[positions], head.logits[positions].argmax(dim=1)
        names_of_classes = ([names[number] for number in classes.tolist()] for classes in (labels, predictions))
        picture = draw_class_predictions(images, *names_of_classes, title)
    picture.save(path)
