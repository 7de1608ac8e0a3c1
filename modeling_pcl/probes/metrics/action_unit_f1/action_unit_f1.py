"""F1 of each facial action unit, and its mean over the units."""

from modeling_pcl.probes import metrics, scores


class ActionUnitF1(metrics.ScoreMetric):
    compute_scores = staticmethod(scores.action_unit_scores)
    inputs = {"predictions": metrics.ROW, "references": metrics.ROW}
