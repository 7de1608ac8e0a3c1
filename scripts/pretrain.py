"""Pre-train PCL on images of faces:

accelerate launch scripts/pretrain.py --corpus path/to/images --output_dir runs/mine

`python scripts/pretrain.py` does the same in one process, and `accelerate launch --multi_gpu --num_processes 2` in two,
with or without GPUs. The model lands in the output folder, where `AutoModel.from_pretrained` opens it; the same command
with `--resume` continues a run that was stopped.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from huggingface_hub import HfApi
from huggingface_hub.errors import StrictDataclassError
from push_to_hub import PushArguments, push
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import HfArgumentParser, get_scheduler
from transformers.utils.logging import disable_progress_bar

from modeling_pcl import PCLConfig, PCLForPreTraining, PCLImageProcessor
from modeling_pcl.data.corpora import corpus_revision, load_corpus, select_subjects
from modeling_pcl.data.loading import Batch, BrokenFiles, make_loader
from modeling_pcl.data.view_settings import ViewSettings
from modeling_pcl.data.views import VideoFrames, ViewMaker
from modeling_pcl.distributed_pcl import synchronise_batch_norm
from modeling_pcl.training.arguments import (
    CorpusArguments,
    LoggingArguments,
    ModelArguments,
    ObjectiveArguments,
    TrainingArguments,
    check_arguments,
)
from modeling_pcl.training.checkpoints import CheckpointFolder
from modeling_pcl.training.monitor import Monitor, check_finite_weights
from modeling_pcl.training.optimizers import make_optimizer
from modeling_pcl.training.pictures import draw_rows, reconstruction_rows
from modeling_pcl.training.recipes import ADAM_RATE, METHODS, RECIPES
from modeling_pcl.training.record import describe_run, write_record
from modeling_pcl.training.replicas import Replicas
from modeling_pcl.training.sharding import shard, take_request, whole_model
from modeling_pcl.training.state import RunState, Trained, check_same_run
from modeling_pcl.training.steps import Stepper, freeze_unused, give_zero_gradients
from modeling_pcl.training.trackers import check_trackers, log_picture, tracker_options

logger = logging.getLogger("pretrain")

OTHER_FRAMES = 4  # Of an image's video that are read for views, at most.

# What may differ between a run and its resumption.
MAY_CHANGE = {field.name for field in fields(LoggingArguments)} | {
    "fsdp",
    "max_broken_share",
    "num_workers",
    "output_dir",
}
LENGTH = {"steps", "decay_steps"}  # Neither tells what a constant rate did before the decay.


@dataclass
class Options:
    """All options, by group."""

    corpus: CorpusArguments
    model: ModelArguments
    objective: ObjectiveArguments
    views: ViewSettings
    training: TrainingArguments
    logging: LoggingArguments

    def flat(self) -> dict:
        return {name: value for group in fields(self) for name, value in asdict(getattr(self, group.name)).items()}


def parse_options(arguments: list[str] | None = None) -> Options:
    """Options of the command line, and whether the launch asks for shards."""
    groups = (CorpusArguments, ModelArguments, ObjectiveArguments, ViewSettings, TrainingArguments, LoggingArguments)
    parser = HfArgumentParser(groups, description=__doc__)
    objective = parser.parse_args_into_dataclasses(arguments, return_remaining_strings=True)[2]
    parser.set_defaults(**RECIPES[objective.recipe] | METHODS[objective.method])
    options = Options(*parser.parse_args_into_dataclasses(arguments))
    optimizer = options.training.optimizer
    if optimizer != RECIPES[objective.recipe].get("optimizer", optimizer):
        parser.set_defaults(learning_rate=ADAM_RATE)
        options = Options(*parser.parse_args_into_dataclasses(arguments))
    check_arguments(options.training, options.logging)
    options.training.fsdp |= take_request(os.environ)
    return options


def build_config(options: Options) -> PCLConfig:
    start = options.model.config or options.model.init_from
    config = (PCLConfig.from_pretrained(start) if start else PCLConfig()).scaled(options.model.width)
    changes = {name: value for name, value in asdict(options.objective).items() if name not in ("method", "recipe")}
    for name in (
        "image_size",
        "decoder_size",
        "decoder_image_size",
        "projection_size",
        "projection_hidden_size",
    ):
        changes[name] = getattr(options.model, name)
    changed = {name: value for name, value in changes.items() if value is not None}
    return PCLConfig(**(config.to_dict() | changed))


def build_model(options: Options, checkpoint: Path | None) -> PCLForPreTraining:
    training = options.training
    if checkpoint is not None:
        model = PCLForPreTraining.from_pretrained(checkpoint / "model")
    elif options.model.init_from:
        model = PCLForPreTraining.from_pretrained(options.model.init_from, config=build_config(options))
    else:
        model = PCLForPreTraining(build_config(options))
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if training.gradient_accumulation_steps > 1:
        model.images_at_once = 2 * training.batch_size
    if training.sync_batch_norm:
        synchronise_batch_norm(model)
    if training.compile:
        for part in (model.pcl, model.face_projection, model.pose_projection, model.decoder):
            part.compile()
    freeze_unused(model, [name for name, weight in model.config.objective_weights.items() if weight > 0])
    return model.to(memory_format=torch.channels_last) if training.channels_last else model


def build_accelerator(options: Options) -> Accelerator:
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


def share_out(
    accelerator: Accelerator, training: TrainingArguments, model: PCLForPreTraining, groups: list[tuple[str, ...]]
) -> torch.nn.Module:
    """Put the model on this process's device, and make it one of several where there are several processes.

    Returns:
        What to call in training, on the same parameters.
    """
    model = accelerator.prepare_model(model, evaluation_mode=True)  # Device and autocast; it would not choose the rest.
    if accelerator.num_processes == 1:
        return model
    return shard(model, training.channels_last) if training.fsdp else Replicas(model, groups)


def prepare(accelerator: Accelerator, training: TrainingArguments, model: PCLForPreTraining) -> Trained:
    optimizer = make_optimizer(
        model, training.optimizer, training.learning_rate, training.weight_decay, training.adam_learning_rate
    )
    is_stable = training.lr_scheduler_type == "warmup_stable_decay"
    scheduler = get_scheduler(
        training.lr_scheduler_type,
        optimizer,
        training.warmup_steps,
        training.steps,
        scheduler_specific_kwargs={"num_decay_steps": training.decay_steps, "decay_type": "1-sqrt"}
        if is_stable
        else None,
    )
    processor = PCLImageProcessor.for_image_size(model.config.image_size)
    return Trained(accelerator, model.train(), processor, accelerator.prepare_optimizer(optimizer), scheduler)


def trackable(options: dict) -> dict:
    """Options as the values that every tracker takes."""
    return {name: value if isinstance(value, bool | int | float) else str(value) for name, value in options.items()}


def start_trackers(run: "Pretraining"):
    if run.accelerator.is_main_process and run.accelerator.log_with:
        names = tracker_options(run.output_dir, is_new=not run.options.logging.resume)
        run.accelerator.init_trackers("modeling_pcl", trackable(run.options.flat()), names)


def find_start(options: Options, folder: CheckpointFolder, accelerator: Accelerator) -> Path | None:
    """The checkpoint to go on from; None for a new run, which does not write over an old one."""
    newest = folder.newest()
    if not options.logging.resume:
        if newest is not None:
            raise ValueError(f"{newest} exists already: give `--resume` to go on, or another `--output_dir`.")
        return None
    if newest is None:
        raise ValueError(f"{folder.folder} holds no complete checkpoint to resume from.")
    is_stable = options.training.lr_scheduler_type == "warmup_stable_decay"
    may_change = MAY_CHANGE | (LENGTH if is_stable else set())
    check_same_run(newest, options.flat(), accelerator.num_processes, may_change)
    return newest


def open_corpus(options: Options):
    arguments = options.corpus
    corpus = load_corpus(arguments.corpus, arguments.split, arguments.streaming, arguments.corpus_revision)
    return corpus if arguments.subjects is None else select_subjects(corpus, arguments.subjects)


def open_loader(options: Options, corpus, model: PCLForPreTraining, accelerator: Accelerator, position: dict | None):
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


class Pretraining:
    """A run: the parts that `train_step` and the loop around it use."""

    def __init__(self, options: Options):
        self.options = options
        self.accelerator = build_accelerator(options)
        self.output_dir = Path(options.training.output_dir)
        self.folder = CheckpointFolder(self.output_dir / "checkpoints", options.logging.save_total_limit)
        if self.accelerator.is_main_process:
            self.folder.clean()
        self.accelerator.wait_for_everyone()
        checkpoint = find_start(options, self.folder, self.accelerator)
        corpus = open_corpus(options)
        self.data_revision = corpus_revision(corpus)
        set_seed(options.training.seed)
        self.model = build_model(options, checkpoint)
        self.objectives = tuple(name for name, weight in self.model.config.objective_weights.items() if weight > 0)
        if not self.objectives:
            raise ValueError("Every objective's weight is 0: there is nothing to train.")
        is_joint = options.training.schedule == "joint"
        groups = [self.objectives] if is_joint else [(name,) for name in self.objectives]
        called = share_out(self.accelerator, options.training, self.model, groups)
        self.trained = prepare(self.accelerator, options.training, self.model)
        self.state, position = self.trained.load(checkpoint) if checkpoint else (RunState(), None)
        if options.training.keep_zero_gradients:
            give_zero_gradients(self.model)
        self.loader = open_loader(options, corpus, self.model, self.accelerator, position)
        self.steps_per_epoch = steps_per_epoch(options, self.loader)
        images_per_epoch = (self.loader.batches_per_epoch or 0) * options.training.batch_size
        self.broken = BrokenFiles(options.corpus.max_broken_share, images_per_epoch or None)
        self.views = ViewMaker(
            options.views,
            self.model.config.image_size,
            options.training.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        self.stepper = Stepper(
            self.accelerator,
            called,
            self.trained.optimizer,
            groups,
            options.training.keep_zero_gradients,
            options.training.max_grad_norm,
        )

    def objective_weights(self) -> dict[str, float]:
        weights = dict(self.model.config.objective_weights)
        if self.options.training.dynamic_weight_averaging:
            for name, factor in self.state.weight_average.weights().items():
                weights[name] *= factor
        return weights

    def read_batches(self, batches: Iterator[Batch]) -> list[Batch]:
        """The next iteration's micro-batches, their images on the device."""
        device, read = self.accelerator.device, []
        for _ in range(self.options.training.gradient_accumulation_steps):
            batch = next(batches)
            self.broken.add(batch)
            frames = batch.frames
            if frames is not None:
                frames = replace(frames, images=frames.images.to(device, non_blocking=True))
            read.append(replace(batch, images=batch.images.to(device, non_blocking=True), frames=frames))
        return read

    def save_checkpoint(self) -> Path | None:
        check_finite_weights(self.model, self.state.step)
        return self.trained.save(self.folder, self.state, self.loader.position(), self.options.flat())


def train_step(run: Pretraining, batches: list[Batch]) -> dict[str, torch.Tensor]:
    """One iteration: every objective's optimizer steps on views of the same images."""
    step = run.state.step

    def make_inputs(objective: str, index: int | None) -> dict[str, torch.Tensor]:
        batch = join(batches) if index is None else batches[index]
        return getattr(run.views, objective)(batch.images, step * len(batches) + (index or 0), batch.frames)

    terms = run.stepper.step(make_inputs, run.objective_weights(), len(batches))
    run.trained.scheduler.step()
    run.state.add(terms, run.steps_per_epoch, run.accelerator)
    return terms


def join(batches: list[Batch]) -> Batch:
    """Micro-batches as one."""
    if len(batches) == 1:
        return batches[0]
    frames = [batch.frames for batch in batches if batch.frames is not None]
    joined = VideoFrames.joined(frames, len(batches[0].images)) if frames else None
    return replace(batches[0], images=torch.cat([batch.images for batch in batches]), frames=joined)


def train(run: Pretraining):
    """The loop: read, step, and every so often log, draw and save."""
    logging_options, steps = run.options.logging, run.options.training.steps
    images_per_step = run.options.training.batch_size * run.options.training.gradient_accumulation_steps
    monitor = Monitor(run.accelerator, steps, run.state.step, images_per_step * run.accelerator.num_processes)
    batches = iter(run.loader)

    def is_due(interval: int) -> bool:
        return (interval > 0 and run.state.step % interval == 0) or run.state.step == steps

    while run.state.step < steps:
        read = run.read_batches(batches)
        terms = train_step(run, read)
        monitor.add(run.state.step, terms)
        saves = is_due(logging_options.save_steps)
        if saves or is_due(logging_options.logging_steps):
            monitor.flush(run.trained.scheduler.get_last_lr()[0])
        if logging_options.picture_steps > 0 and is_due(logging_options.picture_steps):
            draw_picture(run, read[0].images[:8])
        if saves:
            run.save_checkpoint()
    monitor.bar.close()


def draw_picture(run: Pretraining, images: torch.Tensor):
    """Save and track what the decoder makes of some of the last images."""
    if "disentangling" not in run.objectives:
        return
    noiseless = run.views.disentangling(images, run.state.step)["pixel_values"]
    rows = reconstruction_rows(run.model, noiseless)  # In every process, since each may hold a part of the weights.
    if not run.accelerator.is_main_process:
        return
    picture = draw_rows(rows, title=f"step {run.state.step}")
    folder = run.output_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"step-{run.state.step:08d}.png")
    for tracker in run.accelerator.trackers:
        log_picture(tracker, "reconstructions", picture, run.state.step)


def write_result(run: Pretraining, record: dict):
    """The finished model, its image processor and `run.json`, in the output folder."""
    model = whole_model(run.model)
    if model is None:
        return
    model.save_pretrained(run.output_dir)
    run.trained.processor.save_pretrained(run.output_dir)
    record["finished"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record["images_seen"] = run.state.step * record["images_per_step"]
    record["broken_files"] = run.broken.count
    write_record(run.output_dir, record)
    logger.info("The model is in %s", run.output_dir)


def run_to_end(options: Options):
    run = Pretraining(options)
    training = options.training
    record = describe_run(options.flat(), run.data_revision) | {
        "processes": run.accelerator.num_processes,
        "parameters": run.model.num_parameters(),
        "resumed_from_step": run.state.step,
        "steps_per_epoch": run.steps_per_epoch,
        "images_per_step": training.batch_size * training.gradient_accumulation_steps * run.accelerator.num_processes,
    }
    if run.accelerator.is_main_process:
        run.output_dir.mkdir(parents=True, exist_ok=True)
        write_record(run.output_dir, record)
    start_trackers(run)
    try:
        train(run)
        write_result(run, record)  # Before the end of training, with which the processes part.
        # Gloo's threads outlive a group that sharded tensors refer to: one that still held a gathered tensor when the
        # interpreter ended would abort the process.
        run.accelerator.wait_for_everyone()
    except FloatingPointError as error:
        raise ValueError(
            f"{error}. The last good checkpoint is {run.folder.newest()}; a lower `--learning_rate`, `--max_grad_norm` "
            "or `--mixed_precision no` may help."
        ) from error
    finally:
        run.accelerator.end_training()
    if run.accelerator.is_main_process and options.logging.push_to_hub:
        push_result(run.output_dir, options.logging.hub_model_id, options.logging.hub_private)


def push_result(folder: Path, repo_id: str, private: bool):
    """As `push_to_hub.py` does, without ONNX.

    Raises:
        ValueError: If it failed; the message says how to try again.
    """
    try:
        logger.info(push(HfApi(), folder, repo_id, PushArguments(onnx=False, private=private)))
    except (ValueError, OSError) as error:
        way_out = f"The model is safe in {folder}; `python scripts/push_to_hub.py {folder} {repo_id}` sends it."
        raise ValueError(f"{error}\n{way_out}") from error


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    disable_progress_bar()  # transformers' own, for every file it writes; the run has one of its own.
    try:
        options = parse_options()
        with logging_redirect_tqdm():
            run_to_end(options)
    except (ValueError, OSError, StrictDataclassError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
