"""Mean absolute error of head-pose angles."""

from modeling_pcl.probes import metrics, scores


class AngularMAE(metrics.ScoreMetric):
    compute_scores = staticmethod(scores.angular_errors)
    inputs = {"predictions": metrics.ROW, "references": metrics.ROW}
