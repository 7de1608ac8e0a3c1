"""Model cards: facts are gathered from the files of a repository, and the card is a pure function of them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from markupsafe import Markup
from tabulate import tabulate

from ..crop_pcl import FaceCrop, describe_crop
from ..data.collections.layouts import TERMS
from ..files import report_open_errors
from .models import model_kind
from .published import escape_markdown, escape_untrusted, remove_private

# Entries of results.json that do not measure how good a model is: chosen values and numbers of images.
NO_MEASURES = ("threshold", "images", "dropped", "pairs", "inverse_penalty", "converged")
PIPELINE_TAGS = dict.fromkeys(("expression", "action_units", "regression"), "image-classification")
# Pipeline for each kind of head.
PIPELINES = PIPELINE_TAGS | {"head_pose": "head-pose-estimation", "verification": "face-verification"}
TASK_NAMES = {
    "expression": "image classification",
    "action_units": "facial action units",
    "head_pose": "head-pose estimation",
    "regression": "regression",
    "verification": "face verification",
    "disentanglement": "what each feature holds",
}
UNFILLED = re.compile(r"\{\{|\}\}|\{%|%\}|\b(None|nan|NaN|Undefined|TODO)\b|\[More Information Needed\]")
# The results of a card lie between these marks; a push replaces them there in a card that a person wrote.
MARKS = "<!-- results --><!-- end of results -->"
RESULTS = re.compile(r"<!-- results -->.*?<!-- end of results -->", re.DOTALL)
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.,/-])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w/])")
NOT_PROSE = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)|https?://\S+", re.DOTALL)  # Code and links.


def gather_facts(
    folder: Path,
    repo_id: str,
    license: str | None = None,
    training_data: Sequence[str] = (),
    base_model: str | None = None,
    parameters: int | None = None,
    gmacs: float | None = None,
    pictures: Sequence[str] = (),
    examples: Sequence[Mapping] = (),
    own_card: Path | None = None,
) -> dict[str, Any]:
    """Gather the facts for a card from the folder of a repository.

    Args:
        folder: Folder with `config.json` and, if they exist, `run.json`, `results.json` and the folders of heads.
        repo_id: `user/name`.
        license: License identifier of the weights on the Hub; None states no license.
        training_data: Collections, each a name in `TERMS` or `name: terms`.
        base_model: Hub id of the encoder that a head was trained on.
        parameters: Number of parameters of the encoder, and of the head if there is one.
        gmacs: Billions of multiply-accumulate operations for one image.
        pictures: Paths of pictures in the folder.
        own_card: Path of a card that a person wrote, whose text is kept; it need not exist.
        examples: Example images with the model's answers: `{"file": path in the folder, "output": ...}`.

    Returns:
        JSON-serialisable facts. Except for the arguments and `run.hours`, every number is a number of a file.

    Raises:
        ValueError: If the terms of a collection are not known; the message lists the known collections.
    """
    config = json.loads((folder / "config.json").read_text())
    defaults = {"image_size": 64, "hidden_sizes": [64, 128, 128, 256], "mirror_invariant_face": False}
    config = defaults | {"head_feature": "trunk", "verification_feature": "face"} | config
    for name in ("custom_pipelines", "id2label"):
        config.setdefault(name, {})
    for name in ("problem_type", "verification_threshold"):
        config.setdefault(name, None)
    run, results = (_read_json(folder / name) for name in ("run.json", "results.json"))
    front, text = _read_card(own_card)
    if run is not None:
        run["hours"] = _compute_hours(run)
    return {
        "repo_id": repo_id,
        "config": config,
        "run": run if run and "images_seen" in run else None,
        "probes": results or {},
        "license": license,
        "training_data": [_look_up_terms(text) for text in training_data],
        "base_model": base_model,
        "parameters": parameters,
        "gmacs": gmacs,
        "pictures": list(pictures),
        "has_onnx": (folder / "onnx").exists(),
        "crop": describe_crop(FaceCrop(**(_read_json(folder / "preprocessor_config.json") or {}).get("face_crop", {}))),
        "examples": list(examples),
        "heads": {name: probe["task"] for name, probe in (results or {}).items() if (folder / name).is_dir()},
        "front": front,
        "text": text,
    }


def _read_card(path: Path | None) -> tuple[dict, str]:
    """Read the front matter and the text of a card that a person wrote; both are empty if there is no such card."""
    if path is None or not path.exists():
        return {}, ""
    card = remove_private(path.read_text(encoding="utf-8"))
    with report_open_errors(f"The front matter of {path.name}"):
        front = FRONT_MATTER.match(card)
        entries = yaml.safe_load(front[1]) if front else {}
        return dict(entries), card[front.end() if front else 0 :]


def _read_json(path: Path) -> dict | None:
    return remove_private(json.loads(path.read_text())) if path.exists() else None


def _compute_hours(run: Mapping) -> float | None:
    if "finished" not in run:
        return None
    started, finished = (datetime.fromisoformat(run[name]) for name in ("started", "finished"))
    return (finished - started).total_seconds() / 3600


def _look_up_terms(text: str) -> dict[str, str]:
    name, _, terms = text.partition(":")
    terms = terms.strip() or TERMS.get(name.lower())
    if not terms:
        raise ValueError(f"The terms of {name!r} are not known: give `{name}: TERMS`, or one of {', '.join(TERMS)}.")
    return {"name": name, "terms": terms}


def render_model_card(templates: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """Write the text of a card.

    Args:
        templates: Text of each template by file name: `base.md` and those of the tasks.
        facts: Result of `gather_facts`.

    Returns:
        The text of README.md, which is the same for the same facts. A card that a person wrote is kept: its front
        matter is completed, and its results are replaced between its marks, or appended. Otherwise all text comes from
        the templates.

    Raises:
        ValueError: If a template uses a fact that is missing.
    """
    loader = jinja2.DictLoader(dict(templates))
    # Names of labels, corpora, runs and files come from data, so their Markdown is escaped.
    options = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "finalize": escape_untrusted}
    environment = jinja2.Environment(loader=loader, **options)
    tables = [_build_table(name, probe) for name, probe in facts["probes"].items()]
    name = "results.md" if facts["text"] else f"{model_kind(facts['config'])}.md"
    try:
        text = environment.get_template(name).render(
            **facts | {"repo_id": Markup(facts["repo_id"])},
            name=facts["repo_id"].split("/")[-1],
            developer=facts["repo_id"].split("/")[0],
            metadata=Markup(build_metadata(facts).to_yaml()),
            tables=tables,
            pipelines=PIPELINES,
            has_groups=any(table["groups"] for table in tables),
            labels=list(facts["config"]["id2label"].values()),
            head_feature=_describe_feature(facts["config"]["head_feature"]),
            verification_feature=_describe_feature(facts["config"]["verification_feature"]),
        )
    except jinja2.UndefinedError as error:
        raise ValueError(
            f"the card's template asks for what run.json, results.json and config.json lack: {error}"
        ) from error
    if facts["text"]:
        own_text = facts["text"] if RESULTS.search(facts["text"]) else f"{facts['text'].rstrip()}\n\n{MARKS}\n"
        text = f"---\n{build_metadata(facts).to_yaml()}\n---\n" + RESULTS.sub(lambda _: text.strip(), own_text)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _describe_feature(name: str) -> str:
    """Write the name of a feature so that the word "feature" or "features" can follow it."""
    return "concatenated face and pose" if name == "face+pose" else name


def build_metadata(facts: Mapping[str, Any]) -> ModelCardData:
    """Build the front matter of the card, with a `model-index` from the probes."""
    kind = model_kind(facts["config"])
    widget = [
        {"src": f"https://huggingface.co/{facts['repo_id']}/resolve/main/{entry['file']}", "output": entry["output"]}
        for entry in facts["examples"]
    ]
    results = [result for probe in facts["probes"].values() for result in _iterate_eval_results(probe)]
    optional = {"license": facts["license"], "base_model": facts["base_model"], "eval_results": results or None}
    entries = {
        "library_name": "transformers",
        # The Hub has no task for head pose or verification, and no widget runs custom code, so that answers are stored.
        "pipeline_tag": PIPELINE_TAGS.get(kind, "image-feature-extraction" if kind != "head_pose" else None),
        "tags": ["face", "self-supervised-learning", "pcl", kind.replace("_", "-"), "arxiv:2211.13490"],
        **{name: value for name, value in facts["front"].items() if name != "model-index"},
        **{name: value for name, value in optional.items() if value},
        **({"widget": widget} if widget else {}),
        "model_name": facts["repo_id"].split("/")[-1],
    }
    return ModelCardData(**entries)


def _iterate_measures(probe: Mapping) -> Iterator[tuple[str, str, str, Mapping]]:
    """Yield the feature, the method, the name and the figures of each measure."""
    for feature, methods in probe["results"].items():
        for method, measures in methods.items():
            for measure, figures in measures.items():
                if measure not in NO_MEASURES and figures["mean"] is not None:
                    yield feature, method, measure, figures


def _get_test_set(probe: Mapping) -> Mapping | None:
    """Return the test set of a probe; None for the disentanglement probe, which has several."""
    return probe["parts"][0]["test"] if isinstance(probe["parts"], list) else None


def _iterate_eval_results(probe: Mapping) -> Iterator[EvalResult]:
    test = _get_test_set(probe)
    if test is None:
        return
    arguments = {name: probe[name] for name in ("protocol", "seeds", "image_size") if name in probe}
    if probe["parts"][0].get("train"):
        arguments["train"] = probe["parts"][0]["train"]["source"]
    for feature, method, measure, figures in _iterate_measures(probe):
        yield EvalResult(
            task_type=PIPELINE_TAGS.get(probe["task"], "image-feature-extraction"),
            task_name=TASK_NAMES.get(probe["task"], probe["task"]),
            dataset_type=re.sub(r"\W+", "-", test["source"].split(",")[0]).strip("-").lower(),
            dataset_name=test["source"],
            dataset_split="test",
            dataset_revision=test.get("revision"),
            dataset_args=arguments,
            metric_type=measure,
            metric_name=f"{measure}, {feature} feature, {method}",
            metric_value=figures["mean"],
        )


def _build_table(name: str, probe: Mapping) -> dict[str, Any]:
    """Build the table of a probe, and raise `ValueError` if its results do not have the format of `pcl probe`."""
    try:
        list(_iterate_eval_results(probe))
        return _describe_probe(name, probe)
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError) as error:
        raise ValueError(
            f"the results of `{name}` are not as `pcl probe` writes them ({type(error).__name__}: {error}): probe "
            "again, or remove its results.json"
        ) from error


def _describe_probe(name: str, probe: Mapping) -> dict[str, Any]:
    test = _get_test_set(probe)
    train = probe["parts"][0].get("train") if test else None
    sources = [part.get("test", part) for part in probe["parts"].values()] if test is None else [test]
    return {
        "title": f"{name}: {TASK_NAMES.get(probe['task'], probe['task'])}",
        # Verification trains nothing at random, and disentanglement has no protocol either.
        "protocol": probe.get("protocol"),
        "seeds": ", ".join(map(str, probe.get("seeds", []))),
        "markdown": _format_results(probe["results"]),
        "test": "; ".join(_describe_source(source) for source in sources),
        "train": train and _describe_source(train),
        "selection": probe["selection"],
        "groups": [
            {"column": column, "markdown": _format_results(groups, first="group")}
            for column, groups in probe.get("groups", {}).items()
        ],
    }


def _format_results(results: Mapping[str, Mapping[str, Mapping]], first: str = "feature") -> str:
    """Format a Markdown table with one row per feature (or group, with its size) and method, one column per measure."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for feature, method, measure, figures in _iterate_measures({"results": results}):
        units = [unit for unit in ("images", "pairs") if first == "group" and unit in results[feature][method]]
        sizes = {unit: f"{results[feature][method][unit]['mean']:,.0f}" for unit in units}
        rows.setdefault((feature, method), sizes)[measure] = _format_cell(figures)
    measures = list(dict.fromkeys(measure for row in rows.values() for measure in row))
    cells = [[*map(escape_markdown, key), *(row.get(measure, "") for measure in measures)] for key, row in rows.items()]
    names = [first, "method", *map(escape_markdown, measures)]
    return Markup(tabulate(cells, names, tablefmt="github", disable_numparse=True))


def _format_cell(figures: Mapping) -> str:
    spread = "" if figures["spread"] is None else f" ± {figures['spread']:.3f}"
    return f"{figures['mean']:.3f}{spread}"


def _describe_source(part: Mapping) -> str:
    count = next(f"{part[unit]:,} {unit}" for unit in ("images", "pairs") if unit in part)
    return f"{part['source']} ({count})"


def lint(card: str, templates: Mapping[str, str], facts: Mapping[str, Any]) -> list[str]:
    """Find the faults of a card.

    No placeholder may be left, the Hub must be able to read the front matter, and every number outside of code and
    links must be a number of the facts, possibly rounded, or occur in a text of the facts or in a template.

    Returns:
        One line per fault.
    """
    _, front, body = card.split("---\n", 2)
    prose = NOT_PROSE.sub(" ", body)
    problems = [f"left unfilled: {match[0]!r}" for match in UNFILLED.finditer(front + prose)]
    problems += _find_metadata_faults(front)
    numbers, texts = _collect_leaves(facts)
    fixed_texts = [re.sub(r"\{[{%].*?[%}]\}", "", text, flags=re.DOTALL) for text in templates.values()]
    known_numbers = {match[0] for match in NUMBER.finditer("\n".join([*texts, *fixed_texts]))}
    for match in NUMBER.finditer(prose):
        if match[0] not in known_numbers and not _is_rounded(match[0], numbers):
            problems.append(f"a number that no file holds: {match[0]}")
    return problems


def _find_metadata_faults(front: str) -> list[str]:
    # Not `ModelCard.validate()`, which calls the Hub.
    try:
        entries = yaml.safe_load(front)
        if "model-index" in entries:
            model_index_to_eval_results(entries["model-index"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        return [f"front matter that the Hub cannot read: {error}"]
    return []


def _collect_leaves(facts: Any) -> tuple[list[float], list[str]]:
    """Collect all numbers and all texts of the facts, at any depth."""
    if isinstance(facts, Mapping):
        return _collect_leaves([*facts.keys(), *facts.values()])
    if isinstance(facts, (list, tuple)):
        parts = [_collect_leaves(fact) for fact in facts]
        return [number for part in parts for number in part[0]], [text for part in parts for text in part[1]]
    if isinstance(facts, (int, float)) and not isinstance(facts, bool):
        return [facts], []
    return [], [facts] if isinstance(facts, str) else []


def _is_rounded(text: str, numbers: Sequence[float]) -> bool:
    """Return whether one of the numbers, rounded to as many decimals as the text has, gives the text."""
    digits = text.replace(",", "")
    decimals = len(digits.partition(".")[2])
    return any(f"{number:.{decimals}f}" == digits for number in numbers)
