"""Scores of training recipes over their seeds, as a table and as a picture."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from ..pictures.comparison import draw_comparison
from .arguments import TableArguments
from .results import ARROWS, DIRECTIONS, bars, mean_and_spread, over_seeds

SEED = re.compile(r"-\d+$")  # At the end of a variant's name.
# By score: what it is called, its feature or features, and which way is better.
SCORES = {
    "expression_accuracy": ("expression accuracy", ("trunk",), 1),
    "verification_auc": ("verification AUC", ("trunk", "face"), 1),
    "smile_accuracy": ("smile accuracy", ("trunk",), 1),
    "age_mae": ("age MAE", ("trunk",), -1),
    "yaw_r2": ("yaw R²", ("trunk", "face", "pose"), 1),
    "mirror_movement": ("mirror movement", ("face", "pose"), 0),
}


def summarise_variants(rows: Sequence[Mapping[str, str]], side: str) -> dict[str, dict[str, dict[str, dict]]]:
    """Mean and spread over seeds, of rows of a table of `pcl search run`, at one side.

    Returns:
        By variant (its name without the seed), feature and score, as `over_seeds` gives them; a score that a row lacks
        is left out of the mean.
    """
    groups: dict[str, dict[str, list[dict]]] = {}
    for row in rows:
        if row["side"] == side:
            scores = {name: float(row[name]) if row.get(name) else None for name in SCORES}
            groups.setdefault(SEED.sub("", row["name"]), {}).setdefault(row["feature"], []).append(scores)
    return {
        variant: {feature: over_seeds(scores) for feature, scores in features.items()}
        for variant, features in groups.items()
    }


def as_markdown(summary: Mapping[str, Mapping[str, Mapping[str, dict]]]) -> str:
    """A line for each variant, a column for each score and feature."""
    lines = []
    for variant, features in summary.items():
        seeds = max(len(scores["yaw_r2"]["values"]) for scores in features.values())
        line = {"variant": variant, "seeds": str(seeds)}
        for score, (words, names, sign) in SCORES.items():
            for name in (name for name in names if name in features):
                title = f"{words}{f', {name}' if len(names) > 1 else ''}{ARROWS[sign]}"
                line[title] = mean_and_spread(features[name][score])
        lines.append(line)
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def tabulate_search(arguments: TableArguments) -> str:
    """Write the table of each side, and a picture of one beside the scores.

    Returns:
        The tables, in markdown.

    Raises:
        ValueError: If the file holds no scores, or none at a side.
    """
    path = Path(arguments.table)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"name", "side", "feature", "yaw_r2"} <= rows[0].keys():
        raise ValueError(f"{path} is no table of `pcl search run`.")
    tables = []
    for side in sorted({row["side"] for row in rows}, key=int):
        summary = summarise_variants(rows, side)
        tables.append(f"At {side} px:\n\n{as_markdown(summary)}")
    # The picture is of the last side, the largest, at which models are told apart best.
    drawn, directions = {}, {}
    for score, (words, names, sign) in SCORES.items():
        directions[f"{words}, {side} px"] = DIRECTIONS[sign]
        drawn[f"{words}, {side} px"] = {
            variant: bars({name: features[name][score] for name in names if name in features})
            for variant, features in summary.items()
        }
    draw_comparison(drawn, directions).save(path.with_suffix(".png"))
    return "\n\n".join(tables)
