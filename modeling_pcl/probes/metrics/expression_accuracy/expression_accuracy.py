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

from modeling_pcl.probes import metrics, scores


class ExpressionAccuracy(metrics.ScoreMetric):
    compute_scores = staticmethod(scores.classification_scores)
