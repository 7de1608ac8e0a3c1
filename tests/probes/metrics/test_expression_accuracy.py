import datasets
import evaluate
import numpy as np
import pytest
import tiny
import torch
from transformers import pipeline

from modeling_pcl import PCLForImageClassification, PCLImageProcessor
from modeling_pcl.probes.metrics import load_metric

NAMES = ["anger", "joy", "fear"]
SEEDS = pytest.mark.parametrize("seed", range(5))


@pytest.fixture(scope="module")
def metric():
    return load_metric("expression_accuracy")


def classes(seed: int = 0, count: int = 80) -> dict[str, np.ndarray]:
    """Five classes of different size; half of the predictions are guessed."""
    generator = np.random.default_rng(seed)
    references = generator.choice(5, count, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    guessed = generator.random(count) < 0.5
    return {"predictions": np.where(guessed, generator.integers(0, 5, count), references), "references": references}


def naive(predictions, references, labels) -> dict:
    matrix = [[0] * len(labels) for _ in labels]
    for prediction, reference in zip(predictions, references):
        matrix[labels.index(reference)][labels.index(prediction)] += 1
    recalls, scores = [], []
    for index in range(len(labels)):
        of_class, predicted_count = sum(matrix[index]), sum(row[index] for row in matrix)
        if of_class:
            recalls.append(matrix[index][index] / of_class)
        if of_class + predicted_count:
            scores.append(2 * matrix[index][index] / (of_class + predicted_count))
    return {
        "accuracy": sum(matrix[index][index] for index in range(len(labels))) / len(references),
        "mean_class_accuracy": sum(recalls) / len(recalls),
        "macro_f1": sum(scores) / len(scores),
        "confusion_matrix": matrix,
        "labels": labels,
    }


@SEEDS
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4], [7, 4, 3, 2, 1, 0, 6]], ids=["sorted", "other order, absent ones"])
def test_all_numbers_equal_those_of_loops(metric, seed, labels):
    data = classes(seed)
    expected = naive(**data, labels=labels)
    results = metric.compute(**data, labels=labels, confusion_matrix="counts")
    for name in ("confusion_matrix", "labels"):
        assert results.pop(name) == expected.pop(name)
    assert results == pytest.approx(expected, abs=1e-12)


def test_rows_of_the_normalised_matrix_are_shares_of_a_reference_class(metric):
    data = {"predictions": [0, 1, 1, 1], "references": [0, 0, 1, 1]}
    results = metric.compute(**data, labels=[0, 1, 2], confusion_matrix="normalised")
    assert results["confusion_matrix"] == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]]
    assert results["labels"] == [0, 1, 2]


def test_the_matrix_is_left_out_unless_asked_for(metric):
    assert list(metric.compute(**classes())) == ["accuracy", "mean_class_accuracy", "macro_f1"]


def test_the_commonest_class_always_is_at_chance_for_the_class_mean(metric):
    """Nine of ten images are of class 0: its F1 is 18 / 19, that of the other class 0."""
    results = metric.compute(predictions=[0] * 10, references=[0] * 9 + [1])
    assert results == pytest.approx({"accuracy": 0.9, "mean_class_accuracy": 0.5, "macro_f1": 9 / 19})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": [1, 0]}, "Mismatch"),
        ({"predictions": [], "references": []}, "got none"),
        ({"predictions": [0.7, 0.1, 0.2]}, "`predictions` must be class numbers"),
        ({"references": [0, None, 1]}, "`references` must be class numbers"),
        ({"predictions": [[0.7, 0.3], [0.2, 0.8], [0.1, 0.9]]}, "expected format"),
        ({"labels": [0]}, r"every class that occurs, \[1\] too"),
        ({"labels": [0, 1, 1]}, "each class once"),
        ({"confusion_matrix": "rows"}, '"counts", "normalised" or None'),
    ],
)
def test_what_cannot_be_scored_is_refused(metric, changes, message):
    data = {"predictions": [1, 0, 1], "references": [1, 0, 1]}
    with pytest.raises(ValueError, match=message):
        metric.compute(**(data | changes))
    # An error leaves nothing behind that a later call would count.
    assert metric.compute(**data)["accuracy"] == 1


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A saved head whose predictions differ between images."""
    torch.manual_seed(0)
    model = PCLForImageClassification(
        tiny.config(
            num_labels=3, id2label={0: "anger", 1: "joy", 2: "fear"}, label2id={"anger": 0, "joy": 1, "fear": 2}
        )
    ).eval()
    with torch.no_grad():
        logits = model(tiny.images(model.config, 8)).logits
        model.classifier.bias -= logits.mean(dim=0)
    folder = tmp_path_factory.mktemp("head")
    model.save_pretrained(folder)
    PCLImageProcessor.for_image_size(32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def faces(head) -> tuple[datasets.Dataset, list[int]]:
    """Eight images, of which five are labelled as the head classifies them, and what the head says of all."""
    model = PCLForImageClassification.from_pretrained(head).eval()
    images = (255 * tiny.images(model.config, 8)).round().to(torch.uint8)
    with torch.no_grad():
        predictions_of_head = model(images.float() / 255).logits.argmax(dim=1).tolist()
    assert len(set(predictions_of_head)) > 1
    labels = [(label + (row >= 5)) % 3 for row, label in enumerate(predictions_of_head)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    columns = {"image": list(images.permute(0, 2, 3, 1).numpy()), "label": labels}
    return datasets.Dataset.from_dict(columns, features=features), predictions_of_head


def test_the_evaluator_scores_a_saved_head_from_model_and_processor(metric, head, faces):
    dataset, predictions_of_head = faces
    model = PCLForImageClassification.from_pretrained(head)
    results = evaluate.evaluator("image-classification").compute(
        model_or_pipeline=model,
        feature_extractor=PCLImageProcessor.from_pretrained(head),
        data=dataset,
        metric=metric,
        label_mapping=model.config.label2id,
    )
    expected = metric.compute(predictions=predictions_of_head, references=list(dataset["label"]))
    assert expected["accuracy"] == 5 / 8
    assert {name: results[name] for name in expected} == expected


def test_the_evaluator_scores_a_ready_pipeline_that_it_need_not_prepare(metric, head, faces):
    dataset, predictions_of_head = faces
    model = PCLForImageClassification.from_pretrained(head)
    pipe = pipeline("image-classification", model=model, image_processor=PCLImageProcessor.from_pretrained(head))
    evaluator = evaluate.evaluator("image-classification")
    # evaluate 0.4.6 looks for TensorFlow's classes in transformers before it takes a pipeline.
    evaluator.prepare_pipeline = lambda model_or_pipeline, **options: model_or_pipeline
    # Another numbering of the classes, to see that the mapping is used.
    mapping = {"anger": 2, "joy": 0, "fear": 1}
    results = evaluator.compute(model_or_pipeline=pipe, data=dataset, metric=metric, label_mapping=mapping)
    renumbered = [(label + 2) % 3 for label in predictions_of_head]
    expected = metric.compute(predictions=renumbered, references=list(dataset["label"]))
    assert expected["accuracy"] != 5 / 8
    assert {name: results[name] for name in expected} == expected


def test_the_evaluator_gives_intervals_by_bootstrap(metric, head, faces):
    dataset, _ = faces
    model = PCLForImageClassification.from_pretrained(head)
    results = evaluate.evaluator("image-classification").compute(
        model_or_pipeline=model,
        feature_extractor=PCLImageProcessor.from_pretrained(head),
        data=dataset,
        metric=metric,
        label_mapping=model.config.label2id,
        strategy="bootstrap",
        n_resamples=20,
        random_state=0,
    )
    for name in ("accuracy", "mean_class_accuracy", "macro_f1"):
        low, high = results[name]["confidence_interval"]
        assert 0 <= low <= results[name]["score"] <= high <= 1
        assert low < high


def test_a_class_that_is_only_predicted_counts_in_f1_but_not_in_the_class_mean(metric):
    results = metric.compute(predictions=[0, 0, 1, 2], references=[0, 0, 1, 1])
    assert results == pytest.approx({"accuracy": 0.75, "mean_class_accuracy": 0.75, "macro_f1": (1 + 2 / 3 + 0) / 3})
