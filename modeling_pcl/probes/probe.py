"""One probe, whatever its task."""

from .arguments import DisentanglementArguments, HeadArguments, ProbeArguments, VerificationArguments
from .disentanglement_probe import run_disentanglement_probe
from .head_probe import run_head_probe
from .verification_probe import run_verification_probe

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
    return next(run for kind, run in RUNS.items() if isinstance(arguments, kind))(arguments)
