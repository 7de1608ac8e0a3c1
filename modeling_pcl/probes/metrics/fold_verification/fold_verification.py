"""Same person or not, judged by similarity, in the folds of LFW's protocol (its View 2)."""

import datasets
import evaluate

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


class FoldVerification(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # Without `format="numpy"`, which rounds to float32. Labels are floats so that 0.5 is refused, not cut to 0.
        numbers = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=verification_scores.__doc__,
            features=datasets.Features({"predictions": numbers, "references": numbers, "folds": numbers}),
        )

    def _compute(self, predictions, references, **options):
        return verification_scores(predictions, references, **options)
