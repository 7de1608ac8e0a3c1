"""The options of a probe."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modeling_pcl.data.options import option
from modeling_pcl.features_pcl import READABLE_FEATURES


@dataclass
class ProbeArguments:
    """What to measure, on what."""

    task: Literal["expression", "verification", "action_units", "head_pose", "disentanglement"] = option(
        "expression",
        "expression: one class of several, from any column of classes; verification: same or different person; "
        "action_units; head_pose: yaw, pitch, roll; disentanglement: what each branch holds of pose, identity and "
        "expression.",
    )
    model: str = option("", "Folder or Hub id of a PCL model.")
    train: str | None = option(None, "Corpus to train the probe on (its split `train`, or its only one).")
    test: str | None = option(
        None,
        "Corpus to test on (its split `test`, or its only one); by default the training corpus's split `test`, or, "
        "where it has none, a fifth of it: whole subjects where they are known, else stratified by label.",
    )
    validation: str | None = option(
        None,
        "Corpus on which `strict` chooses (its split `validation`, or its only one); by default the training corpus's "
        "split `validation`, or a tenth of the training images, cut out in the same way.",
    )
    output_dir: str = option("", "Folder for the head, results.json, predictions and pictures.")
    features: Literal["trunk", "face", "pose", "face+pose", "all"] = option(
        "all", "What the probe reads; `face+pose` is both together, `all` each of these in turn."
    )
    image_size: int | None = option(
        None,
        "Side of the images, in px; by default 100 for expression and action units, 256 for head pose, else the "
        "model's.",
    )
    protocol: Literal["strict", "paper"] = option(
        "strict",
        "`strict` chooses epoch and hyper-parameters on validation data and touches the test set once. `paper` takes "
        "the published hyper-parameters and the best epoch on the test set, and says so.",
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds of the probe; several give mean and spread."}
    )
    epochs: int | None = option(None, "Passes over the training images; by default 300, or 20 with `--finetune`.")
    label_column: str | None = option(None, "Column of the classes; by default `expression` or `label`.")
    subject_column: str = option("subject", "Column of the people, for verification and disentanglement.")
    group_by: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Columns of the test corpus, `gender`, `ethnicity`, `age` or others: measure each of their groups "
            "apart, too; ages in tens; verification within each group."
        },
    )
    label_names: list[str] = field(
        default_factory=list,
        metadata={"help": "Names of the classes, in the order of their numbers, where they have none."},
    )
    train_subjects: str | None = option(None, "Train on these people only: `s1-s30`, or names with commas between.")
    test_subjects: str | None = option(None, "Test on these people only.")
    folds: int | None = option(
        None,
        "Test each of so many parts, which share no person, with what was trained on the others; by default 3 for "
        "action units without `--test`. For verification pairs that are drawn here, the number of folds, 10.",
    )
    pairs: int = option(6000, "Verification pairs to draw where the test corpus has people and no pairs.")
    identity_embedding: bool = option(False, "Verify by a linear embedding trained on the people of `--train`.")
    tune_thresholds: bool = option(False, "Choose each action unit's threshold on validation data.")
    pose: str | None = option(None, "Corpus with head pose, for disentanglement.")
    identity: str | None = option(None, "Corpus with people, or list of pairs, for disentanglement.")
    expression: str | None = option(None, "Corpus with classes, for disentanglement.")
    finetune: bool = option(False, "Train the whole network instead of a linear layer on frozen features.")
    learning_rates: list[float] = field(
        default_factory=list,
        metadata={"help": "Candidates of `--finetune`, of the head; by default 1e-3 and 3e-4."},
    )
    layer_decays: list[float] = field(
        default_factory=list,
        metadata={
            "help": "Candidates of `--finetune`: factor of the learning rate from each layer to the one below it; by "
            "default 1 and 0.7."
        },
    )
    batch_size: int | None = option(None, "Images encoded at once, 128, or trained on at once with `--finetune`, 64.")
    cache_dir: str | None = option(None, "Folder of extracted features; by default in the Hugging Face home folder.")

    def feature_names(self) -> list[str]:
        """Every feature that is to be measured."""
        return list(READABLE_FEATURES) if self.features == "all" else [self.features]


def check_arguments(arguments: ProbeArguments):
    """Refuse values that no probe can have.

    Raises:
        ValueError: Naming the option, what it must be and what came.
    """
    for name in ("model", "output_dir"):
        if not getattr(arguments, name):
            raise ValueError(f"`--{name}` must be given.")
    if Path(arguments.output_dir).resolve() == Path(arguments.model).resolve():
        raise ValueError("`--output_dir` must be another folder than `--model`, whose weights it would overwrite.")
    if not arguments.seeds:
        raise ValueError("`--seeds` must name at least one seed.")
    for name in ("epochs", "pairs", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"`--{name}` must be at least 1, got {value}.")
    if arguments.folds is not None and arguments.folds < 2:
        raise ValueError(f"`--folds` must be at least 2, got {arguments.folds}.")
    if arguments.image_size is not None and arguments.image_size < 32:
        raise ValueError(f"`--image_size` must be at least 32 px, got {arguments.image_size}.")
    if arguments.finetune and arguments.task not in ("expression", "action_units", "head_pose"):
        raise ValueError(f"`--finetune` is for expression, action units and head pose, not for {arguments.task}.")
    if arguments.finetune and arguments.protocol == "paper":
        raise ValueError("`--finetune` has no published protocol; leave `--protocol` at strict.")
    if arguments.tune_thresholds and (
        arguments.task != "action_units" or arguments.protocol != "strict" or arguments.finetune
    ):
        raise ValueError("`--tune_thresholds` is for linear probes of action units in the strict protocol.")
    others = ("train", "test", "validation", "features", "protocol", "epochs", "seeds", "group_by")
    if arguments.task == "disentanglement":
        given = [name for name in others if getattr(arguments, name) != getattr(ProbeArguments(), name)]
        if given:
            raise ValueError(
                "`--task disentanglement` reads all features, once, from `--pose`, `--identity` and `--expression`; "
                f"leave `--{given[0]}` out."
            )
    if arguments.folds is not None and arguments.test is not None and arguments.task != "verification":
        raise ValueError("`--folds` tests on the training corpus itself: give it or `--test`, not both.")
