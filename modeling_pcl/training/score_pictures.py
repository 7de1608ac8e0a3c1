"""How the scores of a long run grow."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

PANELS = {
    "expression_accuracy": "expression, accuracy",
    "verification_auc": "verification, AUC",
    "yaw_r2": "yaw, R2",
    "age_mae": "age, mean absolute error, years",
}


def draw_learning_curve(rows: Sequence[dict], path: Path, feature: str = "trunk"):
    """Draw scores against the images that were seen, a line for each side.

    Args:
        rows: Of a table with `images_seen`, `side`, `feature` and the scores, in the order of training.
        path: Of the picture.
        feature: Whose scores to draw.
    """
    figure = Figure((13, 3.6), dpi=100, layout="constrained")
    for axis, (score, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items()):
        for side in sorted({row["side"] for row in rows}, key=int):
            of_side = [row for row in rows if row["side"] == side and row["feature"] == feature]
            seen = [int(row["images_seen"]) / 1e6 for row in of_side]
            axis.plot(seen, [float(row[score]) for row in of_side], marker="o", label=f"at {side} px")
        axis.set(title=title, xlabel="million images seen")
        axis.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path)
