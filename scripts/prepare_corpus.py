"""Turn a collection of faces, as it was downloaded, into a corpus that training and probes open:

python scripts/prepare_corpus.py genki4k downloads/genki4k corpora/genki4k --show

LAYOUT says how the collection is laid out, as described below. OUTPUT_DIR gets parquet files with the images' own
bytes, a dataset card, and report.json, which names every broken row, copy and subject in several splits. The same
command goes on after it was stopped. `--pairs 6000` makes verification pairs for a collection with identities; they
open as `OUTPUT_DIR:pairs`.
"""

import argparse
import glob
import inspect
import logging
import os
import re
import textwrap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from datasets import Features, concatenate_datasets
from huggingface_hub.utils import validate_repo_id
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import HfArgumentParser

from modeling_pcl.data.contact_sheet import draw_corpus, draw_pairs
from modeling_pcl.data.corpora import load_corpus, load_pairs
from modeling_pcl.data.layouts import LAYOUTS, Collection
from modeling_pcl.data.pose_picture import draw_pose_convention
from modeling_pcl.data.preparation import ROWS_PER_PART, prepare_corpus
from modeling_pcl.data.raw_images import MAX_PIXELS, Treatment
from modeling_pcl.data.regrouping import add_pairs, shuffle, split_again
from modeling_pcl.data.schema import describe_columns
from modeling_pcl.hub.corpus_card import corpus_card
from modeling_pcl.hub.upload import upload_corpus

logger = logging.getLogger("prepare_corpus")

CARD = (Path(__file__).parents[1] / "hub_cards" / "corpus.md").read_text(encoding="utf-8")


def option(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass
class PreparationArguments:
    """What to make of the collection."""

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
    rows_per_file: int = option(ROWS_PER_PART, "Rows of a parquet file; a stream is split over machines by its files.")
    max_pixels: int = option(MAX_PIXELS, "Images of more pixels are left out.")
    show: bool = option(False, "Draw samples with their labels, and the labels' histograms: OUTPUT_DIR/show.png.")
    push_to_hub: str | None = option(None, "Upload the corpus to this dataset repository, `user/name`.")
    public: bool = option(False, "Make a new repository public. Faces are personal data: only with the right to.")


# What these say has no effect on the corpus itself.
WITHOUT_EFFECT = ("num_proc", "show", "push_to_hub", "public")


def describe_layouts() -> str:
    described = (f"{name}\n{textwrap.indent(inspect.getdoc(read), '    ')}" for name, read in LAYOUTS.items())
    return "layouts:\n\n" + "\n\n".join(described)


def parse_options() -> tuple[argparse.Namespace, PreparationArguments]:
    parser = HfArgumentParser(
        PreparationArguments,
        description=__doc__,
        epilog=describe_layouts(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("layout", metavar="LAYOUT", choices=LAYOUTS, help=", ".join(LAYOUTS))
    parser.add_argument("input_dir", metavar="INPUT_DIR", type=Path, help="the collection's folder, unpacked")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="folder of the corpus; made")
    arguments, places = parser.parse_args_into_dataclasses()
    check_options(places, arguments)
    return places, arguments


def check_options(places: argparse.Namespace, arguments: PreparationArguments):
    if not places.input_dir.is_dir():
        raise ValueError(f"INPUT_DIR {places.input_dir} is not a folder; unpack archives first.")
    if places.output_dir.resolve().is_relative_to(places.input_dir.resolve()):
        raise ValueError(f"OUTPUT_DIR {places.output_dir} lies in INPUT_DIR: choose a folder outside of it.")
    if glob.has_magic(str(places.output_dir.resolve())):
        raise ValueError(f"OUTPUT_DIR {places.output_dir} has *, ? or [ in its path: `datasets` would not open it.")
    if arguments.push_to_hub:
        validate_repo_id(arguments.push_to_hub)
    for name in ("num_proc", "rows_per_file", "folds"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"`--{name}` must be at least 1, got {value}.")
    if arguments.folder_is != "subject" and places.layout != "folders":
        raise ValueError(f"`--folder_is` is for the layout folders, not {places.layout}.")


def read_collection(places: argparse.Namespace, arguments: PreparationArguments) -> Collection:
    options = {"folder_is": arguments.folder_is} if places.layout == "folders" else {}
    collection = LAYOUTS[places.layout](places.input_dir, **options)
    if arguments.split != "official":
        collection = split_again(collection, arguments.split, arguments.seed)
    if arguments.pairs:
        collection = add_pairs(collection, arguments.pairs, arguments.folds, arguments.seed)
    return shuffle(collection, arguments.seed) if arguments.shuffle else collection


def recorded(layout: str, arguments: PreparationArguments) -> dict:
    """The options that make the corpus what it is."""
    return {"layout": layout} | {name: value for name, value in asdict(arguments).items() if name not in WITHOUT_EFFECT}


def available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(places: argparse.Namespace, arguments: PreparationArguments) -> dict:
    treatment = Treatment.from_options(arguments.crop, arguments.size, arguments.max_pixels)
    logger.info("Reading the labels of %s", places.input_dir)
    return prepare_corpus(
        read_collection(places, arguments),
        places.input_dir,
        places.output_dir,
        recorded(places.layout, arguments),
        treatment,
        arguments.num_proc or available_cpus(),
        arguments.drop_duplicates,
        arguments.rows_per_file,
    )


def write_card(output_dir: Path, report: dict, name: str):
    file = output_dir / "README.md"
    first = next((output_dir / "data").glob("*.parquet"))
    columns = describe_columns(Features.from_arrow_schema(pq.read_schema(first)))
    if file.exists() and not is_our_card(file.read_text(encoding="utf-8"), report, columns):
        logger.info("Keeping %s as it was edited", file)
    else:
        file.write_text(corpus_card(CARD, name, report, columns), encoding="utf-8")
    if "yaw" in columns:
        draw_pose_convention().save(output_dir / "head_pose.png")


def is_our_card(text: str, report: dict, columns: dict) -> bool:
    """Whether a card says what `corpus_card` wrote, under this or another name."""
    title = re.search(r"^# (.*)$", text, re.MULTILINE)
    return title is not None and text == corpus_card(CARD, title[1], report, columns)


def draw(output_dir: Path, report: dict):
    corpus = concatenate_datasets([load_corpus(str(output_dir), split) for split in report["rows"]["data"]])
    draw_corpus(corpus, title=output_dir.name).save(output_dir / "show.png")
    pairs = report["rows"].get("pairs")
    if pairs:
        lists = concatenate_datasets([load_pairs(f"{output_dir}:pairs", split) for split in pairs])
        draw_pairs(lists, title=f"{output_dir.name}, pairs").save(output_dir / "show_pairs.png")


def summary(output_dir: Path, report: dict) -> str:
    """What was made, for a person."""
    lines = [f"{output_dir}"]
    for table, splits in report["rows"].items():
        lines.append(f"  {table:8}" + ", ".join(f"{split} {count:,}" for split, count in splits.items()))
    copies, subjects = report["copies"], report["subjects"]
    lines.append(f"  broken   {len(report['broken'])}")
    lines += [f"           {entry['name']}: {entry['reason']}" for entry in report["broken"][:3]]
    lines += [f"  note     {note}: {len(names)}" for note, names in report["notes"].items()]
    lines.append(
        f"  copies   {copies['images']}, {report['dropped_copies']} dropped; "
        f"{copies['groups_over_several_splits']} images stand in several splits"
    )
    if subjects["count"]:
        lines.append(f"  subjects {subjects['count']:,}, {subjects['in_several_splits']} of them in several splits")
    return "\n".join([*lines, f"  all of it is in {output_dir / 'report.json'}"])


def main():
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        places, arguments = parse_options()
        with logging_redirect_tqdm():
            report = prepare(places, arguments)
        write_card(places.output_dir, report, arguments.push_to_hub or places.output_dir.resolve().name)
        print(summary(places.output_dir, report))
        if arguments.show:
            draw(places.output_dir, report)
        if arguments.push_to_hub:
            upload_corpus(places.output_dir, arguments.push_to_hub, private=not arguments.public)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from here") from None


if __name__ == "__main__":
    main()
