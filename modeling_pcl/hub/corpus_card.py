"""A corpus's dataset card: from facts to text."""

from collections.abc import Mapping

import jinja2

from .card import TERMS


def corpus_card(template: str, name: str, report: Mapping, columns: Mapping[str, str]) -> str:
    """Write the card of a corpus.

    Args:
        template: Text of `corpus.md`.
        name: Folder or `user/name` of the corpus.
        report: What preparing it reported.
        columns: What each of its columns holds, by name. With `yaw` among them, the card shows `head_pose.png`.
    """
    options, rows = report["options"], report["rows"]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(
        configs=_configs(rows, report["digest"]),
        name=name,
        layout=options["layout"],
        counts=_counts(rows),
        columns="\n".join(f"| `{column}` | {what} |" for column, what in columns.items()),
        picture="\n![Which way a head turns](head_pose.png)\n" if "yaw" in columns else "",
        split=next(iter(rows["data"])),
        changes=_changes(options),
        broken=len(report["broken"]),
        copies=report["copies"]["images"],
        dropped=f"{report['dropped_copies']} of them dropped",
        terms=f"\nThe collection's terms: {TERMS[options['layout']]}.\n" if options["layout"] in TERMS else "",
        shared=report["subjects"]["in_several_splits"],
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


def _changes(options: Mapping) -> str:
    done = []
    if options["crop"] != "none":
        done.append(f"cropped ({options['crop']})")
    if options["size"] is not None:
        done.append(f"made smaller where their shorter side was above {options['size']} px")
    return f"Images were {' and '.join(done)}." if done else "Images are the collection's own bytes."
