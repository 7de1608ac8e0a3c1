"""Dataset cards of prepared corpora."""

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
from .published import escape_markdown, escape_untrusted

logger = logging.getLogger(__name__)

# Size categories of the Hub, with the number of rows below which they apply.
SIZES = {"n<1K": 1e3, "1K<n<10K": 1e4, "10K<n<100K": 1e5, "100K<n<1M": 1e6, "1M<n<10M": 1e7, "n>10M": math.inf}
TEMPLATE = Path(__file__).parent / "templates" / "corpus.md"


def render_corpus_card(template: str, name: str, report: Mapping, columns: Mapping[str, str]) -> str:
    """Write the text of a corpus's card.

    Args:
        template: Text of the template `corpus.md`.
        name: Folder or `user/name` of the corpus.
        report: Content of the corpus's `report.json`.
        columns: Description of each column by name. If there is a column `yaw`, the card shows `head_pose.png`.
    """
    options, rows = report["options"], report["rows"]
    terms = TERMS.get(options.get("layout"))
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=escape_untrusted
    )
    return environment.from_string(template).render(
        configs=Markup(_format_configs(rows, report["digest"])),
        name=Markup(name),
        title=name,
        size=Markup(next(size for size, most in SIZES.items() if sum(rows["data"].values()) < most)),
        task="image-classification" if "expression" in columns else "image-feature-extraction",
        origin=_describe_origin(report),
        counts=Markup(_format_counts(rows)),
        columns=Markup("\n".join(f"| `{column}` | {escape_markdown(text)} |" for column, text in columns.items())),
        picture=Markup("\n![Which way a head turns](head_pose.png)\n" if "yaw" in columns else ""),
        split=next(iter(rows["data"])),
        done=_describe_processing(report),
        terms=Markup(f"\nThe collection's terms: {terms}.\n" if terms else ""),
    )


def _format_configs(rows: Mapping, digest: str) -> str:
    """Write the YAML from which `datasets` reads the files of each configuration and split."""
    # `datasets` caches by folder name and this text: without the digest, it would open the cached rows of another
    # corpus that had the same name.
    lines = ["configs:"]
    for folder, splits in rows.items():
        name = "default" if folder == "data" else folder
        lines += [f"- config_name: {name}", f"  description: sha256:{digest[:16]}", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {folder}/{split}-*.parquet"]
    return "\n".join(lines) + "\n"


def _format_counts(rows: Mapping) -> str:
    units = {"data": "images", "pairs": "pairs"}
    return "; ".join(
        f"{count:,} {units[table]} in `{split}`" for table, splits in rows.items() for split, count in splits.items()
    )


def _describe_origin(report: Mapping) -> str:
    if "face_crop" in report:
        return "Faces that modeling_pcl found in photos and videos and cut out in the same way."
    return Markup(f"Faces in the layout `{report['options']['layout']}`, prepared by modeling_pcl.")


def _describe_processing(report: Mapping) -> str:
    """Describe how the images were changed, and which were left out."""
    options = report["options"]
    if "face_crop" in report:
        return (
            f"{describe_crop(FaceCrop(**report['face_crop']))} {report['photos']:,} photos and frames were searched, "
            f"{report['photos_with_several_faces']:,} of them have several faces; in {len(report['missed']):,} no face "
            f"was found, or the file could not be read. Faces of videos left out as near-duplicates: "
            f"{report['thinned']:,}."
        )
    steps = []
    if options["crop"] != "none":
        steps.append(f"cropped ({options['crop']})")
    if options["size"] is not None:
        steps.append(f"downscaled if their shorter side was above {options['size']} px")
    changes = f"Images were {' and '.join(steps)}." if steps else "Images are the unchanged files of the collection."
    return (
        f"{changes} Images left out because they could not be used: {len(report['broken'])}. Images that are byte for "
        f"byte equal to another one: {report['copies']['images']}, of which {report['dropped_copies']} were dropped. "
        f"Subjects in more than one split: {report['subjects']['in_several_splits']}."
    )


def write_corpus_card(output_dir: Path, report: Mapping, name: str):
    """Write README.md of a prepared corpus, unless it was edited, and the picture of the head-pose convention.

    Args:
        output_dir: Folder of the corpus.
        report: Content of the corpus's `report.json`.
        name: Folder or `user/name` of the corpus.
    """
    file = output_dir / "README.md"
    first = next((output_dir / "data").glob("*.parquet"))
    columns = describe_columns(Features.from_arrow_schema(pq.read_schema(first)))
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if text.strip() and not _is_generated_card(text, report, columns):
        logger.info("Keeping %s as it was edited", file)
    else:
        with replacing(file) as unfinished:
            card = render_corpus_card(TEMPLATE.read_text(encoding="utf-8"), name, report, columns)
            unfinished.write_text(card, encoding="utf-8")
    if "yaw" in columns:
        draw_pose_convention().save(output_dir / "head_pose.png")


def _is_generated_card(text: str, report: dict, columns: dict) -> bool:
    """Return whether a card is the unchanged text of `render_corpus_card`, for this or another name."""
    name = re.search(r'^corpus = load_dataset\("(.*)", split=', text, re.MULTILINE)
    return name is not None and text == render_corpus_card(
        TEMPLATE.read_text(encoding="utf-8"), name[1], report, columns
    )
