"""Options of the recipe search: the corpora of its scores, and one class for each of its commands."""

from dataclasses import dataclass

from ..configuration_pcl import SMALLEST_PX
from ..features_pcl import READABLE_FEATURES
from ..options import check_at_least, option, positional


@dataclass
class ScoreCorpora:
    """Labelled corpora on which quick scores are measured."""

    expressions_train: str = option(
        "", "Corpus of expressions for training, with `label`, such as the split Training of FER2013."
    )
    expressions_validation: str = option(
        "", "Corpus of expressions for validation, such as the split PublicTest of FER2013."
    )
    identities: str = option(
        "", "Corpus of people with several images each, with `identity` or `subject`, such as CelebA."
    )
    head_pose: str = option(
        "", "Corpus with `yaw`, `pitch`, `roll` and `smile`, such as GENKI-4K; a fifth is used for testing."
    )
    portraits: str = option("", "Corpus with `age` and `gender`, such as UTKFace; a sixth is used for testing.")


@dataclass
class ScoreArguments(ScoreCorpora):
    """Options of all commands of the recipe search."""

    output: str = option("scores.csv", "CSV file to which scores are appended.")
    sides: list[int] = option([64, 100], "Image sides at which models are scored, in px.")
    features: list[str] = option(list(READABLE_FEATURES), "Features to score.")

    def __post_init__(self):
        if not self.sides or min(self.sides) < SMALLEST_PX:
            raise ValueError(f"`--sides` must be at least {SMALLEST_PX} px each, got {self.sides}.")
        if not self.features or not set(self.features) <= set(READABLE_FEATURES):
            raise ValueError(f"`--features` must be some of {', '.join(READABLE_FEATURES)}, got {self.features}.")


@dataclass
class SearchArguments(ScoreArguments):
    """Train variants that were not trained yet, and score those that were not scored yet."""

    output: str = option("hub_cards/recipe_search.csv", "CSV file to which scores are appended.")
    corpus: str = option("", "Training corpus, as for `pcl pretrain`.")
    variants: str = option(
        "scripts/recipe_search.txt",
        "File of lines `name: options` with options of `pcl pretrain`. Options may begin with the name of an earlier "
        "line, which stands for its options. The options of `all` come first in every variant. `#` begins a comment.",
    )
    runs_dir: str = option("runs/recipe_search", "Folder for the runs, one per variant. Finished runs are only scored.")
    jobs: int = option(1, "Number of variants to train at a time, each in one thread.")

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, jobs=1)


@dataclass
class ScoreModelsArguments(ScoreArguments):
    """Score models."""

    models: list[str] = positional("Folders, or random:SEED:WIDTH.", "MODEL", nargs="+")


@dataclass
class FollowArguments(ScoreArguments):
    """Score the newest checkpoint of a run at regular intervals."""

    run: str = positional("Folder of the run.", "RUN")
    output: str = option("", "CSV file to which scores are appended; by default scores.csv in the folder of the run.")
    every_min: float = option(60.0, "Interval between checks for a new checkpoint, in minutes.")
    once: bool = option(False, "Check once, then exit.")

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, every_min=0)


@dataclass
class TableArguments:
    """Show the variants of a table side by side, averaged over their seeds."""

    table: str = positional("Table that `pcl search run` wrote. The chart is saved beside it.", "TABLE")
