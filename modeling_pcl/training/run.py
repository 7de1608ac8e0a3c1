"""A pre-training run: its set-up, one iteration, the training loop, and the files that it writes."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors import SafetensorError

from ..data.broken_images import BrokenImageCounter
from ..data.corpora import corpus_revision
from ..data.loading import Batch
from ..data.views import VideoFrames, ViewMaker
from ..files import only_process, write_json
from ..pictures.faces import draw_face_rows, reconstruct_rows
from .checkpoints import CheckpointFolder
from .monitor import Monitor, check_finite_weights
from .options import Options
from .processes import StopRequest, decide_for_all
from .record import describe_run
from .setup import (
    build_accelerator,
    build_model,
    compute_steps_per_epoch,
    distribute_model,
    find_checkpoint,
    make_training_state,
    open_corpus,
    open_loader,
)
from .sharding import gather_model
from .state import RunState
from .steps import Stepper, compute_dynamic_weights, give_zero_gradients
from .trackers import build_tracker_options, log_picture

logger = logging.getLogger(__name__)


class Pretraining:
    """The parts of a run, which `train_step` and the training loop use.

    Args:
        options: Options of the run.
        accelerator: Result of `build_accelerator`; None calls it.
    """

    def __init__(self, options: Options, accelerator: Accelerator | None = None):
        self.options = options
        self.accelerator = accelerator or build_accelerator(options)
        self.output_dir = Path(options.training.output_dir)
        self.folder = CheckpointFolder(self.output_dir / "checkpoints", options.logging.save_total_limit)
        checkpoint = find_checkpoint(options, self.folder, self.accelerator)
        corpus = open_corpus(options)
        self.data_revision = corpus_revision(corpus)
        # After the corpus is opened, which may draw random numbers, so that the initial weights do not depend on it.
        set_seed(options.training.seed)
        self.model = build_model(options, checkpoint)
        self.objectives = tuple(name for name, weight in self.model.config.objective_weights.items() if weight > 0)
        if not self.objectives:
            raise ValueError("Every objective's weight is 0: there is nothing to train.")
        is_joint = options.training.schedule == "joint"
        groups = [self.objectives] if is_joint else [(name,) for name in self.objectives]
        trained_model = distribute_model(self.accelerator, options.training, self.model, groups)
        # After `distribute_model`: FSDP replaces the parameters, and the optimizer must hold the new ones.
        self.trained = make_training_state(self.accelerator, options, self.model)
        self.state, position = self.trained.load(checkpoint) if checkpoint else (RunState(), None)
        if options.training.keep_zero_gradients:
            give_zero_gradients(self.model)
        self.loader = open_loader(options, corpus, self.model, self.accelerator, position)
        self.steps_per_epoch = compute_steps_per_epoch(options, self.loader)
        images_per_epoch = (self.loader.batches_per_epoch or 0) * options.training.batch_size
        self.broken = BrokenImageCounter(options.corpus.max_broken_share, images_per_epoch or None)
        self.views = ViewMaker(
            options.views,
            self.model.config.image_size,
            options.training.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        self.stepper = Stepper(
            self.accelerator,
            trained_model,
            self.trained.optimizer,
            groups,
            options.training.keep_zero_gradients,
            options.training.max_grad_norm,
        )

    def compute_objective_weights(self) -> dict[str, float]:
        """Compute the current weights of the objectives, with the factors of dynamic weight averaging."""
        weights = dict(self.model.config.objective_weights)
        if self.options.training.dynamic_weight_averaging:
            for name, factor in compute_dynamic_weights(self.state.loss_history).items():
                weights[name] *= factor
        return weights

    def read_batches(self, batches: Iterator[Batch]) -> list[Batch]:
        """Read the micro-batches of the next iteration, and move their images to the device."""
        device, micro_batches = self.accelerator.device, []
        for _ in range(self.options.training.gradient_accumulation_steps):
            batch = next(batches)
            self.broken.add(batch.attempted, batch.broken)
            frames = batch.frames
            if frames is not None:
                frames = replace(frames, images=frames.images.to(device, non_blocking=True))
            micro_batches.append(replace(batch, images=batch.images.to(device, non_blocking=True), frames=frames))
        return micro_batches

    def save_checkpoint(self) -> Path | None:
        """Write a checkpoint; all processes must call this. Returns its path in the main process.

        Raises:
            FloatingPointError: If weights are not finite.
            OSError: If the checkpoint cannot be written. The message says how to go on.
        """
        check_finite_weights(self.model, self.state.step)
        try:
            return self.trained.save(self.folder, self.state, self.loader.position(), self.options.flat())
        except (OSError, SafetensorError) as error:
            self.folder.clean()  # The partial checkpoint must not use up a full disk.
            newest = self.folder.newest() or "step 0"
            raise OSError(
                f"The checkpoint of step {self.state.step} cannot be written: {error}. When there is space in "
                f"{self.folder.folder}, the same command with `--resume` goes on from {newest}."
            ) from error


def train_step(run: Pretraining, batches: list[Batch]) -> dict[str, torch.Tensor]:
    """Train one iteration: the optimizer steps of all objectives, on views of the same images.

    Args:
        run: The run.
        batches: Micro-batches, see `Pretraining.read_batches`.

    Returns:
        All losses by name, unweighted, detached, on the device.
    """
    step = run.state.step

    def make_inputs(objective: str, index: int | None) -> dict[str, torch.Tensor]:
        batch = concatenate_batches(batches) if index is None else batches[index]
        # Views are a function of seed, step and process, so that a resumed run makes the same ones.
        return getattr(run.views, objective)(batch.images, step * len(batches) + (index or 0), batch.frames)

    terms = run.stepper.step(make_inputs, run.compute_objective_weights(), len(batches))
    run.trained.scheduler.step()
    run.state.add(terms, run.steps_per_epoch, run.accelerator)
    return terms


def concatenate_batches(batches: list[Batch]) -> Batch:
    """Concatenate micro-batches to one batch."""
    if len(batches) == 1:
        return batches[0]
    frames = [batch.frames for batch in batches if batch.frames is not None]
    all_frames = VideoFrames.join(frames, len(batches[0].images)) if frames else None
    return replace(batches[0], images=torch.cat([batch.images for batch in batches]), frames=all_frames)


def train(run: Pretraining, stop: StopRequest):
    """Run the training loop, with logs, pictures and checkpoints, until the last step or a stop request.

    A checkpoint is saved before the loop ends.
    """
    logging_options, steps = run.options.logging, run.options.training.steps
    images_per_step = run.options.training.batch_size * run.options.training.gradient_accumulation_steps
    monitor = Monitor(run.accelerator, steps, run.state.step, images_per_step * run.accelerator.num_processes)
    batches = iter(run.loader)

    def is_due(interval: int) -> bool:
        return (interval > 0 and run.state.step % interval == 0) or run.state.step == steps

    while run.state.step < steps and not stop.number:
        micro_batches = run.read_batches(batches)
        terms = train_step(run, micro_batches)
        monitor.add(run.state.step, terms)
        is_save_due = stop.is_made() or is_due(logging_options.save_steps)
        # Also before a checkpoint, because `flush` raises if a loss is not finite.
        if is_save_due or is_due(logging_options.logging_steps):
            monitor.flush(run.trained.scheduler.get_last_lr()[0])
        if logging_options.picture_steps > 0 and is_due(logging_options.picture_steps):
            save_picture(run, micro_batches[0].images[:8])
        if is_save_due:
            run.save_checkpoint()
    monitor.bar.close()


def save_picture(run: Pretraining, images: torch.Tensor):
    """Draw reconstructions of some images of the last batch, save the picture, and send it to the trackers."""
    if "disentangling" not in run.objectives:
        return
    # The same views as in training, without noise, so that the picture shows what the loss measures.
    noiseless = run.views.disentangling(images, run.state.step)["pixel_values"]
    rows = reconstruct_rows(run.model, noiseless)  # In all processes, because each may hold a part of the weights.
    if not run.accelerator.is_main_process:
        return
    picture = draw_face_rows(rows, title=f"step {run.state.step}")
    folder = run.output_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"step-{run.state.step:08d}.png")
    for tracker in run.accelerator.trackers:
        log_picture(tracker, "reconstructions", picture, run.state.step)


def write_result(run: Pretraining, record: dict):
    """Write the model, its image processor and `run.json` to the output folder. All processes must call this."""
    model = gather_model(run.model)
    if model is None:
        return
    model.save_pretrained(run.output_dir)
    run.trained.processor.save_pretrained(run.output_dir)
    record["finished"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record["images_seen"] = run.state.step * record["images_per_step"]
    record["broken_files"] = run.broken.count
    write_json(run.output_dir / "run.json", record)
    logger.info("The model is in %s", run.output_dir)


def start_trackers(run: Pretraining):
    """Start the trackers of the main process."""
    if run.accelerator.is_main_process and run.accelerator.log_with:
        tracker_options = build_tracker_options(run.output_dir, is_new=not run.options.logging.resume)
        # Numbers and text are the only types of values that every tracker accepts.
        values = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in run.options.flat().items()
        }
        run.accelerator.init_trackers("modeling_pcl", values, tracker_options)


def pretrain(options: Options) -> bool:
    """Train a model to the end, and write it to the output folder.

    Returns:
        Whether this is the main process, which has written the model.

    Raises:
        ValueError, OSError: If an option, the corpus or a checkpoint is not valid, another process writes to the output
            folder, a loss is not finite, or the disk is full.
        KeyboardInterrupt: If SIGTERM or SIGINT stopped the run, with the number of the signal and a message.
    """
    accelerator = build_accelerator(options)
    with ExitStack() as stack:
        # Locked before `find_checkpoint` cleans the folder: another process may be writing what looks left over.
        lock = only_process(Path(options.training.output_dir))
        decide_for_all(accelerator, lambda: stack.enter_context(lock))
        return _pretrain(Pretraining(options, accelerator))


def _pretrain(run: Pretraining) -> bool:
    options = run.options
    training = options.training
    record = describe_run(options.flat(), run.data_revision) | {
        "processes": run.accelerator.num_processes,
        "parameters": run.model.num_parameters(),
        "resumed_from_step": run.state.step,
        "steps_per_epoch": run.steps_per_epoch,
        "images_per_step": training.batch_size * training.gradient_accumulation_steps * run.accelerator.num_processes,
    }
    if run.accelerator.is_main_process:
        write_json(run.output_dir / "run.json", record)
    start_trackers(run)
    try:
        with StopRequest(run.accelerator) as stop:
            train(run, stop)
            if run.state.step < training.steps:
                message = f"stopped at step {run.state.step}, which is saved; the same command with `--resume` goes on"
                raise KeyboardInterrupt(stop.number, message if run.accelerator.is_main_process else "")
            write_result(run, record)  # Before `end_training`, which destroys the process group.
            # The threads of gloo outlive a group that sharded tensors refer to. A thread that still holds a gathered
            # tensor when the interpreter ends would abort the process.
            run.accelerator.wait_for_everyone()
    except FloatingPointError as error:
        raise ValueError(
            f"{error}. The last good checkpoint is {run.folder.newest()}; a lower `--learning_rate`, `--max_grad_norm` "
            "or `--mixed_precision no` may help."
        ) from error
    finally:
        run.accelerator.end_training()
    return run.accelerator.is_main_process
