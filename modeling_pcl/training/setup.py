"""Construction of the parts of a run from its options."""

import logging
import os
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from transformers import get_scheduler

from .. import PCLConfig, PCLForPreTraining, PCLImageProcessor
from ..data.corpora import Corpus, load_corpus, read_face_crop
from ..data.loading import Loader, make_loader
from ..data.subjects import select_subjects
from ..files import report_open_errors
from .arguments import TrainingArguments
from .batch_norm import synchronise_batch_norm
from .checkpoints import CheckpointFolder
from .optimizers import make_optimizer
from .options import Options
from .processes import decide_for_all
from .replicas import Replicas
from .sharding import shard_model, take_launch_request
from .state import TrainingState, check_same_run
from .steps import select_trained_parameters
from .trackers import check_trackers

logger = logging.getLogger(__name__)

NOT_OF_CONFIG = {"config", "init_from", "width", "method", "recipe"}  # Model and objective options that are not fields.
OTHER_FRAMES = 4  # Largest number of other frames of an image's video that are read for views.


def build_config(options: Options) -> PCLConfig:
    """Build the config: the published one, or that of a file or a model, with the changes of the options."""
    start = options.model.config or options.model.init_from
    with report_open_errors(f"The config `{start}`"):
        config = PCLConfig.from_pretrained(start) if start else PCLConfig()
    config = config.scaled(options.model.width)
    values = asdict(options.model) | asdict(options.objective)
    changes = {name: value for name, value in values.items() if name not in NOT_OF_CONFIG and value is not None}
    return PCLConfig(**(config.to_dict() | changes))


def build_model(options: Options, checkpoint: Path | None) -> PCLForPreTraining:
    """Build the model, or open it from a checkpoint or `--init_from`, and prepare it for training."""
    training = options.training
    if checkpoint is not None:
        with report_open_errors(f"The checkpoint {checkpoint}"):
            model = PCLForPreTraining.from_pretrained(checkpoint / "model")
    elif options.model.init_from:
        model = open_initial_model(options.model.init_from, build_config(options))
    elif training.freeze_encoder:
        raise ValueError("`--freeze_encoder` needs `--init_from`: otherwise the encoder would never be trained.")
    else:
        model = PCLForPreTraining(build_config(options))
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if training.gradient_accumulation_steps > 1:
        # Two views of each image, as many as the encoder holds for one micro-batch.
        model.images_at_once = 2 * training.batch_size
    if training.sync_batch_norm:
        synchronise_batch_norm(model)
    if training.compile:
        for part in (model.pcl, model.face_projection, model.pose_projection, model.decoder):
            part.compile()
    objectives = [name for name, weight in model.config.objective_weights.items() if weight > 0]
    select_trained_parameters(model, objectives, training.freeze_encoder)
    return model.to(memory_format=torch.channels_last) if training.channels_last else model


def open_initial_model(name: str, config: PCLConfig) -> PCLForPreTraining:
    """Open the weights of a model with a config. A decoder that is missing or has another size is initialised.

    Raises:
        ValueError: If the model cannot be opened, or another part has other sizes than in the config.
    """
    with report_open_errors(f"The model `{name}`"):
        model, loading = PCLForPreTraining.from_pretrained(
            name, config=config, ignore_mismatched_sizes=True, output_loading_info=True
        )
        mismatched = [key for key, *_ in loading["mismatched_keys"] if not key.startswith("decoder.")]
        if mismatched:
            raise ValueError(f"it is of other sizes than the options ask for: {', '.join(sorted(mismatched)[:3])}")
    return model


def build_accelerator(options: Options) -> Accelerator:
    """Build the Accelerator of this process. Sets `options.training.fsdp` if `accelerate launch` requested FSDP.

    Raises:
        ValueError: If `accelerate launch --cpu` was given several processes, of which it only starts one.
    """
    options.training.fsdp |= take_launch_request(os.environ)
    is_distributed = {"LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"} & set(os.environ)
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ and not is_distributed:
        raise ValueError(
            "`accelerate launch --cpu` starts one process whatever `--num_processes` says. Use `accelerate launch "
            "--multi_gpu --num_processes N`, which also starts N processes on a machine without GPUs."
        )
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # Otherwise several processes on CPUs do not form a group.
        mixed_precision=options.training.mixed_precision,
        log_with=check_trackers(options.logging.report_to) or None,
        project_config=ProjectConfiguration(options.training.output_dir, f"{options.training.output_dir}/logs"),
    )


def distribute_model(
    accelerator: Accelerator, training: TrainingArguments, model: PCLForPreTraining, groups: list[tuple[str, ...]]
) -> torch.nn.Module:
    """Move the model to the device of this process, and distribute it if there are several processes.

    Returns:
        Module to call in training, with the same parameters.
    """
    # `evaluation_mode` applies the device and autocast only: Accelerate's own DDP would search for unused parameters in
    # every pass.
    model = accelerator.prepare_model(model, evaluation_mode=True)
    if accelerator.num_processes == 1:
        return model
    return (
        shard_model(model, training.channels_last)
        if training.fsdp
        else Replicas(model, groups, training.freeze_encoder)
    )


def make_training_state(accelerator: Accelerator, options: Options, model: PCLForPreTraining) -> TrainingState:
    """Make the optimizer, the learning-rate schedule and the image processor."""
    training = options.training
    optimizer = make_optimizer(
        model, training.optimizer, training.learning_rate, training.weight_decay, training.adam_learning_rate
    )
    kind = training.lr_scheduler_type
    decay = {"num_decay_steps": training.decay_steps, "decay_type": "1-sqrt"} if kind != "cosine" else None
    scheduler = get_scheduler(kind, optimizer, training.warmup_steps, training.steps, scheduler_specific_kwargs=decay)
    # The processor gets the crop of the corpus, so that faces are cut out in use as in training; if the corpus does not
    # record one, the crop of the model that training starts from.
    crop = read_face_crop(options.corpus.corpus)
    attributes = {"face_crop": crop} if crop else {}
    start = options.model.init_from or ""
    processor = PCLImageProcessor.for_image_size(model.config.image_size, like=start, **attributes)
    return TrainingState(accelerator, model.train(), processor, accelerator.prepare_optimizer(optimizer), scheduler)


def find_checkpoint(options: Options, folder: CheckpointFolder, accelerator: Accelerator) -> Path | None:
    """Remove unfinished checkpoints of a killed process, and find the checkpoint to resume from.

    Returns:
        Path of the checkpoint; None for a new run.

    Raises:
        ValueError: If there is a run in the folder and `--resume` is not given, the run has other options, or all its
            checkpoints are damaged.
    """

    def choose() -> Path | None:
        folder.clean()
        newest = folder.newest()
        if newest is not None and not options.logging.resume:
            raise ValueError(f"{newest} exists already: give `--resume` to go on, or another `--output_dir`.")
        if newest is not None:
            check_same_run(newest, options.flat(), accelerator.num_processes, options.may_change)
        elif options.logging.resume:  # Only a warning: supervisors use the same command for the first start.
            logger.warning("%s holds no complete checkpoint to resume from: starting at step 0", folder.folder)
        return newest

    return decide_for_all(accelerator, choose)


def open_corpus(options: Options) -> Corpus:
    """Open the corpus, limited to the subjects in `--subjects`."""
    arguments = options.corpus
    corpus = load_corpus(arguments.corpus, arguments.split, arguments.streaming, arguments.corpus_revision)
    return corpus if arguments.subjects is None else select_subjects(corpus, arguments.subjects)


def open_loader(
    options: Options, corpus: Corpus, model: PCLForPreTraining, accelerator: Accelerator, position: dict | None
) -> Loader:
    """Make the loader of this process, starting from a position; None starts at the beginning."""
    return make_loader(
        corpus,
        load_size_px=options.corpus.load_size_px or 2 * model.config.image_size,
        batch_size=options.training.batch_size,
        seed=options.training.seed,
        subjects=options.corpus.subject_sampling,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        num_workers=options.corpus.num_workers,
        position=position,
        pin_memory=accelerator.device.type == "cuda",
        other_frames=OTHER_FRAMES if options.views.needs_videos else 0,
    )


def compute_steps_per_epoch(options: Options, loader) -> int:
    """Compute the number of iterations in an epoch, over which dynamic weight averaging averages losses.

    Raises:
        ValueError: If the number is needed but the length of a stream is not known.
    """
    if options.training.steps_per_epoch is not None:
        return options.training.steps_per_epoch
    if loader.batches_per_epoch is None:
        if options.training.dynamic_weight_averaging:
            raise ValueError("The stream's length is unknown: give `--steps_per_epoch` for dynamic weight averaging.")
        return options.training.steps
    return max(1, loader.batches_per_epoch // options.training.gradient_accumulation_steps)
