"""Options of `pcl prepare`."""

import glob
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub.utils import validate_repo_id

from ...options import check_at_least, option, positional, required

MAX_PIXELS = 64_000_000  # Equal to `images_pcl.MAX_PIXELS`, which is not imported because that takes long.
# Options that do not change the corpus itself.
WITHOUT_EFFECT = {"layout", "input_dir", "output_dir", "num_proc", "show", "push_to_hub", "public"}


@dataclass
class PreparationArguments:
    """The collection, and how it is converted to a corpus."""

    layout: str = positional("Layout of the collection, as described below.", "LAYOUT")
    input_dir: Path = positional("Folder of the collection, unpacked.", "INPUT_DIR", type=Path)
    output_dir: Path = required("Folder for the corpus; created if it does not exist.")
    split: str = option(
        "official",
        "`official`: the splits of the collection, or only `train`; `train=0.8,validation=0.1,test=0.1`: new splits, "
        "disjoint by subject if subjects are known, otherwise stratified by label.",
    )
    size: int | None = option(None, "Largest shorter side in px; larger images are resized.")
    crop: str = option(
        "none",
        "`none`; `box`: the square around the face, if the collection has boxes; `centre:F`: the central square, F of "
        "the shorter side, in (0, 1].",
    )
    num_proc: int | None = option(None, "Number of worker processes; by default one per CPU.")
    folder_is: Literal["subject", "expression"] = option("subject", "What folder names are in the layout `folders`.")
    drop_duplicates: bool = option(False, "Keep only one copy of identical files; test sets stay complete.")
    shuffle: bool = option(False, "Shuffle the rows of each split, which improves the mixing of streams.")
    pairs: int = option(0, "Number of verification pairs to make from each split, half of them of the same person.")
    folds: int = option(10, "Number of folds of these pairs; no person is in two folds.")
    seed: int = option(0, "Seed of splits, pairs and order.")
    rows_per_file: int = option(1000, "Rows per parquet file; the readers of a stream share its files.")
    max_pixels: int = option(MAX_PIXELS, "Images with more pixels are left out.")
    show: bool = option(False, "Draw samples with labels, and histograms of the labels, in OUTPUT_DIR/show.png.")
    push_to_hub: str | None = option(None, "Upload the corpus to this dataset repository, `user/name`.")
    public: bool = option(False, "Make a new repository public. Faces are personal data: only do it if you may.")

    def __post_init__(self):
        if not self.input_dir.is_dir():
            raise ValueError(f"INPUT_DIR {self.input_dir} is not a folder; unpack archives first.")
        if self.output_dir.resolve().is_relative_to(self.input_dir.resolve()):
            raise ValueError(f"`--output_dir` {self.output_dir} lies in INPUT_DIR: choose a folder outside of it.")
        if glob.has_magic(str(self.output_dir.resolve())):
            raise ValueError(f"`--output_dir` {self.output_dir} contains *, ? or [: `datasets` would not open it.")
        if self.push_to_hub:
            validate_repo_id(self.push_to_hub)
        check_at_least(self, num_proc=1, rows_per_file=1, folds=1)
        if self.folder_is != "subject" and self.layout != "folders":
            raise ValueError(f"`--folder_is` is for the layout folders, not {self.layout}.")

    def recorded(self) -> dict:
        """Return the options that determine the content of the corpus."""
        options = {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}
        return {"layout": self.layout} | options
