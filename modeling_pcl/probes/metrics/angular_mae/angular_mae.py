"""Mean absolute error of the angles of the head."""

from modeling_pcl.probes import metrics, scores


class AngularMAE(metrics.ScoreMetric):
    compute_scores = staticmethod(scores.angular_errors)
    inputs = {"predictions": metrics.ROW, "references": metrics.ROW}
