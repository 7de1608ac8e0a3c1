"""All options of a pre-training run, from the words of a command line."""

from dataclasses import asdict, dataclass, fields

from ..data.view_settings import ViewSettings
from ..options import Parser
from .arguments import (
    CorpusArguments,
    LoggingArguments,
    ModelArguments,
    ObjectiveArguments,
    TrainingArguments,
    check_arguments,
)
from .recipes import METHODS, OF_ADAM, RECIPES

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
        """Every option by name, JSON-serialisable."""
        return {name: value for group in fields(self) for name, value in asdict(getattr(self, group.name)).items()}

    @property
    def may_change(self) -> set[str]:
        """Options that a resumed run may have otherwise."""
        return MAY_CHANGE | (LENGTH if self.training.lr_scheduler_type == "warmup_stable_decay" else set())


def parse_options(words: list[str], prog: str | None = None, description: str | None = None) -> Options:
    """Parse a command line: a recipe and a method change defaults, and options beside them hold.

    Args:
        words: Options and values, as they are typed.
        prog: The command as it is typed, for its help.
        description: Likewise.

    Raises:
        ValueError: If a value is one that no run can have.
    """
    parser = Parser(*(group.type for group in fields(Options)), prog=prog, description=description)
    objective = parser.parse_args_into_dataclasses(words)[2]
    parser.set_defaults(**RECIPES[objective.recipe] | METHODS[objective.method])
    options = Options(*parser.parse_args_into_dataclasses(words))
    optimizer = options.training.optimizer
    if optimizer != RECIPES[objective.recipe].get("optimizer", optimizer):
        parser.set_defaults(**OF_ADAM)
        options = Options(*parser.parse_args_into_dataclasses(words))
    check_arguments(options.training, options.logging)
    return options
