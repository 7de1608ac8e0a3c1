"""One probe, whatever its task."""

from dataclasses import asdict
from pathlib import Path

from ..files import write_json
from ..training.record import describe_run
from .arguments import DisentanglementArguments, HeadArguments, ProbeArguments, VerificationArguments
from .disentanglement import run_disentanglement_probe
from .encoder import Encoder
from .head_probe import run_head_probe
from .verification_probe import run_verification_probe

# From options, model and folder to what results.json says of the results, and a table; pictures and files are written.
RUNS = {
    HeadArguments: run_head_probe,
    VerificationArguments: run_verification_probe,
    DisentanglementArguments: run_disentanglement_probe,
}


def probe(arguments: ProbeArguments) -> str:
    """Measure what an encoder knows.

    Args:
        arguments: Of the task's class in `arguments.TASKS`.

    Returns:
        A table of the results; all that remains is in `output_dir`.

    Raises:
        ValueError, OSError: If an option, a corpus or the model is not as it must be.
    """
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)  # Of an earlier probe.
    is_finetuned = getattr(arguments, "finetune", False)  # Then the batches are those of training.
    encoder = Encoder(arguments.model, arguments.cache_dir, None if is_finetuned else arguments.batch_size)
    run = next(run for kind, run in RUNS.items() if isinstance(arguments, kind))
    facts, table = run(arguments, encoder, folder)
    record = describe_run(asdict(arguments), encoder.digest)
    record["model_revision"] = record.pop("data_revision")
    config = encoder.model.config
    heading = {"task": arguments.task, "model": encoder.name}
    heading |= {"hidden_sizes": config.hidden_sizes, "feature_channels": config.feature_channels}
    write_json(folder / "results.json", heading | facts | record)
    return table
