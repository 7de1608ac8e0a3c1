"""Face verification from similarities, in the folds of LFW's protocol (View 2)."""

from modeling_pcl.probes import metrics
from modeling_pcl.probes.verification_scores import verification_scores

CITATION = """
@techreport{huang2007lfw,
  author = {Gary B. Huang and Manu Ramesh and Tamara Berg and Erik Learned-Miller},
  title = {Labeled Faces in the Wild: A Database for Studying Face Recognition in Unconstrained Environments},
  institution = {University of Massachusetts, Amherst},
  number = {07-49},
  year = {2007},
}
"""


class FoldVerification(metrics.ScoreMetric):
    compute_scores = staticmethod(verification_scores)
    inputs = metrics.ScoreMetric.inputs | {"folds": metrics.NUMBER}
    source = CITATION
