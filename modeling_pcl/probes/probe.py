"""Run a probe of any task."""

from dataclasses import asdict
from pathlib import Path

from ..files import write_json
from ..hub.models import model_digest
from ..training.record import describe_run
from .arguments import DisentanglementArguments, HeadArguments, ProbeArguments, VerificationArguments
from .disentanglement import run_disentanglement_probe
from .encoder import Encoder
from .head_probe import run_head_probe
from .verification_probe import run_verification_probe

# Each function takes options, encoder and output folder, writes files and pictures, and returns the facts for
# results.json and a table of the results.
RUNS = {
    HeadArguments: run_head_probe,
    VerificationArguments: run_verification_probe,
    DisentanglementArguments: run_disentanglement_probe,
}


def run_probe(arguments: ProbeArguments) -> str:
    """Probe an encoder, and write results, head, predictions and pictures to `output_dir`.

    Args:
        arguments: Options, of the class that `arguments.TASKS` has for the task.

    Returns:
        A table of the results.

    Raises:
        ValueError, OSError: If an option, a corpus or the model is invalid or cannot be opened.
    """
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)  # A failed probe must not leave the results of an earlier one.
    is_finetuned = getattr(arguments, "finetune", False)  # Then `--batch_size` is that of training, not of encoding.
    encoder = Encoder(arguments.model, arguments.cache_dir, None if is_finetuned else arguments.batch_size)
    run = next(run for kind, run in RUNS.items() if isinstance(arguments, kind))
    facts, table = run(arguments, encoder, folder)
    record = describe_run(asdict(arguments), model_digest(encoder.model))
    record["model_revision"] = record.pop("data_revision")
    config = encoder.model.config
    heading = {"task": arguments.task, "model": encoder.name}
    heading |= {name: getattr(config, name) for name in ("hidden_sizes", "feature_channels", "mirror_invariant_face")}
    write_json(folder / "results.json", heading | facts | record)
    return table
