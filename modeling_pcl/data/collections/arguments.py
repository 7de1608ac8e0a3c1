"""The options of preparing a corpus."""

import glob
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub.utils import validate_repo_id

from ...options import check_at_least, option, positional, required

MAX_PIXELS = 64_000_000  # As of `images_pcl`, which takes long to import.
# What these options say has no effect on the corpus itself.
WITHOUT_EFFECT = {"layout", "input_dir", "output_dir", "num_proc", "show", "push_to_hub", "public"}


@dataclass
class PreparationArguments:
    """What to make of the collection."""

    layout: str = positional("How the collection is laid out, as described below.", "LAYOUT")
    input_dir: Path = positional("The collection's folder, unpacked.", "INPUT_DIR", type=Path)
    output_dir: Path = required("Folder of the corpus; made.")
    split: str = option(
        "official",
        "`official`: the collection's own splits, or all `train`; `train=0.8,validation=0.1,test=0.1`: splits of your "
        "own, disjoint by subject where subjects are known, else stratified by label.",
    )
    size: int | None = option(None, "Largest shorter side in px; larger images are made smaller.")
    crop: str = option(
        "none",
        "`none`; `box`, the square around the face where the collection knows it; `centre:F`, the central square with "
        "F of the shorter side, in (0, 1].",
    )
    num_proc: int | None = option(None, "Processes that work side by side; by default one a CPU.")
    folder_is: Literal["subject", "expression"] = option("subject", "What a folder's name is in the layout `folders`.")
    drop_duplicates: bool = option(False, "Keep one copy of images that are equal byte for byte; test sets stay whole.")
    shuffle: bool = option(False, "Mix the rows of each split, which streams are the better for.")
    pairs: int = option(0, "Verification pairs to make from each split, half of them of the same person.")
    folds: int = option(10, "Folds of these pairs; no person is in two.")
    seed: int = option(0, "Of splits, pairs and order.")
    rows_per_file: int = option(1000, "Rows of a parquet file; a stream is split over machines by its files.")
    max_pixels: int = option(MAX_PIXELS, "Images of more pixels are left out.")
    show: bool = option(False, "Draw samples with their labels, and the labels' histograms: OUTPUT_DIR/show.png.")
    push_to_hub: str | None = option(None, "Upload the corpus to this dataset repository, `user/name`.")
    public: bool = option(False, "Make a new repository public. Faces are personal data: only with the right to.")

    def __post_init__(self):
        if not self.input_dir.is_dir():
            raise ValueError(f"INPUT_DIR {self.input_dir} is not a folder; unpack archives first.")
        if self.output_dir.resolve().is_relative_to(self.input_dir.resolve()):
            raise ValueError(f"`--output_dir` {self.output_dir} lies in INPUT_DIR: choose a folder outside of it.")
        if glob.has_magic(str(self.output_dir.resolve())):
            raise ValueError(f"`--output_dir` {self.output_dir} has *, ? or [ in it: `datasets` would not open it.")
        if self.push_to_hub:
            validate_repo_id(self.push_to_hub)
        check_at_least(self, num_proc=1, rows_per_file=1, folds=1)
        if self.folder_is != "subject" and self.layout != "folders":
            raise ValueError(f"`--folder_is` is for the layout folders, not {self.layout}.")

    def recorded(self) -> dict:
        """The options that make the corpus what it is."""
        chosen = {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}
        return {"layout": self.layout} | chosen
