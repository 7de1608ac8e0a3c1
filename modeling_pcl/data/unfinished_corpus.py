"""A corpus that is being made: begun once, and gone on with after a stop."""

import json
import logging
import shutil
from pathlib import Path

from ..files import replacing

logger = logging.getLogger(__name__)


def begin_or_go_on(output_dir: Path, folder: Path, plan: dict) -> dict | None:
    """Note what is being made, or check that it is what was being made before.

    Args:
        output_dir: New, empty, or left behind by a run with the same plan; its `report.json` is written last.
        folder: Where parts lie until the corpus is whole, in `output_dir`.
        plan: With `options`, and `collection`, which identifies what the corpus is made of.

    Returns:
        The report of an earlier run that came to its end, None if there is something left to do.

    Raises:
        ValueError: If `output_dir` holds something else.
    """
    report, unfinished = _read_plan(output_dir / "report.json"), _read_plan(folder / "plan.json")
    if report is not None:
        _check_same(plan, report, f"{output_dir} holds a corpus that was made")
        logger.info("%s is finished already", output_dir)
        shutil.rmtree(folder, ignore_errors=True)
    elif unfinished is not None:
        _check_same(plan, unfinished, f"{output_dir} holds an unfinished corpus, begun")
        logger.info("Going on with the unfinished corpus in %s", output_dir)
    elif output_dir.exists() and (not output_dir.is_dir() or set(output_dir.iterdir()) - {folder}):
        raise ValueError(f"{output_dir} exists already and is not empty: delete it, or choose another output folder.")
    else:
        with replacing(folder / "plan.json") as path:
            path.write_text(json.dumps(plan), encoding="utf-8")
    return report


def _read_plan(file: Path) -> dict | None:
    """What `begin_or_go_on` compares, from its own file or a report; None if there is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) and {"options", "collection"} <= content.keys() else None


def _check_same(plan: dict, earlier: dict, what: str):
    options, before = plan["options"], earlier["options"]
    changed = [name for name in options if options[name] != before.get(name)]
    if changed or plan["collection"] != earlier["collection"]:
        raise ValueError(
            f"{what} with other {', '.join(changed) or 'images or labels'}: give the same, delete the folder, or "
            "choose another."
        )
