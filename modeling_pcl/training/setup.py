"""The parts of a run, built from its options."""

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
from ..files import opening
from .arguments import TrainingArguments
from .batch_norm import synchronise_batch_norm
from .checkpoints import CheckpointFolder
from .optimizers import make_optimizer
from .options import Options
from .processes import decide_for_all
from .replicas import Replicas
from .sharding import shard, take_launch_request
from .state import TrainingState, check_same_run
from .steps import select_trained_parameters
from .trackers import check_trackers

logger = logging.getLogger(__name__)

NOT_OF_CONFIG = {"config", "init_from", "width", "method", "recipe"}  # Of the options of model and objectives.
OTHER_FRAMES = 4  # Of an image's video that are read for views, at most.


def build_config(options: Options) -> PCLConfig:
    """Make the config that the options ask for: the published one, a given one or a model's, changed."""
    start = options.model.config or options.model.init_from
    with opening(f"The config `{start}`"):
        config = PCLConfig.from_pretrained(start) if start else PCLConfig()
    config = config.scaled(options.model.width)
    asked = asdict(options.model) | asdict(options.objective)
    changed = {name: value for name, value in asked.items() if name not in NOT_OF_CONFIG and value is not None}
    return PCLConfig(**(config.to_dict() | changed))


def build_model(options: Options, checkpoint: Path | None) -> PCLForPreTraining:
    """Make or open the model, and prepare it for how it will be trained."""
    training = options.training
    if checkpoint is not None:
        with opening(f"The checkpoint {checkpoint}"):
            model = PCLForPreTraining.from_pretrained(checkpoint / "model")
    elif options.model.init_from:
        model = open_start(options.model.init_from, build_config(options))
    elif training.freeze_encoder:
        raise ValueError("`--freeze_encoder` needs `--init_from`: an encoder that was never trained would stay so.")
    else:
        model = PCLForPreTraining(build_config(options))
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if training.gradient_accumulation_steps > 1:
        # Two views of each image of a micro-batch: what the encoder holds otherwise.
        model.images_at_once = 2 * training.batch_size
    if training.sync_batch_norm:
        synchronise_batch_norm(model)
    if training.compile:
        for part in (model.pcl, model.face_projection, model.pose_projection, model.decoder):
            part.compile()
    objectives = [name for name, weight in model.config.objective_weights.items() if weight > 0]
    select_trained_parameters(model, objectives, training.freeze_encoder)
    return model.to(memory_format=torch.channels_last) if training.channels_last else model


def open_start(name: str, config: PCLConfig) -> PCLForPreTraining:
    """Open a model's weights under a config; a decoder of another size, or one that is not there, starts anew.

    Raises:
        ValueError: If they do not open, or other parts are of other sizes.
    """
    with opening(f"The model `{name}`"):
        model, loading = PCLForPreTraining.from_pretrained(
            name, config=config, ignore_mismatched_sizes=True, output_loading_info=True
        )
        others = [key for key, *_ in loading["mismatched_keys"] if not key.startswith("decoder.")]
        if others:
            raise ValueError(f"it is of other sizes than the options ask for: {', '.join(sorted(others)[:3])}")
    return model


def build_accelerator(options: Options) -> Accelerator:
    """Make the Accelerator of this process; `options` learn whether shards were asked for by the launch.

    Raises:
        ValueError: If `accelerate launch --cpu` was asked for several processes.
    """
    options.training.fsdp |= take_launch_request(os.environ)
    started = {"LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"} & set(os.environ)
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ and not started:
        raise ValueError(
            "`accelerate launch --cpu` starts one process, however many it is asked for. Use `accelerate launch "
            "--multi_gpu --num_processes N`, which starts N on a machine without GPUs too."
        )
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # Without this, several CPU processes do not find each other.
        mixed_precision=options.training.mixed_precision,
        log_with=check_trackers(options.logging.report_to) or None,
        project_config=ProjectConfiguration(options.training.output_dir, f"{options.training.output_dir}/logs"),
    )


def distribute_model(
    accelerator: Accelerator, training: TrainingArguments, model: PCLForPreTraining, groups: list[tuple[str, ...]]
) -> torch.nn.Module:
    """Put the model on this process's device, and make it one of several where there are several processes.

    Returns:
        What to call in training, on the same parameters.
    """
    # DDP or shards are put around it below: Accelerate's DDP would search for unused parameters in every pass.
    model = accelerator.prepare_model(model, evaluation_mode=True)  # Device and autocast; it would not choose the rest.
    if accelerator.num_processes == 1:
        return model
    return shard(model, training.channels_last) if training.fsdp else Replicas(model, groups, training.freeze_encoder)


def make_training_state(accelerator: Accelerator, options: Options, model: PCLForPreTraining) -> TrainingState:
    """Make optimizer and schedule, and gather what a checkpoint holds."""
    training = options.training
    optimizer = make_optimizer(
        model, training.optimizer, training.learning_rate, training.weight_decay, training.adam_learning_rate
    )
    kind = training.lr_scheduler_type
    decay = {"num_decay_steps": training.decay_steps, "decay_type": "1-sqrt"} if kind != "cosine" else None
    scheduler = get_scheduler(kind, optimizer, training.warmup_steps, training.steps, scheduler_specific_kwargs=decay)
    crop = read_face_crop(options.corpus.corpus)  # That by which the corpus was made, or else an earlier model's.
    given = {"face_crop": crop} if crop else {}
    processor = PCLImageProcessor.for_image_size(model.config.image_size, like=options.model.init_from or "", **given)
    return TrainingState(accelerator, model.train(), processor, accelerator.prepare_optimizer(optimizer), scheduler)


def find_checkpoint(options: Options, folder: CheckpointFolder, accelerator: Accelerator) -> Path | None:
    """Remove what a killed process left unfinished, and choose the checkpoint to go on from.

    Returns:
        None for a new run, which does not write over an old one.

    Raises:
        ValueError: If there is an old run and `--resume` is not given, it is of other options, or all its checkpoints
            are damaged.
    """

    def choose() -> Path | None:
        folder.clean()
        newest = folder.newest()
        if newest is not None and not options.logging.resume:
            raise ValueError(f"{newest} exists already: give `--resume` to go on, or another `--output_dir`.")
        if newest is not None:
            check_same_run(newest, options.flat(), accelerator.num_processes, options.may_change)
        elif options.logging.resume:  # Not refused: a supervisor gives it with the first start, too.
            logger.warning("%s holds no complete checkpoint to resume from: starting at step 0", folder.folder)
        return newest

    return decide_for_all(accelerator, choose)


def open_corpus(options: Options) -> Corpus:
    """Open the corpus, without the subjects that are not asked for."""
    arguments = options.corpus
    corpus = load_corpus(arguments.corpus, arguments.split, arguments.streaming, arguments.corpus_revision)
    return corpus if arguments.subjects is None else select_subjects(corpus, arguments.subjects)


def open_loader(
    options: Options, corpus: Corpus, model: PCLForPreTraining, accelerator: Accelerator, position: dict | None
) -> Loader:
    """Make this process's loader, from a position on."""
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


def steps_per_epoch(options: Options, loader) -> int:
    """Iterations an epoch has for dynamic weight averaging."""
    if options.training.steps_per_epoch is not None:
        return options.training.steps_per_epoch
    if loader.batches_per_epoch is None:
        if options.training.dynamic_weight_averaging:
            raise ValueError("The stream's length is unknown: give `--steps_per_epoch` for dynamic weight averaging.")
        return options.training.steps
    return max(1, loader.batches_per_epoch // options.training.gradient_accumulation_steps)
