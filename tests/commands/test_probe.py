import itertools
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PILImage
from safetensors.torch import load_file
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from transformers import AutoImageProcessor, pipeline

from modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification, PCLModel
from modeling_pcl.data.corpora import load_corpus, load_pairs
from modeling_pcl.data.images import decode_image
from modeling_pcl.features_pcl import READABLE_FEATURES, read_feature
from modeling_pcl.hub.card import gather_facts, lint, render_model_card
from modeling_pcl.hub.push import TEMPLATES
from modeling_pcl.hub.repository import collect_results
from modeling_pcl.probes import encoder as encoder_module
from modeling_pcl.probes import feature_files, head_probe
from modeling_pcl.probes.arguments import ExpressionArguments
from modeling_pcl.probes.encoder import Encoder
from modeling_pcl.probes.head_training import HeadProbe
from modeling_pcl.probes.labels import read_classes
from modeling_pcl.probes.linear import PUBLISHED, Examples, train_linear
from modeling_pcl.probes.logistic_regression import fit_logistic_regression
from modeling_pcl.probes.objectives import OBJECTIVES
from modeling_pcl.probes.subset import count_shared, open_rounds
from modeling_pcl.probes.tasks import make_head_task

NAMES = ["angry", "happy", "sad"]
SIZES = {"train": 72, "validation": 36, "test": 18}
FEATURES = ["trunk", "face", "pose"]  # that an encoder has
ONE_HEAD = ("--features", "trunk", "--seeds", 0)
read_labels = partial(read_classes, column=None)
FINETUNING = ("--finetune", "--epochs", 2, "--learning_rates", 3e-3, "--layer_decays", 1)


def expression_arguments(**options) -> ExpressionArguments:
    """Options of a probe whose parts are tested separately."""
    return ExpressionArguments(**{"model": "model", "output_dir": "out"} | options)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def predictions(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv")


def write_card(model: Path, probed: Path, folder: Path) -> str:
    """Write the card of a model with the results of one probe, as `pcl push` does."""
    (folder / "run" / "probe").mkdir(parents=True)
    shutil.copyfile(probed / "results.json", folder / "run" / "probe" / "results.json")
    shutil.copyfile(model / "config.json", folder / "config.json")
    probes = collect_results(folder / "run", results(probed)["model_revision"])
    (folder / "results.json").write_text(json.dumps(probes))
    templates = {path.name: path.read_text() for path in TEMPLATES.glob("*.md")}
    facts = gather_facts(folder, "user/faces")
    card = render_model_card(templates, facts)
    assert lint(card, templates, facts) == []
    return " ".join(card.split())


def picture(path: Path) -> np.ndarray:
    with PILImage.open(path) as image:
        return np.asarray(image.convert("L"))


def pixels(corpus: Dataset, rows) -> torch.Tensor:
    records = corpus.with_format(None).select(list(rows))["image"]
    return torch.stack([decode_image(record, 32) for record in records]).float() / 255


@torch.no_grad()
def logits(model, images: torch.Tensor) -> torch.Tensor:
    return model.eval()(images).logits


def named(corpus: Dataset) -> Dataset:
    return corpus.cast_column("expression", ClassLabel(names=NAMES))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture(scope="module")
def expressions(corpora, faces) -> Path:
    """Images of three classes: 72 to train on, 36 to choose on, 18 to test on."""
    classes = {name: [row % 3 for row in range(size)] for name, size in SIZES.items()}
    splits = {name: named(faces(part, len(part), expression=part)) for name, part in classes.items()}
    DatasetDict(splits).save_to_disk(corpora / "expressions")
    return corpora / "expressions"


@pytest.fixture(scope="module")
def strict(probe, expressions, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("strict")
    probe(folder, "expression", "--train", expressions, "--epochs", 60, "--seeds", 0, 1, drawn=True)
    return folder


class TestExpression:
    def test_classes_in_plain_sight_are_all_told_apart(self, strict):
        assert list(results(strict)["results"]) == list(READABLE_FEATURES)
        for kinds in results(strict)["results"].values():
            assert list(kinds) == ["linear", "5 nearest neighbours", "20 nearest neighbours", "logistic regression"]
            linear = kinds["linear"]["accuracy"]
            assert len(linear["values"]) == 2
            # At the first epoch with every validation image right, a test image may still be wrong.
            assert min(linear["values"]) >= 17 / 18 - 1e-9
            assert linear["mean"] == pytest.approx(np.mean(linear["values"]))
            assert linear["spread"] == pytest.approx(np.std(linear["values"], ddof=1))
            for kind in list(kinds)[1:]:
                assert kinds[kind]["accuracy"] == {"mean": 1.0, "spread": None, "values": [1.0]}
                assert kinds[kind]["macro_f1"]["values"] == [1.0]

    def test_people_who_are_the_classes_are_in_all_sets(self, probe, faces, tmp_path):
        people = [row % 3 for row in range(60)]
        corpus = faces(people, seed=5, subject=[f"s{person}" for person in people])
        corpus.to_parquet(tmp_path / "people.parquet")
        options = ("--train", tmp_path / "people.parquet", "--label_column", "subject", "--epochs", 30, "--seeds", 0)
        probe(tmp_path / "out", "expression", *options, "--features", "trunk", "--linear_only")
        record = results(tmp_path / "out")
        assert record["results"]["trunk"]["linear"]["accuracy"]["mean"] > 0.8
        assert "stratified by label" in record["parts"][0]["test"]["source"]
        assert record["parts"][0]["shared_by_train_and_test"]["subjects"] == 3
        with pytest.raises(ValueError, match="Every class is one person"):
            probe(tmp_path / "folds", "expression", *options, "--folds", 3)

    def test_results_say_what_was_done(self, strict, model):
        record = results(strict)
        heading = {"task": "expression", "protocol": "strict", "model": str(model), "seeds": [0, 1]}
        heading |= {"metric": "accuracy", "image_size": 32, "labels": NAMES, "feature_channels": 8}
        assert record.items() >= heading.items()
        assert "best validation accuracy; the test set was used once" in record["selection"]
        (parts,) = record["parts"]
        assert {name: parts[name]["images"] for name in SIZES} == SIZES
        for name in SIZES:
            assert parts[name]["source"].endswith(f"expressions, split {name}")
            assert "rows, sha256:" in parts[name]["revision"]
        assert parts["shared_by_train_and_test"] == {"images": 0, "subjects": 0}
        (head,) = record["head"]
        assert head["feature"] in READABLE_FEATURES
        assert head["seed"] in (0, 1)
        assert 1 <= head["epoch"] <= 60
        assert head["learning_rate"] in (1e-2, 1e-3, 1e-4)
        assert head["score"] == 1.0
        assert record["options"]["epochs"] == 60
        assert record["model_revision"].startswith("sha256:")
        assert record["command"]
        assert record["versions"]["torch"] == torch.__version__.partition("+")[0]

    def test_the_saved_head_is_the_one_whose_predictions_are_written(self, strict, expressions):
        model = PCLForImageClassification.from_pretrained(strict)
        assert model.config.id2label == dict(enumerate(NAMES))
        assert model.config.head_feature == results(strict)["head"][0]["feature"]
        classify = pipeline("image-classification", str(strict), trust_remote_code=True, device="cpu")
        written = predictions(strict)
        assert written["row"].tolist() == list(range(18))
        assert written["label"].tolist() == [NAMES[row % 3] for row in range(18)]
        test = load_corpus(str(expressions), "test").cast_column("image", Image())
        for row, outputs in enumerate(classify(list(test["image"]), top_k=1)):
            assert outputs[0]["label"] == written["prediction"][row]
            assert outputs[0]["score"] == pytest.approx(written["probability"][row], abs=1e-5)

    def test_pictures_show_something(self, strict):
        for name in ("confusion.png", "epochs.png", "faces.png"):
            drawn = picture(strict / name)
            assert min(drawn.shape) > 300, name
            assert len(np.unique(drawn)) > 20, name

    def test_only_what_was_never_seen_is_encoded(self, probe, strict, expressions, tmp_path, monkeypatch):
        sizes, encode = [], encoder_module.encode

        def counted(model, images, precision):
            sizes.append(len(images))
            return encode(model, images, precision)

        monkeypatch.setattr(encoder_module, "encode", counted)
        options = ("expression", "--train", expressions, "--features", "trunk", "--epochs", 2)
        probe(tmp_path / "another seed", *options, "--seeds", 5)
        assert sizes == []
        probe(tmp_path / "another size", *options, "--seeds", 0, size=40)
        assert sum(sizes) == sum(SIZES.values())

    def test_weight_decay_keeps_the_weights_of_a_head_small(self, probe, expressions, tmp_path):
        lengths = []
        for decay in (0, 30):
            words = ("--train", expressions, "--epochs", 20, "--weight_decay", decay, "--linear_only", *ONE_HEAD)
            probe(tmp_path / str(decay), "expression", *words)
            lengths.append(load_file(tmp_path / str(decay) / "model.safetensors")["classifier.weight"].norm())
        assert lengths[1] < 0.5 * lengths[0]

    def test_images_that_do_not_decode_are_left_out_and_the_others_keep_their_labels(
        self, probe, faces, expressions, tmp_path, caplog
    ):
        for name, broken, count in (("train", 31, 48), ("test", 4, 18)):
            colours = [None if row == broken else row % 3 for row in range(count)]
            corpus = faces(colours, count, expression=[row % 3 for row in range(count)])
            named(corpus).to_parquet(tmp_path / f"{name}.parquet")
        corpora = ("--train", tmp_path / "train.parquet", "--test", tmp_path / "test.parquet")
        probe(tmp_path / "out", "expression", *corpora, "--validation", expressions, "--epochs", 60, *ONE_HEAD)
        assert "left out row 31" in caplog.text
        assert "left out row 4" in caplog.text
        record, written = results(tmp_path / "out"), predictions(tmp_path / "out")
        for kind, measured in record["results"]["trunk"].items():
            assert measured["accuracy"]["mean"] == 1.0, kind
        assert written["row"].tolist() == [0, 1, 2, 3, *range(5, 18)]
        assert written["label"].tolist() == written["prediction"].tolist()
        assert written["label"].tolist() == [NAMES[row % 3] for row in written["row"]]

    def test_the_command_prints_a_table_and_names_rows_of_the_corpus(self, call, model, faces, tmp_path, capsys):
        classes = [None if row in (2, 11) else row * 7 % 3 for row in range(24)]
        faces([number or 0 for number in classes], expression=classes).to_parquet(tmp_path / "few.parquet")
        options = ("--train", tmp_path / "few.parquet", "--output_dir", tmp_path / "out", "--image_size", 32)
        options += ("--epochs", 2, "--cache_dir", tmp_path / "features", *ONE_HEAD)
        call("probe", model, "--task", "expression", *options)
        record, written = results(tmp_path / "out"), predictions(tmp_path / "out")
        assert record["command"][1:4] == ["pcl", "probe", str(model)]
        measured = record["results"]["trunk"]
        assert list(measured) == [
            "linear",
            "5 nearest neighbours",
            "logistic regression",
        ]  # There are fewer than 20 training images.
        printed = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["trunk", "linear", f"{measured['linear']['accuracy']['mean']:.3f}"] in [line[:3] for line in printed]
        assert len(written) == 4
        assert [classes[row] for row in written["row"]] == written["label"].tolist()


class TestFaceAndPoseTogether:
    """A probe of `face+pose` is a probe of the concatenated features."""

    @pytest.fixture(scope="class")
    @classmethod
    def together(cls, probe, expressions, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("together")
        probe(folder, "expression", "--train", expressions, "--epochs", 20, "--features", "face+pose", "--seeds", 0)
        return folder

    @pytest.fixture(scope="class")
    @classmethod
    def concatenated(cls, model, expressions, tmp_path_factory) -> dict[str, tuple]:
        """Features of each part, `(images, 2 * dim)`, and its targets."""
        (parts,) = open_rounds(expression_arguments(train=str(expressions)), read_labels)
        encoder = Encoder(str(model), str(tmp_path_factory.mktemp("cache")))
        parts_by_name = {}
        for name, precision in (("train", "bf16"), ("validation", "bf16"), ("test", "float32")):
            part = getattr(parts, name)
            features = encoder.extract(part.corpus, 32, precision, part.source).features
            rows = torch.cat([features["face"][:], features["pose"][:]], dim=1)[torch.from_numpy(part.rows)]
            parts_by_name[name] = (rows, part.targets())
        return parts_by_name

    def test_the_head_is_that_of_a_probe_on_the_concatenated_features(self, together, concatenated):
        recipe = replace(PUBLISHED["expression"].with_search(), epochs=20)
        parts = (Examples(*concatenated[name]) for name in ("train", "validation"))
        expected = train_linear(*parts, 3, OBJECTIVES["expression"], recipe, seed=0)
        saved = load_file(together / "model.safetensors")
        torch.testing.assert_close(saved["classifier.weight"], expected.weight)
        torch.testing.assert_close(saved["classifier.bias"], expected.bias)
        record = results(together)
        assert record["head"] == [{"feature": "face+pose", "seed": 0} | expected.selection.describe()]
        rows, targets = concatenated["test"]
        accuracy = (expected.compute_logits(rows).argmax(dim=1) == targets).float().mean().item()
        assert list(record["results"]) == ["face+pose"]  # No other feature was requested.
        assert record["results"]["face+pose"]["linear"]["accuracy"]["values"] == [pytest.approx(accuracy)]

    def test_neighbours_and_logistic_regression_read_the_concatenated_features_too(self, together, concatenated):
        measured = results(together)["results"]["face+pose"]
        (train, labels), (test, targets) = concatenated["train"], concatenated["test"]
        for k in (5, 20):
            classifier = KNeighborsClassifier(k, metric="cosine").fit(train.float(), labels)
            accuracy = measured[f"{k} nearest neighbours"]["accuracy"]["mean"]
            assert accuracy == pytest.approx(classifier.score(test.float(), targets))
        expected = fit_logistic_regression(train, labels, concatenated["validation"])
        assert measured["logistic regression"]["inverse_penalty"]["mean"] == expected.model.C
        accuracy = measured["logistic regression"]["accuracy"]["mean"]
        assert accuracy == pytest.approx((expected.predict(test) == targets.numpy()).mean())

    def test_the_saved_head_gives_the_logits_that_were_measured(self, together, concatenated, expressions):
        head = PCLForImageClassification.from_pretrained(together)
        assert head.config.head_feature == "face+pose"
        assert head.classifier.in_features == 2 * head.config.feature_size
        outputs = logits(head, pixels(load_corpus(str(expressions), "test"), range(18)))
        expected = head.classifier(concatenated["test"][0])
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)
        written = predictions(together)
        assert [NAMES[number] for number in outputs.argmax(dim=1)] == written["prediction"].tolist()
        np.testing.assert_allclose(outputs.softmax(dim=1).max(dim=1).values, written["probability"], atol=1e-5)

    @pytest.mark.parametrize(("scores", "best"), [((0.7, 0.6, 0.5, 0.9), "face+pose"), ((0.7, 0.9, 0.5, 0.8), "face")])
    def test_it_takes_part_in_the_choice_of_the_best_head(self, scores, best):
        scored = [SimpleNamespace(score=score) for score in scores]
        heads = [SimpleNamespace(feature=name, selection=one) for name, one in zip(READABLE_FEATURES, scored)]
        assert [head.feature for head in head_probe.choose_heads([heads, heads])] == [best, best]


class TestFeatures:
    def test_a_stopped_extraction_goes_on_where_it_was(self, model, faces, tmp_path, monkeypatch):
        seen = []
        monkeypatch.setattr(feature_files, "FILE_BYTES", 4 * 4 * 3 * 32)  # Four rows.
        encoder = Encoder(str(model), str(tmp_path), batch_size=4)
        corpus, encode = faces([row % 3 for row in range(20)]), encoder_module.encode

        calls = iter(range(5))  # Each call encodes one batch.

        def stopped(model, images, precision):
            if next(calls) == 3:
                raise KeyboardInterrupt
            return encode(model, images, precision)

        def counted(model, images, precision):
            seen.append(len(images))
            return encode(model, images, precision)

        monkeypatch.setattr(encoder_module, "encode", stopped)
        with pytest.raises(KeyboardInterrupt):
            encoder.extract(corpus, 32, "float32", "faces")
        monkeypatch.setattr(encoder_module, "encode", counted)
        features = encoder.extract(corpus, 32, "float32", "faces").features
        assert sum(seen) == 20 - 12
        with torch.no_grad():
            expected = PCLModel.from_pretrained(model)(pixels(corpus, range(20)))
        torch.testing.assert_close(features["face"][:], expected.face_features, rtol=1e-4, atol=1e-5)


class TestProtocols:
    @pytest.fixture(scope="class")
    @classmethod
    def hard(cls, corpora, faces) -> dict[str, Path]:
        """Training images with a third of the labels wrong, and test labels in two orders."""
        generator = np.random.default_rng(0)
        classes = np.arange(60) % 3
        given = np.where(generator.random(60) < 0.35, generator.integers(0, 3, 60), classes)
        test = np.where(generator.random(30) < 0.35, generator.integers(0, 3, 30), np.arange(30) % 3)
        sets = {}
        for name, labels in {"as they are": test, "permuted": generator.permutation(test)}.items():
            train = named(faces(classes, 1, expression=given))
            splits = {"train": train, "test": named(faces(np.arange(30) % 3, 2, expression=labels))}
            sets[name] = corpora / f"hard {name}"
            DatasetDict(splits).save_to_disk(sets[name])
        return sets

    def test_paper_takes_the_best_epoch_on_the_test_set_and_says_so(self, probe, hard, model, tmp_path):
        options = {"train": str(hard["permuted"]), "protocol": "paper", "epochs": 60, "seeds": [0], "features": "trunk"}
        words = itertools.chain(*((f"--{name}", *np.atleast_1d(value)) for name, value in options.items()))
        probe(tmp_path / "out", "expression", *words)
        record = results(tmp_path / "out")
        assert "published hyper-parameters" in record["selection"]
        assert "TEST" in record["selection"]
        assert record["parts"][0]["validation"] is None
        assert record["parts"][0]["train"]["images"] == 60
        arguments = expression_arguments(model=str(model), image_size=32, **options)
        (sets,) = open_rounds(arguments, read_labels)
        encoder = Encoder(str(model), str(tmp_path / "features"))
        (trained,) = HeadProbe(arguments, make_head_task(arguments), encoder, sets).train_linear_heads()
        ((rate, scores),) = trained.selection.history.items()
        assert rate == "learning rate 0.01"
        assert len(set(scores)) > 1
        assert record["head"] == [
            {
                "feature": "trunk",
                "seed": 0,
                "score": max(scores),
                "learning_rate": 0.01,
                "epoch": 1 + scores.index(max(scores)),
            }
        ]
        measured = record["results"]["trunk"]["linear"]["accuracy"]["values"]
        assert measured == [pytest.approx(max(scores), abs=1e-6)]

    def test_strict_chooses_without_a_look_at_the_test_labels(self, probe, hard, tmp_path):
        heads, measured = [], []
        for name, corpus in hard.items():
            probe(tmp_path / name, "expression", "--train", corpus, "--epochs", 15, *ONE_HEAD)
            record = results(tmp_path / name)
            measured.append(record["results"]["trunk"]["linear"]["accuracy"]["mean"])
            heads.append((record["head"], load_file(tmp_path / name / "model.safetensors")))
        (first, weights), (second, others) = heads
        assert first == second
        for name, tensor in weights.items():
            assert torch.equal(tensor, others[name]), name
        assert measured[0] > measured[1]

    def test_strict_leaves_test_images_out_of_the_training_and_paper_counts_them(self, faces, tmp_path):
        test = faces([0, 1, 2] * 5, 7, expression=[0, 1, 2] * 5)
        train = faces([0, 1, 2] * 12, 8, expression=[0, 1, 2] * 12)
        rows = [*train.to_list(), *test.select(range(4)).to_list()]
        Dataset.from_list(rows, features=train.features).to_parquet(tmp_path / "train.parquet")
        test.to_parquet(tmp_path / "test.parquet")
        for protocol, images, shared in (("strict", 36, 0), ("paper", 40, 4)):
            arguments = expression_arguments(
                train=str(tmp_path / "train.parquet"), test=str(tmp_path / "test.parquet"), protocol=protocol
            )
            (sets,) = open_rounds(arguments, read_labels)
            chosen_on = len(sets.validation.rows) if sets.validation else 0
            assert len(sets.train.rows) + chosen_on == images
            assert count_shared(sets.train, sets.test) == {"images": shared, "subjects": 0}
            assert ("without 4 also in" in sets.train.source) == (protocol == "strict")

    def test_strict_chooses_on_no_test_image_and_trains_on_no_validation_image(self, faces, tmp_path):
        classes = [0, 1, 2] * 8
        train, test = faces(classes, 2, expression=classes), faces(classes, 1, expression=classes)
        rows = [*train.select(range(6)).to_list(), *test.select(range(3)).to_list()]
        validation = Dataset.from_list(rows, features=test.features)
        DatasetDict(train=train, test=test, validation=validation).save_to_disk(tmp_path / "faces")
        arguments = expression_arguments(train=str(tmp_path / "faces"))
        (sets,) = open_rounds(arguments, read_labels)
        assert sets.validation.row_numbers() == list(range(6))
        assert sets.train.row_numbers() == list(range(6, 24))


class TestParts:
    """Sets that are split off a corpus without splits, or taken from the splits of a corpus."""

    @pytest.fixture
    def rounds(self):
        def find(train, **options):
            return open_rounds(expression_arguments(train=str(train), **options), read_labels)

        return find

    def images(self, part) -> set[bytes]:
        return {part.corpus.with_format(None)[row]["image"]["bytes"] for row in part.rows.tolist()}

    def test_without_people_each_class_gives_a_fifth_to_the_test(self, rounds, faces, tmp_path):
        classes = [0] * 50 + [1] * 30 + [2] * 20
        faces(classes, label=classes).to_parquet(tmp_path / "faces.parquet")
        (sets,) = rounds(tmp_path / "faces.parquet")
        assert torch.bincount(sets.test.targets()).tolist() == [10, 6, 4]
        assert torch.bincount(sets.validation.targets()).tolist() == pytest.approx([4, 2.4, 1.6], abs=1)
        pieces = [self.images(part) for part in (sets.train, sets.validation, sets.test)]
        assert sum(map(len, pieces)) == len(set.union(*pieces)) == 100

    def test_where_people_are_known_whole_people_go_to_one_part(self, rounds, faces, tmp_path):
        people = [row // 5 for row in range(100)]
        faces([0] * 100, label=[row % 2 for row in range(100)], subject=people).to_parquet(tmp_path / "faces.parquet")
        (sets,) = rounds(tmp_path / "faces.parquet")
        shown = [set(part.subjects()) for part in (sets.train, sets.validation, sets.test)]
        assert len(set.union(*shown)) == sum(map(len, shown)) == 20
        assert len(sets.test.rows) == 20
        assert "whole subjects" in sets.test.source

    def test_own_splits_are_used(self, rounds, faces, tmp_path):
        parts = {
            name: faces([0, 1] * size, size, label=[0, 1] * size)
            for name, size in {"train": 9, "validation": 5, "test": 4}.items()
        }
        DatasetDict(parts).save_to_disk(tmp_path / "faces")
        (sets,) = rounds(tmp_path / "faces")
        assert [len(part.rows) for part in (sets.train, sets.validation, sets.test)] == [18, 10, 8]

    def test_splits_of_a_folder_of_images_are_used(self, rounds, faces, tmp_path):
        for split, size in (("train", 20), ("test", 3)):
            for row, image in enumerate(faces([0, 1] * size, size)["image"]):
                path = tmp_path / "faces" / split / NAMES[row % 2] / f"{row}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image["bytes"])
        (sets,) = rounds(tmp_path / "faces")
        assert sets.test.labels.names == ("angry", "happy")
        assert torch.bincount(sets.test.targets()).tolist() == [3, 3]
        assert torch.bincount(sets.train.targets()).tolist() == [18, 18]

    def test_chosen_subjects_and_folds(self, rounds, faces, tmp_path):
        people = [f"s{row // 4 + 1}" for row in range(48)]
        faces([0] * 48, label=[row % 2 for row in range(48)], subject=people).to_parquet(tmp_path / "faces.parquet")
        corpus = tmp_path / "faces.parquet"
        (sets,) = rounds(corpus, test=str(corpus), train_subjects="s1-s8", test_subjects="s9,s10")
        assert set(sets.test.subjects()) == {"s9", "s10"}
        assert set(sets.train.subjects()) | set(sets.validation.subjects()) == {f"s{number}" for number in range(1, 9)}
        folds = rounds(corpus, folds=4)
        tested = [set(sets.test.subjects()) for sets in folds]
        assert len(set.union(*tested)) == sum(map(len, tested)) == 12
        for sets in folds:
            assert not set(sets.test.subjects()) & (set(sets.train.subjects()) | set(sets.validation.subjects()))

    @pytest.mark.parametrize(
        ("column", "values", "names", "targets"),
        [
            ("strings", ["sad", "angry", None, "sad"], ("angry", "sad"), [1, 0, 1]),
            ("gaps", [0, 5, None, 2], ("0", "1", "2", "3", "4", "5"), [0, 5, 2]),
            ("booleans", [True, False, None, True], ("0", "1"), [1, 0, 1]),
            ("floats", [1.0, float("nan"), 0.0, 1.0], ("0", "1"), [1, 0, 1]),
        ],
    )
    def test_classes_come_in_many_forms(self, faces, column, values, names, targets):
        labels = read_classes(faces([0] * 4, **{column: values}), column)
        assert labels.names == names
        assert labels.targets[torch.from_numpy(labels.usable)].tolist() == targets

    def test_a_class_of_minus_one_is_not_known_if_classes_have_names_and_refused_if_not(self, faces):
        corpus = faces([0] * 3, label=[1, -1, 0])
        named = corpus.cast_column("label", ClassLabel(names=["a", "b"]))
        assert read_labels(named).usable.tolist() == [True, False, True]
        with pytest.raises(ValueError, match="`label` must hold class numbers from 0, or names, not -1"):
            read_labels(corpus)


class TestActionUnits:
    @pytest.fixture(scope="class")
    @classmethod
    def units(cls, corpora, faces) -> Path:
        """54 images of 9 people. AU1 is shown in red, AU12 in red or green; one image has no label at all."""
        classes = [row % 3 for row in range(54)]
        labels = {
            "AU1": [None if row % 4 == 1 else int(number == 0) for row, number in enumerate(classes)],
            "AU12": [None if row == 5 else [5, 2, 1][number] for row, number in enumerate(classes)],
        }
        corpus = faces(classes, subject=[f"s{row // 6}" for row in range(54)], **labels)
        corpus = corpus.cast_column("AU1", ClassLabel(names=["absent", "present"])).cast_column("AU12", Value("int8"))
        corpus.to_parquet(corpora / "units.parquet")
        return corpora / "units.parquet"

    @pytest.fixture(scope="class")
    @classmethod
    def folded(cls, probe, units, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("units")
        probe(
            folder, "action_units", "--train", units, "--epochs", 100, "--features", "trunk", "--seeds", 1, drawn=True
        )
        return folder

    def test_every_labelled_row_is_predicted_once_by_the_head_of_its_fold(self, folded, units):
        written = predictions(folded)
        corpus = load_corpus(str(units))
        assert sorted(written["row"]) == [row for row in range(54) if row != 5]  # Row 5 has no label.
        people = written.assign(subject=[corpus["subject"][row] for row in written["row"]])
        assert people.groupby("subject")["fold"].nunique().tolist() == [1] * 9
        for fold, rows in written.groupby("fold"):
            head = PCLForImageClassification.from_pretrained(folded if fold == 1 else folded / f"fold-{fold}")
            assert head.config.problem_type == "multi_label_classification"
            assert head.config.id2label == {0: "AU1", 1: "AU12"}
            outputs = logits(head, pixels(corpus, rows["row"])).sigmoid()
            np.testing.assert_allclose(outputs, rows[["probability_AU1", "probability_AU12"]], atol=1e-5)
        assert written["fold"].unique().tolist() == [1, 2, 3]

    def test_f1_is_that_of_the_predictions_over_labelled_images(self, folded):
        written, record = predictions(folded), results(folded)
        assert written["label_AU1"].isna().sum() == 13
        by_unit = {}
        for unit in ("AU1", "AU12"):
            known = written[written[f"label_{unit}"].notna()]
            scores = [
                f1_score(rows[f"label_{unit}"], rows[f"probability_{unit}"] >= 0.5) for _, rows in known.groupby("fold")
            ]
            by_unit[unit] = np.mean(scores)
            measured = record["results"]["trunk"]["linear"][f"f1_{unit}"]
            assert measured["values"] == [pytest.approx(by_unit[unit])]
            # A unit that is always predicted has 0.5. The epoch is chosen on a few images, so that rounding decides it.
            assert measured["mean"] > 0.8
        assert record["results"]["trunk"]["linear"]["f1"]["mean"] == pytest.approx(np.mean(list(by_unit.values())))
        assert np.mean(list(by_unit.values())) > 0.9
        assert record["results"]["trunk"]["linear"]["images"]["values"] == [53]
        assert [parts["test"]["images"] for parts in record["parts"]] == [18, 18, 17]
        assert [parts["shared_by_train_and_test"]["subjects"] for parts in record["parts"]] == [0, 0, 0]
        assert [head["seed"] for head in record["head"]] == [1, 1, 1]
        assert len(np.unique(picture(folded / "f1.png"))) > 20

    def test_tuned_thresholds_stand_in_the_bias(self, probe, folded, units, tmp_path):
        options = ("--train", units, "--epochs", 100, "--features", "trunk", "--seeds", 1, "--tune_thresholds")
        probe(tmp_path, "action_units", *options)
        for fold in ("", "fold-2", "fold-3"):
            tuned, plain = (load_file(folder / fold / "model.safetensors") for folder in (tmp_path, folded))
            assert torch.equal(tuned["classifier.weight"], plain["classifier.weight"])
            assert (tuned["classifier.bias"] != plain["classifier.bias"]).all()
        assert results(tmp_path)["results"]["trunk"]["linear"]["f1"]["mean"] > 0.9


class TestRegression:
    @pytest.fixture(scope="class")
    @classmethod
    def ages(cls, corpora, faces) -> Path:
        """100 images whose brightness encodes the age; the age of one is unknown."""
        ages = np.random.default_rng(5).uniform(5, 80, 100).astype(np.float32)
        ages[3] = np.nan
        colours = 40 + 2 * np.nan_to_num(ages)[:, None].repeat(3, axis=1)
        faces(colours, age=ages, gender=["f", "m"] * 50).to_parquet(corpora / "ages.parquet")
        return corpora / "ages.parquet"

    def test_a_number_is_read_and_the_pipeline_says_it(self, probe, ages, tmp_path):
        options = ("--train", ages, "--epochs", 100, "--group_by", "gender", *ONE_HEAD)
        table = probe(tmp_path, "regression", *options, drawn=True)
        assert "mae" in table
        record, written = results(tmp_path), predictions(tmp_path)
        measured = record["results"]["trunk"]["linear"]
        errors = written["predicted_age"] - written["label_age"]
        assert measured["mae"]["values"] == [pytest.approx(errors.abs().mean(), rel=1e-6)]
        assert measured["bias"]["values"] == [pytest.approx(errors.mean(), abs=1e-5)]
        assert measured["mae"]["mean"] < 5
        assert measured["r2"]["mean"] > 0.8
        assert set(record["groups"]["gender"]) == {"f", "m"}
        assert sum(parts["images"] for name, parts in record["parts"][0].items() if name in SIZES) == 99
        estimate = pipeline("image-classification", str(tmp_path), trust_remote_code=True, device="cpu")
        corpus = load_corpus(str(ages)).cast_column("image", Image())
        ((outputs,),) = estimate([corpus[int(written["row"][0])]["image"]])
        assert outputs["label"] == "age"
        assert outputs["score"] == pytest.approx(written["predicted_age"][0], abs=1e-2)
        assert picture(tmp_path / "regression.png").min() < 100

    @pytest.mark.parametrize(
        ("column", "values", "message"),
        [
            ("age", [30.0] * 12, "must hold different numbers"),
            ("age", ["old"] * 12, "must hold numbers, not"),
            ("weight", [30.0, 40.0] * 6, "no column `age`"),
        ],
    )
    def test_columns_of_no_numbers_are_refused(self, refused, model, faces, tmp_path, column, values, message):
        faces([0, 1] * 6, **{column: values}).to_parquet(tmp_path / "faces.parquet")
        options = ("--task", "regression", "--train", tmp_path / "faces.parquet", "--output_dir", tmp_path / "out")
        assert message in refused("probe", model, *options)


class TestHeadPose:
    @pytest.fixture(scope="class")
    @classmethod
    def poses(cls, corpora, faces) -> Path:
        """80 images whose red, green and blue encode yaw, pitch and roll; two have an angle out of range."""
        angles = np.random.default_rng(4).uniform(-2, 2, (80, 3)).astype(np.float32)
        columns = dict(zip(("yaw", "pitch", "roll"), angles.T.copy()))
        columns["yaw"][7], columns["roll"][60] = 120, -99.5
        faces(128 + 45 * angles, **columns).to_parquet(corpora / "poses.parquet")
        return corpora / "poses.parquet"

    @pytest.fixture(scope="class")
    @classmethod
    def posed(cls, probe, poses, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("poses")
        probe(folder, "head_pose", "--train", poses, "--epochs", 200, *ONE_HEAD, drawn=True)
        return folder

    def test_faults_are_dropped_and_said(self, posed):
        (parts,) = results(posed)["parts"]
        assert sum(parts[name]["images"] for name in ("train", "validation", "test")) == 78
        for name in ("train", "validation", "test"):
            assert "without 2 rows that cannot be used" in parts[name]["source"]
        assert predictions(posed)[["label_yaw", "label_pitch", "label_roll"]].abs().to_numpy().max() < 2

    def test_the_error_is_that_of_the_predictions_and_below_that_of_a_constant(self, posed):
        written, measured = predictions(posed), results(posed)["results"]["trunk"]["linear"]
        for angle in ("yaw", "pitch", "roll"):
            error = (written[f"predicted_{angle}"] - written[f"label_{angle}"]).abs().mean()
            assert measured[f"{angle}_mae"]["values"] == [pytest.approx(error, rel=1e-6)]
        assert measured["mae"]["mean"] == pytest.approx(
            np.mean([measured[f"{a}_mae"]["mean"] for a in ("yaw", "pitch", "roll")])
        )
        labels = written[["label_yaw", "label_pitch", "label_roll"]].to_numpy()
        assert measured["mae"]["mean"] < 0.7 * np.abs(labels - np.median(labels, axis=0)).mean()
        assert results(posed)["metric"] == "mae"

    def test_the_saved_model_says_what_was_written(self, posed, poses):
        model = PCLForHeadPoseEstimation.from_pretrained(posed)
        processor = AutoImageProcessor.from_pretrained(posed, trust_remote_code=True)
        written, corpus = predictions(posed), load_corpus(str(poses)).cast_column("image", Image())
        images = corpus.select(written["row"])["image"]
        outputs = logits(model, processor(list(images), return_tensors="pt")["pixel_values"])
        np.testing.assert_allclose(outputs, written[["predicted_yaw", "predicted_pitch", "predicted_roll"]], atol=1e-3)
        np.testing.assert_allclose(corpus.select(written["row"])["yaw"], written["label_yaw"], rtol=1e-6)

    def test_pictures_show_something(self, posed):
        for name in ("head_pose.png", "faces.png", "epochs.png"):
            assert len(np.unique(picture(posed / name))) > 20, name


class TestFinetuning:
    @pytest.mark.parametrize("feature", ["trunk", "face+pose"])
    def test_what_was_predicted_is_what_the_saved_model_says(self, probe, expressions, model, feature, tmp_path):
        options = (*FINETUNING, "--features", feature, "--seeds", 0, "--batch_size", 20)
        probe(tmp_path, "expression", "--train", expressions, *options)
        record, written = results(tmp_path), predictions(tmp_path)
        head = PCLForImageClassification.from_pretrained(tmp_path)
        shares = logits(head, pixels(load_corpus(str(expressions), "test"), range(18))).softmax(dim=1)
        assert [NAMES[number] for number in shares.argmax(dim=1)] == written["prediction"].tolist()
        np.testing.assert_allclose(shares.max(dim=1).values, written["probability"], atol=1e-5)
        accuracy = (written["label"] == written["prediction"]).mean()
        assert record["results"] == {feature: {"fine-tuned": record["results"][feature]["fine-tuned"]}}
        assert record["results"][feature]["fine-tuned"]["accuracy"]["values"] == [pytest.approx(accuracy)]
        assert head.config.head_feature == feature
        (chosen,) = record["head"]
        assert (chosen["learning_rate"], chosen["layer_decay"]) == (3e-3, 1.0)
        assert chosen["epoch"] in (1, 2)
        before = PCLModel.from_pretrained(model).state_dict()
        learnt = {name for name, tensor in head.pcl.state_dict().items() if not torch.equal(tensor, before[name])}
        # Which branch was trained beside the trunk.
        assert {name.split(".")[0] for name in learnt} == {"trunk"} | {
            f"{part}_branch" for part in feature.split("+") if part != "trunk"
        }


class TestVerification:
    @pytest.fixture(scope="class")
    @classmethod
    def pairs(cls, corpora, faces) -> Path:
        """Images, and 24 pairs in 3 folds of one colour or two; the second image of pair 3 does not decode."""
        first, second = [row // 2 % 3 for row in range(24)], [(row // 2 + row % 2) % 3 for row in range(24)]
        second[3] = None
        columns = {"same": [row % 2 == 0 for row in range(24)], "fold": [1 + row // 8 for row in range(24)]}
        columns |= {"image_a": faces(first, 1)["image"][:], "image_b": faces(second, 2)["image"][:]}
        features = {"image_a": Image(), "image_b": Image(), "same": Value("bool"), "fold": Value("int32")}
        parts = {"default": faces([0, 1, 2]), "pairs": Dataset.from_dict(columns, features=Features(features))}
        card = "---\nconfigs:\n"
        for name, part in parts.items():
            (corpora / "prepared" / name).mkdir(parents=True)
            part.to_parquet(corpora / "prepared" / name / "test.parquet")
            card += f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test.parquet\n"
        (corpora / "prepared" / "README.md").write_text(card + "---\n")
        return corpora / "prepared"

    def test_listed_pairs_are_compared_but_for_those_with_a_broken_image(self, probe, pairs, model, tmp_path):
        probe(tmp_path, "verification", "--test", f"{pairs}:pairs", drawn=True)
        record, written = results(tmp_path), predictions(tmp_path)
        assert record["parts"][0]["test"].items() >= {"source": f"{pairs}:pairs", "pairs": 23}.items()
        assert "rows, sha256:" in record["parts"][0]["test"]["revision"]
        kept = [row for row in range(24) if row != 3]
        assert written["pair"].tolist() == kept
        assert written["fold"].tolist() == [1 + row // 8 for row in kept]
        assert written["same"].tolist() == [row % 2 == 0 for row in kept]
        sides = load_pairs(f"{pairs}:pairs")
        sides = [sides.select_columns(name).rename_column(name, "image") for name in ("image_a", "image_b")]
        with torch.no_grad():
            first, second = (PCLModel.from_pretrained(model)(pixels(side, kept)) for side in sides)
        assert list(record["results"]) == list(READABLE_FEATURES)
        for feature in READABLE_FEATURES:
            expected = torch.cosine_similarity(read_feature(first, feature), read_feature(second, feature)).numpy()
            cosines = written[f"{feature} cosine"]
            np.testing.assert_allclose(cosines, expected, atol=1e-5)
            measured = record["results"][feature]["cosine"]
            assert measured["auc"]["values"] == [pytest.approx(roc_auc_score(written["same"], expected), abs=0.01)]
            assert measured["auc"]["mean"] > 0.9
        assert len(np.unique(picture(tmp_path / "roc.png"))) > 20

    def test_the_saved_encoder_verifies_by_face_and_pose_together_at_the_threshold_that_was_found(
        self, probe, pairs, tmp_path
    ):
        probe(tmp_path, "verification", "--test", f"{pairs}:pairs", "--features", "face+pose")
        measured, written = results(tmp_path)["results"]["face+pose"]["cosine"], predictions(tmp_path)
        verify = pipeline("face-verification", str(tmp_path), trust_remote_code=True, device="cpu")
        assert verify.model.config.verification_feature == "face+pose"
        listed = load_pairs(f"{pairs}:pairs").cast_column("image_a", Image()).cast_column("image_b", Image())
        for row in (0, 1):  # One of the same colour, one of two.
            outputs = verify((listed[row]["image_a"], listed[row]["image_b"]))
            assert outputs["similarity"] == pytest.approx(written["face+pose cosine"][row], abs=1e-4)
            assert outputs["threshold"] == pytest.approx(measured["threshold"]["mean"])
            assert outputs["same"] == (outputs["similarity"] >= outputs["threshold"])

    @pytest.fixture(scope="class")
    @classmethod
    def people(cls, corpora, faces) -> Path:
        """160 images of 40 people, each with a colour of their own; the column `identity` names them."""
        colours = np.random.default_rng(5).integers(30, 226, (40, 3)).repeat(4, axis=0)
        faces(colours, identity=[f"p{row // 4}" for row in range(160)]).to_parquet(corpora / "people.parquet")
        faces(colours[:80], 1, identity=[f"q{row // 4}" for row in range(80)]).to_parquet(corpora / "others.parquet")
        return corpora / "people.parquet"

    @pytest.fixture(scope="class", params=["trunk", "face+pose"])
    @classmethod
    def embedded(cls, request, probe, people, tmp_path_factory) -> tuple[Path, str]:
        """The folder of a probe with an identity embedding, and the feature that it read."""
        folder = tmp_path_factory.mktemp("embedded")
        drawn = ("--test", people.with_name("others.parquet"), "--pairs", 40, "--folds", 2)
        trained = ("--identity_embedding", "--train", people, "--features", request.param)
        probe(folder, "verification", *drawn, *trained, "--subject_column", "identity")
        return folder, request.param

    def test_pairs_are_drawn_from_people_in_folds_that_share_none(self, embedded):
        written = predictions(embedded[0])
        assert written.groupby("fold")["same"].agg(["size", "sum"]).to_numpy().tolist() == [[20, 10], [20, 10]]
        assert (written["same"] == (written["row_a"] // 4 == written["row_b"] // 4)).all()
        one, two = (set(rows["row_a"] // 4) | set(rows["row_b"] // 4) for _, rows in written.groupby("fold"))
        assert not one & two

    def test_an_embedding_is_measured_beside_the_plain_cosine(self, embedded):
        folder, feature = embedded
        plain, embedding = (results(folder)["results"][feature][kind] for kind in ("cosine", "identity embedding"))
        assert len(plain["auc"]["values"]) == 1
        assert embedding["auc"]["mean"] > max(0.8, plain["auc"]["mean"])
        written = predictions(folder)
        auc = roc_auc_score(written["same"], written[f"{feature} identity embedding"])
        assert embedding["auc"]["values"] == [pytest.approx(auc, abs=1e-9)]

    def test_its_results_stand_on_the_card_of_the_model(self, embedded, model, tmp_path):
        folder, feature = embedded
        card = write_card(model, folder, tmp_path)
        assert f"| {feature} | identity embedding |" in card
        assert "Protocol strict. Test: 40 pairs of others.parquet" in card

    def test_the_saved_embedding_gives_the_cosines_that_were_written(self, embedded, people):
        folder, feature = embedded
        head, written = PCLForImageClassification.from_pretrained(folder), predictions(folder)
        corpus = load_corpus(str(people.with_name("others.parquet")))
        first, second = (logits(head, pixels(corpus, written[side])) for side in ("row_a", "row_b"))
        cosines = torch.cosine_similarity(first, second)
        np.testing.assert_allclose(cosines, written[f"{feature} identity embedding"], atol=1e-4)

    def test_people_in_train_and_test_are_not_trained_on(self, refused, model, people, tmp_path):
        options = ("--test", people, "--train", people, "--subject_column", "identity", "--pairs", 40, "--folds", 2)
        small = ("--image_size", 32, "--features", "trunk", "--output_dir", tmp_path / "out")
        message = refused("probe", model, "--task", "verification", "--identity_embedding", *options, *small)
        assert "`--train`" in message

    def test_an_embedding_is_chosen_by_people_of_another_corpus(self, probe, people, faces, tmp_path):
        others = people.with_name("others.parquet")
        known = faces([row // 4 % 3 for row in range(24)], 2, identity=[f"p{row // 4}" for row in range(24)])
        known.to_parquet(tmp_path / "known.parquet")
        options = ("--test", others, "--pairs", 40, "--folds", 2, "--subject_column", "identity", "--features", "trunk")
        trained = ("--identity_embedding", "--train", people, "--validation", tmp_path / "known.parquet")
        probe(tmp_path / "out", "verification", *options, *trained)
        (parts,) = results(tmp_path / "out")["parts"]
        assert parts["validation"]["images"] == 24
        assert parts["train"]["images"] == 160 - 24
        assert "without the people of `--validation`" in parts["train"]["source"]

    def test_a_person_who_is_not_known_makes_no_pair(self, probe, faces, tmp_path):
        people = [None if row % 10 == 9 else f"p{row // 4}" for row in range(48)]
        faces([row // 4 % 3 for row in range(48)], subject=people).to_parquet(tmp_path / "faces.parquet")
        options = ("--pairs", 12, "--folds", 2, "--features", "trunk")
        probe(tmp_path / "out", "verification", "--test", tmp_path / "faces.parquet", *options)
        assert len(predictions(tmp_path / "out")) == 12


class TestDisentanglement:
    @pytest.fixture(scope="class")
    @classmethod
    def three(cls, corpora, faces) -> tuple:
        """Options that name the three corpora; one image of poses does not decode."""
        angles = np.random.default_rng(6).uniform(-6, 6, (60, 3)).astype(np.float32)
        poses = faces(128 + 15 * angles, **dict(zip(("yaw", "pitch", "roll"), angles.T)))
        poses.to_parquet(corpora / "leak-poses.parquet")
        classes = [row % 3 for row in range(60)]
        faces(classes, 3, expression=classes, subject=[f"s{row // 3}" for row in range(60)]).to_parquet(
            corpora / "leak-faces.parquet"
        )
        pairs = ("--pairs", 20, "--folds", 2)
        people, expression = (
            ("--identity", corpora / "leak-faces.parquet"),
            ("--expression", corpora / "leak-faces.parquet"),
        )
        return ("--pose", corpora / "leak-poses.parquet", *people, *expression, *pairs)

    @pytest.fixture(scope="class")
    @classmethod
    def swapped(cls, probe, three, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("leak")
        probe(folder, "disentanglement", *three, drawn=True)
        return folder

    def test_what_each_branch_holds_and_what_leaks(self, swapped):
        record = results(swapped)
        readings = {feature: record["results"][feature]["linear readings"] for feature in FEATURES}
        for measured in readings.values():
            assert (
                0.2 < measured["pose R²"]["mean"] <= 1
            )  # Yaw, pitch and roll are colours, which a linear model can read.
            assert measured["pose R²"]["mean"] == pytest.approx(
                np.mean([measured[f"{angle} R²"]["mean"] for angle in ("yaw", "pitch", "roll")])
            )
            assert measured["expression accuracy"]["mean"] == 1.0
            assert 0 <= measured["identity AUC"]["mean"] <= 1
            assert measured["mirror movement"]["mean"] > 0
        face, pose = readings["face"], readings["pose"]
        expected = face["pose R²"]["mean"] / pose["pose R²"]["mean"]
        assert record["leakage"]["pose_in_face"]["value"] == pytest.approx(expected)
        above = {name: readings[name]["identity AUC"]["mean"] - 0.5 for name in ("face", "pose")}
        identity = max(0.0, above["pose"]) / above["face"] if above["face"] > 0 else None
        assert record["leakage"]["identity_in_pose"]["value"] == (
            identity if identity is None else pytest.approx(identity)
        )
        assert record["leakage"]["expression_in_pose"]["value"] == pytest.approx(1.0)
        ratio = face["mirror movement"]["mean"] / pose["mirror movement"]["mean"]
        assert record["mirror_movement_face_over_pose"] == pytest.approx(ratio)
        assert record["chance"] == {"pose": 0.0, "identity": 0.5, "expression": pytest.approx(1 / 3, abs=0.1)}
        for name in ("pose", "expression"):
            assert {part: facts["images"] for part, facts in record["parts"][name].items()} == {"train": 48, "test": 12}
        assert record["parts"]["identity"]["pairs"] == 20

    def test_its_results_stand_on_the_card_of_the_model(self, swapped, model, tmp_path):
        card = write_card(model, swapped, tmp_path)
        assert "| pose | linear readings |" in card
        assert "Protocol" not in card

    def test_swaps_are_drawn_only_if_the_model_has_a_decoder(self, probe, swapped, model, three, tmp_path):
        PCLModel.from_pretrained(model).save_pretrained(tmp_path / "encoder")
        probe(tmp_path / "out", "disentanglement", *three, model=tmp_path / "encoder", drawn=True)
        assert results(tmp_path / "out")["results"] == results(swapped)["results"]
        with_swaps, without_swaps = (picture(folder / "disentanglement.png") for folder in (swapped, tmp_path / "out"))
        assert with_swaps.shape[0] > 2 * without_swaps.shape[0]
        assert len(np.unique(without_swaps)) > 20

    def test_every_class_is_read_also_if_classes_come_in_turns(self, probe, three, faces, tmp_path):
        colours = np.random.default_rng(8).permutation(np.linspace(20, 235, 30).astype(int)).reshape(10, 3)
        turns = {"train": [row % 10 for row in range(60)], "test": [row % 10 for row in range(20)]}
        splits = {name: faces(colours[part], len(part), expression=part) for name, part in turns.items()}
        DatasetDict(splits).save_to_disk(tmp_path / "turns")
        probe(tmp_path / "out", "disentanglement", *three, "--expression", tmp_path / "turns")
        measured = results(tmp_path / "out")["results"]["trunk"]["linear readings"]
        assert measured["expression accuracy"]["mean"] == 1.0

    def test_a_broken_image_of_the_poses_is_left_out(self, probe, three, faces, tmp_path):
        angles = np.random.default_rng(7).uniform(-6, 6, (60, 3)).astype(np.float32)
        angles[5, 0] = 7  # The largest yaw, which would be among the swaps.
        colours = [None if row == 5 else colour for row, colour in enumerate(128 + 15 * angles)]
        poses = [faces(colours, seed, **dict(zip(("yaw", "pitch", "roll"), angles.T))) for seed in (1, 2)]
        DatasetDict(train=poses[0], test=poses[1]).save_to_disk(tmp_path / "poses")
        probe(tmp_path / "out", "disentanglement", *three, "--pose", tmp_path / "poses")
        parts = results(tmp_path / "out")["parts"]["pose"]
        assert [parts[name]["images"] for name in ("train", "test")] == [59, 59]

    @pytest.mark.parametrize("missing", ["pose", "identity", "expression"])
    def test_a_missing_corpus_is_named(self, refused, model, three, missing, tmp_path):
        place = three.index(f"--{missing}")
        rest = three[:place] + three[place + 2 :]
        message = refused("probe", model, "--task", "disentanglement", "--output_dir", tmp_path, *rest)
        assert f"needs `--{missing}`" in message


class TestGroups:
    def test_each_group_is_measured_apart_on_its_own_images(self, probe, corpora, faces, tmp_path):
        classes = [row % 3 for row in range(60)]
        gender = [None if row < 4 else ("f", "m")[row // 3 % 2] for row in range(60)]
        ages = [row / 2 + 5 for row in range(60)]
        corpus = named(faces(classes, 60, expression=classes, gender=gender, age=ages))
        DatasetDict(train=corpus, test=corpus.select(range(42))).save_to_disk(corpora / "grouped")
        options = ("--train", corpora / "grouped", "--protocol", "paper", "--epochs", 3, "--features", "face")
        table = probe(tmp_path, "expression", *options, "--seeds", 0, 1, "--group_by", "gender", "age")
        groups, written = results(tmp_path)["groups"], predictions(tmp_path)
        assert list(groups["gender"]) == ["f", "m"]
        assert list(groups["age"]) == ["0-9", "10-19", "20-29"]
        is_right = (written["label"] == written["prediction"]).to_numpy()
        for column, values in (("gender", gender), ("age", [f"{int(age // 10) * 10 or 0}-" for age in ages])):
            for group, methods in groups[column].items():
                (measures,) = methods.values()
                places = [row for row in range(42) if values[row] and group.startswith(str(values[row]))]
                assert measures["images"]["mean"] == len(places)
                assert is_right[places].mean() in [pytest.approx(value) for value in measures["accuracy"]["values"]]
        assert "Fewer than 100 images, too few to be reliable: f, m" in table

    def test_pairs_are_verified_within_each_group(self, probe, corpora, faces, tmp_path):
        colours = np.random.default_rng(6).integers(30, 226, (20, 3)).repeat(4, axis=0)
        people = {"subject": [f"p{row // 4}" for row in range(80)], "gender": [row // 4 % 2 for row in range(80)]}
        corpus = faces(colours, **people).cast_column("gender", ClassLabel(names=["f", "m"]))
        corpus.to_parquet(corpora / "gendered.parquet")
        options = ("--test", corpora / "gendered.parquet", "--pairs", 120, "--folds", 2)
        probe(tmp_path, "verification", *options, "--group_by", "gender")
        groups, written = results(tmp_path)["groups"]["gender"], predictions(tmp_path)
        of_row = np.array(people["gender"])
        for number, name in enumerate(("f", "m")):
            within = written[(of_row[written["row_a"]] == number) & (of_row[written["row_b"]] == number)]
            ((method, measures),) = groups[name].items()
            assert measures["pairs"]["mean"] == len(within) < len(written)
            expected = roc_auc_score(within["same"], within[method])
            assert measures["auc"]["mean"] == pytest.approx(expected, abs=0.01)

    def test_an_unknown_column_is_refused_before_anything_is_computed(self, probe, expressions, tmp_path):
        with pytest.raises(ValueError, match=r"`--group_by gender`: .* has no such column; it has expression"):
            probe(tmp_path, "expression", "--train", expressions, "--group_by", "gender")


class TestWhatCannotBeMeasuredSaysWhy:
    @pytest.fixture
    def error_of(self, refused, model, expressions, tmp_path):
        """Run a probe that must fail. Returns its error message."""

        def run(task: str, *options, model=model) -> str:
            common = (model, "--output_dir", tmp_path / "out", "--image_size", 32)
            common += ("--cache_dir", tmp_path / "features")
            heads = ("--epochs", 2, *ONE_HEAD)
            one_head = {"disentanglement": (), "verification": ONE_HEAD}.get(task, heads)
            message = refused("probe", *common, "--task", task, *one_head, *options)
            assert not (tmp_path / "out" / "results.json").exists()
            return message

        return run

    def test_a_column_that_is_not_there(self, error_of, expressions):
        assert "no column `mood`, only ['image', 'expression']" in error_of(
            "expression", "--train", expressions, "--label_column", "mood"
        )
        assert "no column `yaw`" in error_of("head_pose", "--train", expressions)
        assert "action unit such as `AU12`" in error_of("action_units", "--train", expressions)
        assert "`--subject_column`" in error_of("verification", "--test", expressions)

    def test_a_column_that_holds_no_classes(self, error_of, expressions):
        assert "`image`" in error_of("expression", "--train", expressions, "--label_column", "image")

    def test_one_class_only(self, error_of, faces, tmp_path):
        faces([0] * 30, expression=[0] * 30).to_parquet(tmp_path / "faces.parquet")
        assert "at least two classes" in error_of("expression", "--train", tmp_path / "faces.parquet")

    def test_classes_that_differ_between_train_and_test(self, error_of, faces, expressions, tmp_path):
        faces([0, 1, 2] * 5, 9, expression=["sad", "glad", "mad"] * 5).to_parquet(tmp_path / "faces.parquet")
        message = error_of("expression", "--train", expressions, "--test", tmp_path / "faces.parquet")
        assert "must be the same, got ['angry', 'happy', 'sad'] and ['glad', 'mad', 'sad']" in message
        assert "`--label_names`" in message

    def test_classes_that_differ_between_the_splits_for_disentanglement(self, error_of, faces, tmp_path):
        angles = {angle: [float(row) for row in range(30)] for angle in ("yaw", "pitch", "roll")}
        faces([0, 1] * 15, subject=[row // 3 for row in range(30)], **angles).to_parquet(tmp_path / "poses.parquet")
        parts = {"train": ["angry", "happy", "sad"] * 8, "test": ["happy", "sad"] * 4}
        splits = {name: faces([0] * len(part), len(part), expression=part) for name, part in parts.items()}
        DatasetDict(splits).save_to_disk(tmp_path / "faces")
        poses = ("--pose", tmp_path / "poses.parquet", "--identity", tmp_path / "poses.parquet", "--pairs", 8)
        message = error_of("disentanglement", *poses, "--folds", 2, "--expression", tmp_path / "faces")
        assert "['angry', 'happy', 'sad'] and ['happy', 'sad']" in message

    def test_a_split_that_is_not_there(self, error_of, faces, expressions, tmp_path):
        parts = {name: faces([0, 1, 2] * 4, 9, expression=[0, 1, 2] * 4) for name in ("train", "dev")}
        DatasetDict(parts).save_to_disk(tmp_path / "faces")
        for option, split in (("validation", "validation"), ("test", "test")):
            message = error_of("expression", "--train", expressions, f"--{option}", tmp_path / "faces")
            assert f"['train', 'dev'], none of them `{split}`" in message

    def test_options_that_exclude_each_other(self, error_of, expressions):
        both = ("--train", expressions, "--test", expressions, "--folds", 3)
        assert "`--folds`" in error_of("expression", *both)
        assert "`--protocol`" in error_of("expression", "--train", expressions, "--finetune", "--protocol", "paper")
        tuned = ("--train", expressions, "--tune_thresholds", "--protocol", "paper")
        assert "`--tune_thresholds`" in error_of("action_units", *tuned)
        decayed = ("--train", expressions, "--weight_decay", 1)
        assert "`--weight_decay`" in error_of("expression", *decayed, "--finetune")
        assert "`--weight_decay`" in error_of("expression", *decayed, "--protocol", "paper")

    @pytest.mark.parametrize(
        ("task", "option"),
        [
            ("verification", "--finetune"),
            ("expression", "--tune_thresholds"),
            ("disentanglement", "--protocol"),
            ("disentanglement", "--features"),
            ("head_pose", "--label_colum"),
        ],
    )
    def test_options_of_another_task_or_of_none(self, call, model, task, option, capsys):
        with pytest.raises(SystemExit) as stop:
            call("probe", model, "--output_dir", "out", "--task", task, option)
        assert stop.value.code == 2
        assert f"unrecognized arguments: {option}" in capsys.readouterr().err

    def test_options_that_are_missing(self, error_of, refused, model, tmp_path):
        assert "`--train`" in error_of("expression")
        assert "`--test`" in error_of("verification")

    @pytest.mark.parametrize(
        ("option", "value", "allowed"),
        [
            ("epochs", 0, "at least 1"),
            ("folds", 1, "at least 2"),
            ("image_size", 16, "at least 32"),
            ("batch_size", -1, "at least 1"),
            ("learning_rates", 0, "positive numbers"),
            ("learning_rates", "nan", "positive numbers"),
            ("layer_decays", 1.1, "numbers in (0, 1]"),
            ("weight_decay", -1, "at least 0"),
            ("weight_decay", "nan", "at least 0"),
        ],
    )
    def test_values_out_of_range(self, error_of, expressions, option, value, allowed):
        message = error_of("expression", "--train", expressions, f"--{option}", value)
        assert f"`--{option}` must be {allowed}, got" in message

    def test_folds_without_people(self, error_of, expressions):
        assert "`subject`" in error_of("expression", "--train", expressions, "--folds", 3)

    def test_a_model_that_does_not_exist(self, error_of, expressions):
        assert "/nowhere/model" in error_of("expression", "--train", expressions, model="/nowhere/model")

    def test_a_corpus_that_does_not_exist(self, error_of):
        assert "/nowhere/faces" in error_of("expression", "--train", "/nowhere/faces")

    def test_a_test_set_that_holds_all_training_images(self, error_of, faces, tmp_path):
        angles = {"yaw": [float(row) for row in range(30)], "pitch": [0.0] * 30, "roll": [0.0] * 30}
        faces([row % 3 for row in range(30)], **angles).to_parquet(tmp_path / "faces.parquet")
        both = ("--train", tmp_path / "faces.parquet", "--test", tmp_path / "faces.parquet")
        assert "`--test`" in error_of("head_pose", *both)

    def test_the_folder_of_the_model(self, refused, expressions, model, tmp_path):
        copy = tmp_path / "model"
        shutil.copytree(model, copy)
        options = ("--image_size", 32, "--epochs", 2, "--cache_dir", tmp_path / "features", *ONE_HEAD)
        message = refused("probe", copy, "--train", expressions, "--output_dir", copy, *options)
        assert "`--output_dir`" in message
        assert (copy / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
