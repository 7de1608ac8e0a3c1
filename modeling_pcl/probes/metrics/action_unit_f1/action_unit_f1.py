"""F1 of each facial action unit, and their mean."""

import datasets
import evaluate

from modeling_pcl.probes.scores import action_unit_scores


class ActionUnitF1(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=action_unit_scores.__doc__,
            features=datasets.Features({"predictions": rows, "references": rows}),
        )

    def _compute(self, predictions, references, **options):
        return action_unit_scores(predictions, references, **options)
