"""Options of `pcl pretrain`."""

import math
from dataclasses import dataclass
from typing import Literal

from ..options import check_at_least, option


@dataclass
class CorpusArguments:
    """The images to train on, and how they are read."""

    corpus: str = option(
        "orl",
        "Hub id, image folder, parquet file or glob, or folder from `save_to_disk`; `orl` is the 400 faces of ORL.",
    )
    split: str = option("train", "Split of the corpus.")
    corpus_revision: str | None = option(None, "Git revision of a corpus on the Hub.")
    streaming: bool = option(False, "Read the corpus as a stream, without an index of its rows.")
    subjects: str | None = option(None, "Train on these subjects only: `s1-s30`, or names separated by commas.")
    subject_sampling: Literal["auto", "on", "off"] = option(
        "auto",
        "An epoch is one random frame of one random video of each subject (on), or every image (off); auto means on if "
        "the corpus has a `subject` column and enough subjects to fill a batch.",
    )
    load_size_px: int | None = option(
        None, "Side in px at which images are loaded before views are cut out; by default twice the model's image size."
    )
    max_broken_share: float = option(
        0.05, "Fraction of images that may fail to decode before the run stops, in [0, 1]."
    )
    num_workers: int = option(
        1,
        "Processes that decode images, per training process; 0 decodes in the training process. A stream is divided "
        "among them: `--resume` needs the same number, and each has its own part of the shuffle buffer.",
    )


@dataclass
class ModelArguments:
    """Sizes and initial weights of the model."""

    config: str | None = option(None, "Folder, Hub id or JSON file with a PCLConfig; by default the published one.")
    init_from: str | None = option(
        None, "Folder or Hub id of a PCL model whose weights to start from, with its sizes also under a `--recipe`."
    )
    width: float = option(1.0, "Factor for every width of the config; 0.25 is a sixteenth of the cost.")
    image_size: int | None = option(None, "Side in px of the model's input; by default that of the config, 64.")
    decoder_size: int | None = option(
        None, "Width of the decoder's first layer, not scaled by `--width`; by default that of the config."
    )
    decoder_image_size: int | None = option(
        None, "Side in px of the images that the decoder draws; by default that of the config, the model's image size."
    )
    projection_size: int | None = option(
        None, "Length of the contrastive embeddings, not scaled by `--width`; by default that of the config."
    )
    projection_hidden_size: int | None = option(
        None, "Width of the projection heads' hidden layer, not scaled by `--width`; by default that of the config."
    )

    mirror_invariant_face: bool | None = option(
        None, "Return as face feature of the trained encoder the mean over the image and its mirror, in twice the time."
    )


@dataclass
class ObjectiveArguments:
    """The objectives. Options that are not given are as in the config."""

    method: Literal["pcl", "simclr"] = option(
        "pcl",
        "`simclr` is the baseline: only the face contrast, on random-resized-crop and mirror views, without mixing. "
        "It changes defaults only; other options take precedence.",
    )
    recipe: Literal["published", "small"] = option(
        "published",
        "`small` sets defaults of views, objectives and optimizer with which a narrow model learns within minutes on a "
        "CPU; other options take precedence, and it can be combined with `--method simclr`.",
    )
    disentangling_weight: float | None = option(None, "Weight of objective 1; 0 leaves it out.")
    face_contrast_weight: float | None = option(None, "Weight of objective 2; 0 leaves it out.")
    pose_contrast_weight: float | None = option(None, "Weight of objective 3; 0 leaves it out.")
    orthogonality: Literal["cross_product", "cosine"] | None = option(None, "Form of the orthogonality terms.")
    orthogonality_weight: float | None = option(None, "Weight of the orthogonality terms within objective 1.")
    turn_weight: float | None = option(
        None,
        "Weight within objective 2 of a term that is not in the paper: the pose branch predicts by how much the two "
        "face views of an image are turned against each other. Needs `--face_turn_probability`.",
    )
    face_temperature: float | None = option(None, "Temperature of the face contrast.")
    pose_temperature: float | None = option(None, "Temperature of the pose contrast.")
    pose_negative_gradient: bool | None = option(
        None, "Also train the encoder through the pose negatives (published); without it, they cost a third."
    )


@dataclass
class TrainingArguments:
    """Schedule, optimizer and precision. The defaults are the published values, as far as they were published."""

    output_dir: str = option("runs/pcl", "Folder for the model, checkpoints, pictures and run.json.")
    steps: int = option(
        10_000, "Iterations. Each makes one optimizer step per objective, or a single one if the schedule is joint."
    )
    batch_size: int = option(256, "Images per process and micro-batch, at least 2.")
    schedule: Literal["alternating", "joint"] = option(
        "alternating", "One optimizer step for each objective in turn (published), or one step on the weighted sum."
    )
    keep_zero_gradients: bool = option(
        True, "Apply momentum and decay also to parameters that the current objective does not reach, as published."
    )
    dynamic_weight_averaging: bool = option(
        True, "Weigh the face and the pose contrast by how fast their losses fall, from the third epoch on."
    )
    steps_per_epoch: int | None = option(
        None, "Iterations per epoch; by default the number of images divided by the batch size."
    )
    optimizer: Literal["adam", "adamw", "muon"] = option(
        "adam",
        "adam: with L2 decay (published); adamw: with decoupled decay; muon: orthogonalised momentum for convolutions "
        "and linear layers, Adam for biases, norms and the decoder's last convolution.",
    )
    learning_rate: float = option(1e-4, "Peak learning rate; with muon, that of convolutions and linear layers.")
    adam_learning_rate: float = option(1e-3, "With muon, the peak learning rate of the parameters that Adam trains.")
    weight_decay: float = option(1e-3, "Weight decay: L2 for adam, decoupled for adamw and muon.")
    lr_scheduler_type: Literal["cosine", "warmup_stable_decay"] = option(
        "cosine",
        "After the warm-up, a cosine to zero (published); or a constant rate with a decay to zero in the last "
        "`--decay_steps`, with which a run may be resumed with more or fewer `--steps`.",
    )
    warmup_steps: int = option(0, "Iterations of linear warm-up; that of a recipe is at most half of a short run.")
    decay_steps: int = option(0, "Iterations of decay at the end of `warmup_stable_decay`; 0 means no decay.")
    max_grad_norm: float | None = option(None, "Clip the gradient of each optimizer step to this L2 norm.")
    gradient_accumulation_steps: int = option(
        1,
        "Micro-batches of `batch_size` images per optimizer step, in the memory of one. The face contrast uses the "
        "negatives of all micro-batches, and encodes their views twice.",
    )
    # On a CPU with instructions for it, bfloat16 with channels_last is 2.4 to 2.8 times as fast as float32.
    mixed_precision: Literal["no", "bf16", "fp16"] | None = option(
        None,
        "Autocast of encoder, heads and decoder; by default bf16 if the device has instructions for it, otherwise no.",
    )
    channels_last: bool = option(True, "Keep images and maps in channels-last order, which is faster.")
    # On CPUs, forward and backward of 512 images take 0.73 s instead of 0.94 s at quarter width on one thread; at full
    # width on two threads, compiling gained nothing.
    compile: bool = option(False, "Compile encoder, heads and decoder with torch.compile.")
    freeze_encoder: bool = option(
        False,
        "Do not train the encoder; with `--face_contrast_weight 0 --pose_contrast_weight 0` only the decoder is "
        "trained, which may have a new `--decoder_size`.",
    )
    gradient_checkpointing: bool = option(False, "Recompute the encoder's stages in the backward pass to save memory.")
    sync_batch_norm: bool = option(False, "Compute batch norm statistics over all processes.")
    fsdp: bool = option(
        False,
        "Shard weights, gradients and optimizer state over the processes (FSDP2), for models too large for one; "
        "`accelerate launch --use_fsdp --fsdp_version 2` does the same. A resumed run may change it.",
    )
    seed: int = option(0, "Seed of weights, views and order.")


@dataclass
class LoggingArguments:
    """What a run writes while it trains."""

    resume: bool = option(
        False,
        "Continue the run in `output_dir` from its newest intact checkpoint, bit for bit; start at step 0 if there is "
        "no checkpoint.",
    )
    logging_steps: int = option(10, "Iterations between two log entries.")
    picture_steps: int = option(500, "Iterations between two pictures of reconstructions; 0 draws none.")
    save_steps: int = option(500, "Iterations between two checkpoints; 0 saves only at the end.")
    save_total_limit: int = option(2, "Number of checkpoints to keep, at least 1.")
    report_to: list[str] = option(
        ["tensorboard"], "Trackers: tensorboard, trackio, wandb or others that Accelerate supports; or `none`."
    )
    push_to_hub: bool = option(False, "Upload the finished model to the Hub.")
    hub_model_id: str | None = option(None, "Repository to upload to, `user/name`.")
    hub_private: bool = option(False, "Make a new repository private.")


def check_arguments(
    corpus: CorpusArguments, model: ModelArguments, training: TrainingArguments, logging: LoggingArguments
):
    """Check the ranges of the options and their combinations.

    Raises:
        ValueError: If an option is out of range. The message names the option, its range and its value.
    """
    # The objectives compare the images of a batch, so that one image is none.
    counts = {"steps": 1, "batch_size": 2, "gradient_accumulation_steps": 1, "steps_per_epoch": 1}
    check_at_least(corpus, load_size_px=1, num_workers=0)
    check_at_least(training, **counts, weight_decay=0)
    check_at_least(logging, logging_steps=1, picture_steps=0, save_steps=0, save_total_limit=1)
    names = ("learning_rate", "adam_learning_rate", "max_grad_norm")
    for name, value in {"width": model.width, **{name: getattr(training, name) for name in names}}.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"`--{name}` must be a positive number, got {value}.")
    if not 0 <= training.seed < 2**32:
        raise ValueError(f"`--seed` must be in [0, 2**32), got {training.seed}.")
    if not 0 <= training.warmup_steps < training.steps:
        raise ValueError(f"`--warmup_steps` must be in [0, `--steps`), got {training.warmup_steps}.")
    if not 0 <= training.decay_steps <= training.steps - training.warmup_steps:
        raise ValueError(f"`--decay_steps` must be in [0, `--steps` - `--warmup_steps`], got {training.decay_steps}.")
    if training.decay_steps and training.lr_scheduler_type == "cosine":
        raise ValueError("`--decay_steps` is for `--lr_scheduler_type warmup_stable_decay`; a cosine always decays.")
    if logging.push_to_hub and not logging.hub_model_id:
        raise ValueError("`--push_to_hub` needs `--hub_model_id user/name`.")
