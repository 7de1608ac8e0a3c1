"""Options of probes (the shared ones, and one class for each task), of embedding and of comparison."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..features_pcl import FEATURES, READABLE_FEATURES
from ..options import check_at_least, option, positional, required

MODEL = "Folder or Hub id of a PCL model."
TASK_HELP = "Task to probe on; the other options depend on it."


@dataclass
class ProbeArguments:
    """Options of all tasks."""

    model: str = positional(MODEL, "MODEL")
    output_dir: str = required(
        "Folder for the head, results.json, predictions and pictures; created if it does not exist."
    )
    task: str = option("", TASK_HELP)
    image_size: int | None = option(
        None,
        "Side of the images, in px; by default 100 for expressions and action units and 256 for head pose, as in the "
        "paper, 100 for regression, and for other tasks that of the model.",
    )
    batch_size: int | None = option(
        None, "Images per batch of the encoder, by default 128; with `--finetune` of training, by default 64."
    )
    cache_dir: str | None = option(None, "Folder for cached features; by default in the Hugging Face home folder.")

    def __post_init__(self):
        if Path(self.output_dir).resolve() == Path(self.model).resolve():
            raise ValueError("`--output_dir` must differ from MODEL, because the probe would overwrite its weights.")
        check_at_least(self, image_size=32, batch_size=1)


@dataclass
class FeatureArguments(ProbeArguments):
    """Options of tasks that measure each feature separately."""

    features: Literal["trunk", "face", "pose", "face+pose", "all"] = option(
        "all", "Feature that the probe reads; `face+pose` concatenates two features, `all` probes every feature."
    )
    train: str | None = option(None, "Corpus to train on (its split `train`, or its only one).")
    test: str | None = option(None, "Corpus to test on (its split `test`, or its only one).")
    validation: str | None = option(
        None,
        "Corpus on which `strict` chooses epoch and hyper-parameters (its split `validation`, or its only one); by "
        "default the split `validation` of the training corpus, or a tenth of the training images, by subject if all "
        "subjects are known and are not the classes, otherwise stratified by label. None of its people train an "
        "embedding for verification.",
    )
    train_subjects: str | None = option(None, "Train on these subjects only: `s1-s30`, or names separated by commas.")
    test_subjects: str | None = option(None, "Test on these subjects only.")
    protocol: Literal["strict", "paper"] = option(
        "strict",
        "`strict` chooses epoch and hyper-parameters on validation data and uses the test set once. `paper` uses the "
        "published hyper-parameters and the best epoch on the test set, which results.json states.",
    )
    seeds: list[int] = option([0, 1, 2], "Seeds of the probe; results are mean and spread over them.")
    group_by: list[str] = option(
        [],
        "Columns of the test corpus, such as `gender`, `ethnicity` or `age`: also measure each of their groups. Ages "
        "are grouped by tens; verification compares people within a group.",
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.seeds:
            raise ValueError("`--seeds` must name at least one seed.")

    def feature_names(self) -> list[str]:
        """List the features to measure."""
        return list(READABLE_FEATURES) if self.features == "all" else [self.features]


@dataclass
class ClassArguments:
    """Options of tasks with classes."""

    label_column: str | None = option(None, "Column of the classes; by default `expression` or `label`.")
    label_names: list[str] = option([], "Names of the classes, in the order of their numbers, if the corpus has none.")


@dataclass
class PairArguments:
    """Options of tasks that draw pairs of people."""

    subject_column: str = option("subject", "Column with the person in each image.")
    test_subjects: str | None = option(None, "Test on these subjects only.")
    pairs: int = option(6000, "Number of pairs to draw, if the corpus has no list of pairs.")
    folds: int = option(10, "Number of folds of the drawn pairs; no person is in two folds.")


@dataclass
class HeadArguments(FeatureArguments):
    """Options of tasks that train a head. The default test set is the split `test` of the corpus, or a fifth of it."""

    epochs: int | None = option(None, "Number of epochs; by default 300, or 20 with `--finetune`.")
    folds: int | None = option(
        None,
        "Number of folds for cross-validation on the training corpus; no person is in two folds. By default 3 for "
        "action units without `--test`.",
    )
    one_scale: bool = option(
        False, "Normalise all features by one common spread, for smaller errors on images of another kind."
    )
    weight_decay: float | None = option(
        None,
        "Weight decay of the linear layer, by AdamW; by default 0.01, and none for expressions. With `--one_scale`, 1 "
        "to 3 makes errors on images of another kind smaller, and those on the test images little larger.",
    )
    finetune: bool = option(False, "Train the whole network instead of a linear layer on frozen features.")
    learning_rates: list[float] = option(
        [], "With `--finetune`: candidates for the learning rate of the head; by default 1e-3 and 3e-4."
    )
    layer_decays: list[float] = option(
        [],
        "With `--finetune`: candidates for the factor of the learning rate from each layer to the one below it; by "
        "default 1 and 0.7.",
    )

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, epochs=1, folds=2, weight_decay=0)
        if self.train is None:
            raise ValueError(f"`--task {self.task}` needs `--train`, a corpus to train the probe on.")
        if self.one_scale and self.protocol == "paper":
            raise ValueError("`--one_scale` is not part of the published protocol; leave `--protocol` at strict.")
        if self.weight_decay is not None and (self.protocol == "paper" or self.finetune):
            raise ValueError("`--weight_decay` is for linear probes in the strict protocol.")
        if self.finetune and self.protocol == "paper":
            raise ValueError("`--finetune` has no published protocol; leave `--protocol` at strict.")
        if not all(0 < rate < float("inf") for rate in self.learning_rates):
            raise ValueError(f"`--learning_rates` must be positive numbers, got {self.learning_rates}.")
        if not all(0 < decay <= 1 for decay in self.layer_decays):
            raise ValueError(f"`--layer_decays` must be numbers in (0, 1], got {self.layer_decays}.")
        if self.folds is not None and self.test is not None:
            raise ValueError("`--folds` tests on the training corpus itself: give `--folds` or `--test`, not both.")


@dataclass
class ExpressionArguments(ClassArguments, HeadArguments):
    """One of several classes: expressions, or any column of classes."""

    task: str = option("expression", TASK_HELP)
    linear_only: bool = option(False, "Skip nearest neighbours and logistic regression, which have no head.")


@dataclass
class HeadPoseArguments(HeadArguments):
    """Yaw, pitch and roll, in degrees."""

    task: str = option("head_pose", TASK_HELP)


@dataclass
class RegressionArguments(HeadArguments):
    """A column of numbers, such as age."""

    task: str = option("regression", TASK_HELP)
    label_column: str = option("age", "Column of the numbers to predict.")


@dataclass
class ActionUnitArguments(HeadArguments):
    """Which facial action units are active."""

    task: str = option("action_units", TASK_HELP)
    tune_thresholds: bool = option(False, "Choose the threshold of each action unit on validation data.")

    def __post_init__(self):
        super().__post_init__()
        if self.tune_thresholds and (self.protocol != "strict" or self.finetune):
            raise ValueError("`--tune_thresholds` is for linear probes in the strict protocol.")


@dataclass
class VerificationArguments(PairArguments, FeatureArguments):
    """Same or different person."""

    task: str = option("verification", TASK_HELP)
    identity_embedding: bool = option(
        False, "Also compare by a linear embedding that is trained on the people of `--train`."
    )

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, pairs=1, folds=2)
        if self.test is None:
            raise ValueError("`--task verification` needs `--test`, a list of pairs or a corpus with known people.")


@dataclass
class DisentanglementArguments(PairArguments, ClassArguments, ProbeArguments):
    """Pose, identity and expression that can be read from each branch."""

    task: str = option("disentanglement", TASK_HELP)
    pose: str | None = option(None, "Corpus with head pose.")
    identity: str | None = option(None, "Corpus with known people, or a list of pairs.")
    expression: str | None = option(None, "Corpus with classes.")

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, pairs=1, folds=2)
        for name in ("pose", "identity", "expression"):
            if getattr(self, name) is None:
                raise ValueError(f"`--task disentanglement` needs `--{name}`, a corpus with labels of {name}.")


TASKS = {
    "expression": ExpressionArguments,
    "head_pose": HeadPoseArguments,
    "regression": RegressionArguments,
    "action_units": ActionUnitArguments,
    "verification": VerificationArguments,
    "disentanglement": DisentanglementArguments,
}


@dataclass
class EmbeddingArguments:
    """The images to encode, and the format of the features."""

    model: str = positional(f"{MODEL} With `--backend onnx` an .onnx file.", "MODEL")
    corpus: str = required(
        "Image folder, of any depth; parquet file or glob; folder written by `save_to_disk`; Hub id; video file; or "
        "folder of video files, of any depth."
    )
    output_dir: str = required("Folder for the features and embed.json; created if it does not exist.")
    split: str = option("train", "Split of the corpus.")
    corpus_revision: str | None = option(None, "Git revision of a corpus on the Hub.")
    streaming: bool = option(
        False, "Stream the corpus instead of downloading it, for corpora on the Hub that do not fit on the disk."
    )
    every_s: float = option(1.0, "Seconds between two frames of a video; 0 takes every frame.")
    features: list[str] = option(list(FEATURES), "Features to write: some of trunk, face and pose.")
    image_size: int | None = option(None, "Side of the images, in px; by default that of the model.")
    precision: Literal["float32", "bf16"] = option(
        "float32",
        "Precision of the features: float32 gives the same as `PCLModel`; bf16 takes half the disk space, and half the "
        "time on a device with instructions for it.",
    )
    backend: Literal["torch", "onnx"] = option("torch", "Library that runs the model; onnx is onnxruntime on the CPU.")
    format: Literal["parquet", "safetensors"] = option(
        "parquet",
        "parquet: columns of the corpus, and features as lists of float32; safetensors: features as tensors in float32 "
        "or bf16, and the columns of the corpus in rows-*.parquet.",
    )
    rows_per_file: int | None = option(None, "Rows per file; by default as many as give 256 MiB of features.")
    batch_size: int = option(64, "Images per batch, for each CPU core or for the GPU.")
    max_broken_share: float = option(0.05, "Stop if a larger share of the images fails to decode, in [0, 1].")

    def __post_init__(self):
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown or not self.features:
            raise ValueError(
                f"`--features` must be some of {list(FEATURES)}, got {self.features}; for `face+pose`, "
                "concatenate the columns `face` and `pose`."
            )
        check_at_least(self, rows_per_file=1, batch_size=1, image_size=32, every_s=0)
        if not 0 <= self.max_broken_share <= 1:
            raise ValueError(f"`--max_broken_share` must be in [0, 1], got {self.max_broken_share}.")


@dataclass
class ComparisonArguments:
    """The models to compare."""

    models: list[str] = positional("Folders or Hub ids of PCL models.", "MODEL", nargs="+")
    output_dir: str = required(
        "Folder for comparison.md, .png and .json, and for the folders of the probes; created if it does not exist."
    )
    names: list[str] = option([], "Names of the models; by default the last part of their folder or id.")
    tasks: list[str] = option(
        [], "Tasks to compare, as named in the table; by default all whose corpora can be opened."
    )
    random_seeds: int = option(3, "Number of random initialisations of each architecture, at least 1.")

    def __post_init__(self):
        check_at_least(self, random_seeds=1)
