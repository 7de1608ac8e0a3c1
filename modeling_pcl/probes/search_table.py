"""Table and chart of the scores of training recipes, over seeds."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from ..files import report_open_errors
from ..pictures.comparison import draw_comparison
from .results import ARROWS, DIRECTIONS, format_mean_and_spread, summarise_seeds, to_bars
from .search_arguments import TableArguments

SEED = re.compile(r"-\d+$")  # Suffix of a variant's name: the seed.
# By score: its title, the features to show, and 1 if higher is better, -1 if lower is better, 0 if neither.
SCORES = {
    "expression_accuracy": ("expression accuracy", ("trunk",), 1),
    "verification_auc": ("verification AUC", ("trunk", "face"), 1),
    "smile_accuracy": ("smile accuracy", ("trunk",), 1),
    "age_mae": ("age MAE", ("trunk",), -1),
    "yaw_r2": ("yaw R²", ("trunk", "face", "pose"), 1),
    "mirror_movement": ("mirror movement", ("face", "pose"), 0),
}


def summarise_variants(rows: Sequence[Mapping[str, str]], side: str) -> dict[str, dict[str, dict[str, dict]]]:
    """Compute mean and spread over seeds from the rows of a table of `pcl search run`, at one side.

    Returns:
        Summaries as `summarise_seeds` computes them, by variant (its name without the seed), feature and score. Scores
        that a row lacks do not count.

    Raises:
        ValueError: If a score is not a number.
    """
    groups: dict[str, dict[str, list[dict]]] = {}
    for row in rows:
        if row["side"] == side:
            try:
                scores = {name: float(row[name]) if row.get(name) else None for name in SCORES}
            except ValueError as error:
                raise ValueError(f"A score of {row['name']} at {side} px is not a number: {error}.") from error
            groups.setdefault(SEED.sub("", row["name"]), {}).setdefault(row["feature"], []).append(scores)
    return {
        variant: {feature: summarise_seeds(scores) for feature, scores in features.items()}
        for variant, features in groups.items()
    }


def format_markdown(summary: Mapping[str, Mapping[str, Mapping[str, dict]]]) -> str:
    """Format a table with a line for each variant and a column for each score and feature."""
    rows = []
    for variant, features in summary.items():
        seeds = max(len(scores["yaw_r2"]["values"]) for scores in features.values())
        row = {"variant": variant, "seeds": str(seeds)}
        for score, (title, feature_names, sign) in SCORES.items():
            for feature_name in (name for name in feature_names if name in features):
                column = f"{title}{f', {feature_name}' if len(feature_names) > 1 else ''}{ARROWS[sign]}"
                row[column] = format_mean_and_spread(features[feature_name][score])
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def read_score_table(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file of scores; none if it does not exist.

    Raises:
        ValueError: If the file is not a table, or a row has more entries than the heading.
    """
    if not path.exists():
        return []
    with report_open_errors(f"The table `{path}`"), path.open(newline="") as file:
        rows = list(csv.DictReader(file))
        if any(None in row for row in rows):  # Where `csv` puts entries without a column.
            raise ValueError("a row has more entries than the heading.")
        return rows


def tabulate_search(arguments: TableArguments) -> str:
    """Format a table for each side, and save a chart beside the scores.

    Returns:
        The tables, in markdown.

    Raises:
        ValueError: If the file is not a table of scores, or holds no scores.
    """
    path = Path(arguments.table)
    rows = read_score_table(path)
    is_table = rows and {"name", "side", "feature", "yaw_r2"} <= rows[0].keys()
    if not is_table or not all((row["side"] or "").isdigit() for row in rows):
        raise ValueError(f"{path} must be a table that `pcl search run` wrote, with at least one row.")
    tables = []
    for side in sorted({row["side"] for row in rows}, key=int):
        summary = summarise_variants(rows, side)
        tables.append(f"At {side} px:\n\n{format_markdown(summary)}")
    # The chart shows the largest side, which comes last, because scores differ most there.
    charts, directions = {}, {}
    for score, (title, names, sign) in SCORES.items():
        directions[f"{title}, {side} px"] = DIRECTIONS[sign]
        charts[f"{title}, {side} px"] = {
            variant: to_bars({name: features[name][score] for name in names if name in features})
            for variant, features in summary.items()
        }
    draw_comparison(charts, directions).save(path.with_suffix(".png"))
    return "\n\n".join(tables)
