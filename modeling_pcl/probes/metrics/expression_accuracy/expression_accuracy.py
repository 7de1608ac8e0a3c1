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

from collections.abc import Sequence
from typing import Literal

import datasets
import evaluate
import numpy as np
from sklearn import metrics


class ExpressionAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # Floats, so that a probability is refused and not cut to class 0.
        classes = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": classes, "references": classes}),
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        labels: Sequence[int] | None = None,
        confusion_matrix: Literal["counts", "normalised"] | None = None,
    ) -> dict[str, float | list]:
        """Accuracies in [0, 1].

        Args:
            predictions: Numbers of the classes, `(images,)`.
            references: The same, `(images,)`.
            labels: All classes there are, in the order of the confusion matrix; None takes those that occur, sorted.
            confusion_matrix: What the matrix holds if it is wanted: `counts` of images, or `normalised` so that each
                row sums to 1 (a row of a class without references is 0). None leaves it out, so that all results
                are numbers, as the evaluator's `strategy="bootstrap"` needs them.

        Returns:
            `accuracy`: Share of images whose class is right.
            `mean_class_accuracy`: Mean of the same share of each class in the references.
            `macro_f1`: Mean F1 of the classes that occur in references or predictions.
            `confusion_matrix`: If wanted, `(classes, classes)`: a row for each class in the references, a column for
                each in the predictions.
            `labels`: With the matrix, which class its rows and columns stand for.

        Raises:
            ValueError: If there are no images, a class is not a whole number or not one of `labels`, or
                `confusion_matrix` is none of the above.
        """
        predictions, references = _classes("predictions", predictions), _classes("references", references)
        occurring = np.union1d(predictions, references)
        labels = occurring if labels is None else _checked_labels(labels, occurring)
        in_references = np.unique(references)
        results = {
            "accuracy": float(metrics.accuracy_score(references, predictions)),
            "mean_class_accuracy": float(
                metrics.recall_score(references, predictions, labels=in_references, average="macro")
            ),
            "macro_f1": float(metrics.f1_score(references, predictions, labels=occurring, average="macro")),
        }
        if confusion_matrix is not None:
            results["confusion_matrix"] = _confusions(predictions, references, labels, confusion_matrix)
            results["labels"] = labels.tolist()
        return results


def _classes(name: str, values) -> np.ndarray:
    if not len(values):
        raise ValueError(f"`{name}` must hold the classes of images, got none.")
    values = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(values) & (values == np.round(values))).all():
        raise ValueError(f"`{name}` must be numbers of classes; take the argmax of scores, leave out the unknown.")
    return values.astype(np.int64)


def _checked_labels(labels: Sequence[int], occurring: np.ndarray) -> np.ndarray:
    classes = _classes("labels", labels)
    if len(np.unique(classes)) != len(classes):
        raise ValueError(f"`labels` must name each class once, got {list(labels)}.")
    unknown = np.setdiff1d(occurring, classes)
    if len(unknown):
        raise ValueError(f"`labels` must name every class that occurs, {unknown.tolist()} too.")
    return classes


def _confusions(predictions: np.ndarray, references: np.ndarray, labels: np.ndarray, kind: str) -> list[list]:
    if kind not in ("counts", "normalised"):
        raise ValueError(f'`confusion_matrix` must be "counts", "normalised" or None, got {kind!r}.')
    normalize = "true" if kind == "normalised" else None
    return metrics.confusion_matrix(references, predictions, labels=labels, normalize=normalize).tolist()
