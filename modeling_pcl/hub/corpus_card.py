"""A corpus's dataset card: from facts to text."""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

import jinja2
import pyarrow.parquet as pq
from datasets import Features
from markupsafe import Markup

from ..crop_pcl import FaceCrop, describe_crop
from ..data.collections.layouts import TERMS
from ..data.schema import describe_columns
from ..files import replacing
from ..pictures.heads import draw_pose_convention
from .published import in_markdown, shown

logger = logging.getLogger(__name__)

# As the Hub names the number of rows.
SIZES = {"n<1K": 1e3, "1K<n<10K": 1e4, "10K<n<100K": 1e5, "100K<n<1M": 1e6, "1M<n<10M": 1e7, "n>10M": math.inf}
TEMPLATE = Path(__file__).parent / "templates" / "corpus.md"


def corpus_card(template: str, name: str, report: Mapping, columns: Mapping[str, str]) -> str:
    """Write the card of a corpus.

    Args:
        template: Text of `corpus.md`.
        name: Folder or `user/name` of the corpus.
        report: What preparing it reported.
        columns: What each of its columns holds, by name. With `yaw` among them, the card shows `head_pose.png`.
    """
    options, rows = report["options"], report["rows"]
    terms = TERMS.get(options.get("layout"))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=shown)
    return environment.from_string(template).render(
        configs=Markup(_configs(rows, report["digest"])),
        name=Markup(name),
        title=name,
        size=Markup(next(size for size, most in SIZES.items() if sum(rows["data"].values()) < most)),
        task="image-classification" if "expression" in columns else "image-feature-extraction",
        origin=_origin(report),
        counts=Markup(_counts(rows)),
        columns=Markup("\n".join(f"| `{column}` | {in_markdown(what)} |" for column, what in columns.items())),
        picture=Markup("\n![Which way a head turns](head_pose.png)\n" if "yaw" in columns else ""),
        split=next(iter(rows["data"])),
        done=_done(report),
        terms=Markup(f"\nThe collection's terms: {terms}.\n" if terms else ""),
    )


def _configs(rows: Mapping, digest: str) -> str:
    """Which files make which configuration and split, as `datasets` reads it."""
    # `datasets` caches by the folder's name and this text: without the digest, another corpus of the name would open.
    lines = ["configs:"]
    for folder, splits in rows.items():
        name = "default" if folder == "data" else folder
        lines += [f"- config_name: {name}", f"  description: sha256:{digest[:16]}", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {folder}/{split}-*.parquet"]
    return "\n".join(lines) + "\n"


def _counts(rows: Mapping) -> str:
    what = {"data": "images", "pairs": "pairs"}
    return "; ".join(
        f"{count:,} {what[table]} in `{split}`" for table, splits in rows.items() for split, count in splits.items()
    )


def _origin(report: Mapping) -> str:
    if "face_crop" in report:
        return "Faces that were found in photos and videos, and cut out alike, by modeling_pcl."
    return Markup(f"Faces in the layout `{report['options']['layout']}`, prepared by modeling_pcl.")


def _done(report: Mapping) -> str:
    """What was done to the images, and what was left out."""
    options = report["options"]
    if "face_crop" in report:
        return (
            f"{describe_crop(FaceCrop(**report['face_crop']))} {report['photos']:,} photos and frames were searched, "
            f"{report['photos_with_several_faces']:,} of them have several faces; in {len(report['missed']):,} nothing "
            f"was found or read. Faces of videos left out as near-duplicates: {report['thinned']:,}."
        )
    steps = []
    if options["crop"] != "none":
        steps.append(f"cropped ({options['crop']})")
    if options["size"] is not None:
        steps.append(f"made smaller where their shorter side was above {options['size']} px")
    changes = f"Images were {' and '.join(steps)}." if steps else "Images are the collection's own bytes."
    return (
        f"{changes} Left out because they could not be used: {len(report['broken'])}. Images equal byte for byte to "
        f"another one: {report['copies']['images']}, {report['dropped_copies']} of them dropped. Subjects in more than "
        f"one split: {report['subjects']['in_several_splits']}."
    )


def write_corpus_card(output_dir: Path, report: Mapping, name: str):
    """Write README.md of a prepared corpus, unless somebody has edited it, and the picture of its head poses.

    Args:
        output_dir: Of the corpus.
        report: What preparing it reported.
        name: Folder or `user/name` of the corpus.
    """
    file = output_dir / "README.md"
    first = next((output_dir / "data").glob("*.parquet"))
    columns = describe_columns(Features.from_arrow_schema(pq.read_schema(first)))
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if text.strip() and not _is_our_card(text, report, columns):
        logger.info("Keeping %s as it was edited", file)
    else:
        with replacing(file) as unfinished:
            card = corpus_card(TEMPLATE.read_text(encoding="utf-8"), name, report, columns)
            unfinished.write_text(card, encoding="utf-8")
    if "yaw" in columns:
        draw_pose_convention().save(output_dir / "head_pose.png")


def _is_our_card(text: str, report: dict, columns: dict) -> bool:
    """Whether a card says what `corpus_card` wrote, under this or another name."""
    name = re.search(r'^corpus = load_dataset\("(.*)", split=', text, re.MULTILINE)
    return name is not None and text == corpus_card(TEMPLATE.read_text(encoding="utf-8"), name[1], report, columns)
