"""Accuracy of one class of several, such as expressions: over images, over classes, and the confusions.

With `evaluate`'s evaluator, from a saved head:

    model = PCLForImageClassification.from_pretrained(folder)
    evaluate.evaluator("image-classification").compute(
        model_or_pipeline=model,
        feature_extractor=PCLImageProcessor.from_pretrained(folder),
        data=dataset,
        metric=evaluate.load("modeling_pcl/probes/metrics/expression_accuracy"),
        label_mapping=model.config.label2id,
    )

The model and its image processor, not a pipeline: given a ready one, evaluate 0.4.6 asks transformers for a TensorFlow
class that transformers 5 no longer has. For a ready pipeline, set the evaluator's `prepare_pipeline` first:

    evaluator.prepare_pipeline = lambda model_or_pipeline, **options: model_or_pipeline
"""

import datasets
import evaluate

from modeling_pcl.probes.scores import classification_scores


class ExpressionAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # Floats, so that a probability is refused and not cut to class 0.
        classes = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=classification_scores.__doc__,
            features=datasets.Features({"predictions": classes, "references": classes}),
        )

    def _compute(self, predictions, references, **options):
        return classification_scores(predictions, references, **options)
