"""Mean absolute error of the angles of the head."""

import datasets
import evaluate

from modeling_pcl.probes.scores import angular_errors


class AngularMAE(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=angular_errors.__doc__,
            features=datasets.Features({"predictions": rows, "references": rows}),
        )

    def _compute(self, predictions, references, **options):
        return angular_errors(predictions, references, **options)
