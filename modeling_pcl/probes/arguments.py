"""The options of probes: what all tasks share, and one class a task; and those of embedding."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..features_pcl import FEATURES, READABLE_FEATURES
from ..options import check_at_least, option, positional, required

MODEL = "Folder or Hub id of a PCL model."


@dataclass
class ProbeArguments:
    """What every task has."""

    model: str = positional(MODEL, "MODEL")
    output_dir: str = required("Folder for the head, results.json, predictions and pictures; made.")
    task: str = option("", "What is measured.")
    image_size: int | None = option(
        None,
        "Side of the images, in px; by default that at which the paper reads expressions and action units (100) and "
        "head pose (256), and for other tasks the model's.",
    )
    batch_size: int | None = option(None, "Images encoded at once, by default 128.")
    cache_dir: str | None = option(None, "Folder of extracted features; by default in the Hugging Face home folder.")

    def __post_init__(self):
        if Path(self.output_dir).resolve() == Path(self.model).resolve():
            raise ValueError("`--output_dir` must be another folder than MODEL, whose weights it would overwrite.")
        check_at_least(self, image_size=32, batch_size=1)


@dataclass
class FeatureArguments(ProbeArguments):
    """What tasks have that measure features apart, by training something on them or not."""

    features: Literal["trunk", "face", "pose", "face+pose", "all"] = option(
        "all", "What the probe reads; `face+pose` is both together, `all` each of these in turn."
    )
    train: str | None = option(None, "Corpus to train on (its split `train`, or its only one).")
    test: str | None = option(None, "Corpus to test on (its split `test`, or its only one).")
    train_subjects: str | None = option(None, "Train on these people only: `s1-s30`, or names with commas between.")
    test_subjects: str | None = option(None, "Test on these people only.")
    protocol: Literal["strict", "paper"] = option(
        "strict",
        "`strict` chooses epoch and hyper-parameters on validation data and touches the test set once. `paper` takes "
        "the published hyper-parameters and the best epoch on the test set, and says so.",
    )
    seeds: list[int] = option([0, 1, 2], "Seeds of the probe; several give mean and spread.")
    group_by: list[str] = option(
        [],
        "Columns of the test corpus, `gender`, `ethnicity`, `age` or others: measure each of their groups apart, too; "
        "ages in tens; verification within each group.",
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.seeds:
            raise ValueError("`--seeds` must name at least one seed.")

    def feature_names(self) -> list[str]:
        """Every feature that is to be measured."""
        return list(READABLE_FEATURES) if self.features == "all" else [self.features]


@dataclass
class ClassArguments:
    """Where classes stand."""

    label_column: str | None = option(None, "Column of the classes; by default `expression` or `label`.")
    label_names: list[str] = option([], "Names of the classes, in the order of their numbers, where they have none.")


@dataclass
class PairArguments:
    """How pairs of people are drawn."""

    subject_column: str = option("subject", "Column of the people.")
    test_subjects: str | None = option(None, "Test on these people only.")
    pairs: int = option(6000, "Pairs to draw where the corpus of people has none.")
    folds: int = option(10, "Folds of pairs that are drawn; no person is in two.")


@dataclass
class HeadArguments(FeatureArguments):
    """What tasks have that end in a head. Without `--test` the training corpus gives its split `test`, or a fifth."""

    validation: str | None = option(
        None,
        "Corpus on which `strict` chooses (its split `validation`, or its only one); by default the training corpus's "
        "split `validation`, or a tenth of the training images: whole subjects where they are known, else stratified "
        "by label.",
    )
    epochs: int | None = option(None, "Passes over the training images; by default 300, or 20 with `--finetune`.")
    folds: int | None = option(
        None,
        "Test each of so many parts, which share no person, with what was trained on the others; by default 3 for "
        "action units without `--test`.",
    )
    one_scale: bool = option(
        False,
        "Divide all features by one number, and not each by its own spread: heads are wrong less wildly on images of "
        "another kind, and learn more slowly what varies little.",
    )
    finetune: bool = option(False, "Train the whole network instead of a linear layer on frozen features.")
    learning_rates: list[float] = option([], "Candidates of `--finetune`, of the head; by default 1e-3 and 3e-4.")
    layer_decays: list[float] = option(
        [],
        "Candidates of `--finetune`: factor of the learning rate from each layer to the one below it; by default 1 "
        "and 0.7.",
    )

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, epochs=1, folds=2)
        if self.train is None:
            raise ValueError(f"`--task {self.task}` needs `--train`, a corpus to train the probe on.")
        if self.one_scale and self.protocol == "paper":
            raise ValueError("`--one_scale` is not of the published protocol; leave `--protocol` at strict.")
        if self.finetune and self.protocol == "paper":
            raise ValueError("`--finetune` has no published protocol; leave `--protocol` at strict.")
        if not all(0 < rate < float("inf") for rate in self.learning_rates):
            raise ValueError(f"`--learning_rates` must be positive numbers, got {self.learning_rates}.")
        if not all(0 < decay <= 1 for decay in self.layer_decays):
            raise ValueError(f"`--layer_decays` must be numbers in (0, 1], got {self.layer_decays}.")
        if self.folds is not None and self.test is not None:
            raise ValueError("`--folds` tests on the training corpus itself: give it or `--test`, not both.")


@dataclass
class ExpressionArguments(ClassArguments, HeadArguments):
    """One class of several: expressions, or any column of classes."""

    task: str = "expression"
    linear_only: bool = option(False, "Leave nearest neighbours and logistic regression out, which have no head.")


@dataclass
class HeadPoseArguments(HeadArguments):
    """Yaw, pitch and roll, in degrees."""

    task: str = "head_pose"


@dataclass
class RegressionArguments(HeadArguments):
    """A column of numbers, such as age."""

    task: str = "regression"
    label_column: str = option("age", "Column of the numbers.")


@dataclass
class ActionUnitArguments(HeadArguments):
    """Which facial action units are active."""

    task: str = "action_units"
    tune_thresholds: bool = option(False, "Choose each action unit's threshold on validation data.")

    def __post_init__(self):
        super().__post_init__()
        if self.tune_thresholds and (self.protocol != "strict" or self.finetune):
            raise ValueError("`--tune_thresholds` is for linear probes in the strict protocol.")


@dataclass
class VerificationArguments(PairArguments, FeatureArguments):
    """Same or different person."""

    task: str = "verification"
    identity_embedding: bool = option(False, "Compare by a linear embedding trained on the people of `--train`.")

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, pairs=1, folds=2)
        if self.test is None:
            raise ValueError("`--task verification` needs `--test`, pairs or a corpus whose people are known.")


@dataclass
class DisentanglementArguments(PairArguments, ClassArguments, ProbeArguments):
    """What each branch holds of pose, identity and expression."""

    task: str = "disentanglement"
    pose: str | None = option(None, "Corpus with head pose.")
    identity: str | None = option(None, "Corpus with people, or list of pairs.")
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
    """What to encode, and how to write it down."""

    model: str = positional(f"{MODEL} With `--backend onnx` an .onnx file.", "MODEL")
    corpus: str = required(
        "Image folder, of any depth; parquet file or glob; folder written by `save_to_disk`; Hub id; video file; or "
        "folder of video files, of any depth."
    )
    output_dir: str = required("Folder for the features and embed.json; made.")
    split: str = option("train", "Split of the corpus.")
    corpus_revision: str | None = option(None, "Git revision of a corpus on the Hub.")
    streaming: bool = option(False, "Read the corpus as a stream: for corpora on the Hub that the disk cannot hold.")
    every_s: float = option(1.0, "Seconds between two frames of a video; 0 takes every frame.")
    features: list[str] = option(list(FEATURES), "Which of trunk, face and pose to write.")
    image_size: int | None = option(None, "Side of the images, in px; by default the model's.")
    precision: Literal["float32", "bf16"] = option(
        "float32", "Of the computation: float32 gives what `PCLModel` gives; bf16 takes half the time and disk space."
    )
    backend: Literal["torch", "onnx"] = option("torch", "What runs the model; onnx is onnxruntime, on the CPU.")
    format: Literal["parquet", "safetensors"] = option(
        "parquet",
        "parquet: lists of float32 beside the rows' columns; safetensors: tensors, in float32 or bf16, with the rows' "
        "columns in rows-*.parquet.",
    )
    rows_per_file: int | None = option(None, "Rows of a file; by default as many as have 256 MiB of features.")
    batch_size: int = option(64, "Images that a core, or the GPU, encodes at once.")
    max_broken_share: float = option(0.05, "Share of images that may fail to decode before the run stops, in [0, 1].")

    def __post_init__(self):
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown or not self.features:
            raise ValueError(
                f"`--features` must be some of {list(FEATURES)}, got {self.features}; `face+pose` is the columns "
                "`face` and `pose` side by side."
            )
        check_at_least(self, rows_per_file=1, batch_size=1, image_size=32, every_s=0)
        if not 0 <= self.max_broken_share <= 1:
            raise ValueError(f"`--max_broken_share` must be in [0, 1], got {self.max_broken_share}.")


@dataclass
class ComparisonArguments:
    """What to set side by side."""

    models: list[str] = positional("Folders or Hub ids of PCL models.", "MODEL", nargs="+")
    output_dir: str = required("Folder for comparison.md, .png and .json, and each probe's folder; made.")
    names: list[str] = option([], "What to call the models; by default the last part of their folder or id.")
    tasks: list[str] = option([], "Which of their tasks, as the table names them; by default all whose corpora open.")
    random_seeds: int = option(3, "Random initialisations of each architecture, at least 1.")

    def __post_init__(self):
        check_at_least(self, random_seeds=1)


@dataclass
class ScoreCorpora:
    """The labelled faces that quick scores are measured on."""

    expressions_train: str = option("", "Corpus of expressions to train on: FER2013's Training, with `label`.")
    expressions_validation: str = option("", "Corpus of expressions to measure on: FER2013's PublicTest.")
    identities: str = option("", "Corpus of people, several images each, with `identity` or `subject`: CelebA.")
    head_pose: str = option("", "Corpus with `yaw`, `pitch`, `roll` and `smile`, of which a fifth is tested: GENKI-4K.")
    portraits: str = option("", "Corpus with `age` and `gender`, of which a sixth is tested: UTKFace.")


@dataclass
class ScoreArguments(ScoreCorpora):
    """What all commands share."""

    output: str = option("scores.csv", "Table that rows are added to.")
    sides: list[int] = option([64, 100], "Sides to score at, in px.")
    features: list[str] = option(list(READABLE_FEATURES), "Features to score.")


@dataclass
class SearchArguments(ScoreArguments):
    """Train what is not trained, score what is not scored."""

    output: str = option("hub_cards/recipe_search.csv", "Table that rows are added to.")
    corpus: str = option("", "Corpus to train on, as for `pcl pretrain`.")
    variants: str = option(
        "scripts/recipe_search.txt",
        "Lines `name: options`, of `pcl pretrain`, where an earlier line's name stands for its options; those of `all` "
        "come before every other's; `#` begins a comment.",
    )
    runs_dir: str = option("runs/recipe_search", "Folder of the runs, by name; one that is there already is scored.")
    jobs: int = option(1, "Runs at a time, of one thread each.")


@dataclass
class ScoreModelsArguments(ScoreArguments):
    """Score models."""

    models: list[str] = positional("Folders, or random:SEED:WIDTH.", "MODEL", nargs="+")


@dataclass
class FollowArguments(ScoreArguments):
    """Score the newest checkpoint of a run every so often."""

    run: str = positional("Folder of the run.", "RUN")
    output: str = option("", "Table that rows are added to; by default scores.csv in the run's folder.")
    every_min: float = option(60.0, "Minutes from one look to the next.")
    once: bool = option(False, "Look once, and end.")


@dataclass
class TableArguments:
    """Set the variants of a table beside each other, over their seeds."""

    table: str = positional("Table that `pcl search run` wrote; the picture lies beside it.", "TABLE")
