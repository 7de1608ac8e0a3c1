"""Accuracy over images and over classes, and the confusion matrix, of a classification such as expressions.

With `evaluate`'s evaluator, from a saved head:

    model = PCLForImageClassification.from_pretrained(folder)
    evaluate.evaluator("image-classification").compute(
        model_or_pipeline=model,
        feature_extractor=PCLImageProcessor.from_pretrained(folder),
        data=dataset,
        metric=evaluate.load("modeling_pcl/probes/metrics/expression_accuracy"),
        label_mapping=model.config.label2id,
    )

Pass the model and its image processor instead of a pipeline: for pipelines, evaluate 0.4.6 asks transformers for a
TensorFlow class that transformers 5 does not have. To use a pipeline, override `prepare_pipeline` of the evaluator:

    evaluator.prepare_pipeline = lambda model_or_pipeline, **options: model_or_pipeline
"""

from modeling_pcl.probes import metrics, scores


class ExpressionAccuracy(metrics.ScoreMetric):
    compute_scores = staticmethod(scores.classification_scores)
