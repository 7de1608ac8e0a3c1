"""The options of a pre-training run."""

from dataclasses import asdict, dataclass
from typing import Literal

from ..options import option


@dataclass
class CorpusArguments:
    """Which images to train on, and how they are read."""

    corpus: str = option(
        "orl",
        "Hub id, image folder, parquet file or glob, or folder written by `save_to_disk`; `orl` is the 400 ORL faces.",
    )
    split: str = option("train", "Split of the corpus.")
    corpus_revision: str | None = option(None, "Git revision of a corpus on the Hub.")
    streaming: bool = option(False, "Read the corpus as a stream, without an index of its rows.")
    subjects: str | None = option(None, "Train on these subjects only: `s1-s30`, or names with commas between them.")
    subject_sampling: Literal["auto", "on", "off"] = option(
        "auto",
        "An epoch is one random frame of one random video of each subject (on), or every image (off); auto is on where "
        "the corpus has a `subject` column and subjects enough to fill a batch.",
    )
    load_size_px: int | None = option(
        None, "Side in px of the images as loaded, from which views are cut; by default twice the model's."
    )
    max_broken_share: float = option(0.05, "Share of images that may fail to decode before the run stops, in [0, 1].")
    num_workers: int = option(
        1,
        "Processes that decode images, for each training process; 0 decodes in the process. A stream is shared out to "
        "them: `--resume` needs as many, and each draws from its part of a shuffle buffer.",
    )


@dataclass
class ModelArguments:
    """Size and start of the model."""

    config: str | None = option(None, "Folder, Hub id or JSON file with a PCLConfig; by default the published one.")
    init_from: str | None = option(None, "Folder or Hub id of a PCL model whose weights to start from.")
    width: float = option(1.0, "Scales every width of the config; 0.25 is a sixteenth of the cost.")
    image_size: int | None = option(None, "Side in px that the model sees; by default the config's, 64.")
    decoder_size: int | None = option(None, "Width of the decoder's first layer, not scaled; by default the config's.")
    decoder_image_size: int | None = option(
        None, "Side in px of the images that the decoder draws; by default the config's, which is the model's own."
    )
    projection_size: int | None = option(
        None, "Length of the embeddings that the contrasts compare, not scaled; by default the config's."
    )
    projection_hidden_size: int | None = option(
        None, "Width of the projections' hidden layer, not scaled; by default the config's."
    )


@dataclass
class ObjectiveArguments:
    """The objectives, where they are not to be as in the config."""

    method: Literal["pcl", "simclr"] = option(
        "pcl",
        "`simclr` is the baseline: the face objective alone, on random-resized-crop and mirror views, without mixing. "
        "It only changes defaults; options given beside it hold.",
    )
    recipe: Literal["published", "small"] = option(
        "published",
        "`small` changes the defaults of views, objectives and optimizer to those with which a narrow model learns "
        "within minutes on a CPU; options given beside it hold, and `--method simclr` goes with it.",
    )
    disentangling_weight: float | None = option(None, "Weight of objective 1; 0 leaves it out.")
    face_contrast_weight: float | None = option(None, "Weight of objective 2; 0 leaves it out.")
    pose_contrast_weight: float | None = option(None, "Weight of objective 3; 0 leaves it out.")
    orthogonality: Literal["cross_product", "cosine"] | None = option(None, "Form of the orthogonality terms.")
    orthogonality_weight: float | None = option(None, "Weight of the orthogonality terms within objective 1.")
    face_temperature: float | None = option(None, "Temperature of the face contrast.")
    pose_temperature: float | None = option(None, "Temperature of the pose contrast.")
    pose_negative_gradient: bool | None = option(
        None, "Train the encoder through the pose negatives too (published); without, they cost a third."
    )


@dataclass
class TrainingArguments:
    """Schedule, optimizer and precision. The defaults are the published ones where there are any."""

    output_dir: str = option("runs/pcl", "Folder for the model, checkpoints, pictures and run.json.")
    steps: int = option(10_000, "Iterations; each makes one optimizer step an objective, or one in all if joint.")
    batch_size: int = option(256, "Images for each process and micro-batch.")
    schedule: Literal["alternating", "joint"] = option(
        "alternating", "One optimizer step an objective in turn (published), or one on the weighted sum."
    )
    keep_zero_gradients: bool = option(
        True, "Momentum and decay act on parameters that the current objective does not reach, as published."
    )
    dynamic_weight_averaging: bool = option(True, "Balance face and pose loss by their speed, from the third epoch on.")
    steps_per_epoch: int | None = option(None, "Iterations an epoch has; by default the corpus divided by the batch.")
    optimizer: Literal["adam", "adamw", "muon"] = option(
        "adam",
        "adam: with L2 decay (published); adamw: with decoupled decay; muon: orthogonalised momentum for convolutions "
        "and linear layers, Adam for biases, norms and the decoder's last convolution.",
    )
    learning_rate: float = option(1e-4, "Peak learning rate; with muon, of convolutions and linear layers.")
    adam_learning_rate: float = option(1e-3, "With muon, the peak learning rate of what Adam trains.")
    weight_decay: float = option(1e-3, "Weight decay: L2 for adam, decoupled for adamw and muon.")
    lr_scheduler_type: Literal["cosine", "warmup_stable_decay"] = option(
        "cosine",
        "After the warm-up a cosine to zero (published); or a constant rate with a decay to zero in the last "
        "`--decay_steps`: then a run may be resumed with more or fewer `--steps`.",
    )
    warmup_steps: int = option(0, "Iterations of linear warm-up.")
    decay_steps: int = option(0, "Iterations of decay at the end of `warmup_stable_decay`; 0 for none.")
    max_grad_norm: float | None = option(None, "Clip the gradient of each optimizer step to this L2 norm.")
    gradient_accumulation_steps: int = option(
        1,
        "Micro-batches of `batch_size` before an optimizer step, in the memory of one. The face contrast has the "
        "negatives of all of them, and encodes their views twice.",
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = option("bf16", "Autocast of encoder, heads and decoder.")
    channels_last: bool = option(True, "Keep images and maps in channels-last order, which is faster.")
    compile: bool = option(False, "Compile encoder, heads and decoder with torch.compile.")
    freeze_encoder: bool = option(
        False,
        "Leave the encoder as it is; with `--face_contrast_weight 0 --pose_contrast_weight 0` the decoder alone "
        "learns, of another `--decoder_size` than it had if you like.",
    )
    gradient_checkpointing: bool = option(False, "Recompute the encoder's stages in the backward pass to save memory.")
    sync_batch_norm: bool = option(False, "Batch norms use the statistics of all processes.")
    fsdp: bool = option(
        False,
        "Share weights, gradients and optimizer state out over the processes (FSDP2), for models too large for one; "
        "`accelerate launch --use_fsdp --fsdp_version 2` does the same. A resumed run may change it.",
    )
    seed: int = option(0, "Seed of weights, views and order.")


@dataclass
class LoggingArguments:
    """What a run writes while it goes."""

    resume: bool = option(
        False,
        "Continue the run in `output_dir` from its newest whole checkpoint, bit for bit; start where there is none.",
    )
    logging_steps: int = option(10, "Iterations between two log entries.")
    picture_steps: int = option(500, "Iterations between two pictures of reconstructions; 0 draws none.")
    save_steps: int = option(500, "Iterations between two checkpoints; 0 saves at the end only.")
    save_total_limit: int = option(2, "Checkpoints kept, at least 1.")
    report_to: list[str] = option(
        ["tensorboard"], "Trackers: tensorboard, trackio, wandb or others that Accelerate knows; or `none`."
    )
    push_to_hub: bool = option(False, "Upload the finished model to the Hub.")
    hub_model_id: str | None = option(None, "Repository to upload to, `user/name`.")
    hub_private: bool = option(False, "Make a new repository private.")


AT_LEAST_ONE = (
    "steps",
    "batch_size",
    "gradient_accumulation_steps",
    "steps_per_epoch",
    "logging_steps",
    "save_total_limit",
)


def check_arguments(training: TrainingArguments, logging: LoggingArguments):
    """Refuse values that no run can have.

    Raises:
        ValueError: Naming the option, what it must be and what came.
    """
    options = asdict(training) | asdict(logging)
    for name in AT_LEAST_ONE:
        if options[name] is not None and options[name] < 1:
            raise ValueError(f"`--{name}` must be at least 1, got {options[name]}.")
    for name in ("learning_rate", "adam_learning_rate"):
        if not options[name] > 0:
            raise ValueError(f"`--{name}` must be positive, got {options[name]}.")
    if not 0 <= training.warmup_steps < training.steps:
        raise ValueError(f"`--warmup_steps` must be in [0, `--steps`), got {training.warmup_steps}.")
    if not 0 <= training.decay_steps <= training.steps - training.warmup_steps:
        raise ValueError(f"`--decay_steps` must be in [0, `--steps` - `--warmup_steps`], got {training.decay_steps}.")
    if training.decay_steps and training.lr_scheduler_type == "cosine":
        raise ValueError("`--decay_steps` is for `--lr_scheduler_type warmup_stable_decay`; a cosine always decays.")
    if logging.push_to_hub and not logging.hub_model_id:
        raise ValueError("`--push_to_hub` needs `--hub_model_id user/name`.")
