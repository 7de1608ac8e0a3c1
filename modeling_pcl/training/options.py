"""All options of a pre-training run, and their parsing from the command line."""

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

# Options that may differ when a run is resumed.
MAY_CHANGE = {field.name for field in fields(LoggingArguments)} | {
    "fsdp",
    "max_broken_share",
    "num_workers",
    "output_dir",
}
LENGTH = {"steps", "decay_steps"}  # They do not affect the iterations at a constant rate before the decay.


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
        """Return all options by name, JSON-serialisable."""
        return {name: value for group in fields(self) for name, value in asdict(getattr(self, group.name)).items()}

    @property
    def may_change(self) -> set[str]:
        """Names of the options that may differ when this run is resumed."""
        return MAY_CHANGE | (LENGTH if self.training.lr_scheduler_type == "warmup_stable_decay" else set())


def parse_options(argv: list[str], prog: str | None = None, description: str | None = None) -> Options:
    """Parse a command line. A recipe and a method change defaults; other options take precedence over them.

    Args:
        argv: Arguments of the command line.
        prog: The command as the user types it, for the help.
        description: Description of the command, for the help.

    Raises:
        ValueError: If an option is out of range.
    """
    parser = Parser(*(group.type for group in fields(Options)), prog=prog, description=description)
    # Parsed twice: first to learn the recipe and the method, then with their defaults. A third time if another
    # optimizer than the recipe's is given, whose learning rate and decay are for that optimizer only.
    _, model, objective, _, training, _ = parser.parse_args_into_dataclasses(argv)
    defaults = RECIPES[objective.recipe] | METHODS[objective.method]
    # The warm-up of a recipe must fit into a run of a few steps too, with which one tries it.
    defaults["warmup_steps"] = min(defaults.get("warmup_steps", 0), training.steps // 2)
    if model.init_from:  # Its sizes stay: a decoder of another size would begin at random.
        defaults = {name: value for name, value in defaults.items() if name not in asdict(model)}
    parser.set_defaults(**defaults)
    options = Options(*parser.parse_args_into_dataclasses(argv))
    optimizer = options.training.optimizer
    if optimizer != RECIPES[objective.recipe].get("optimizer", optimizer):
        parser.set_defaults(**OF_ADAM)
        options = Options(*parser.parse_args_into_dataclasses(argv))
    if options.training.mixed_precision is None:
        from ..precision import choose_precision  # Imports torch, which `--help` and wrong usage do not need.

        options.training.mixed_precision = choose_precision()
    check_arguments(options.corpus, options.model, options.training, options.logging)
    return options
