"""A model's card: a pure function of facts, and the facts from the files that lie beside it."""

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
from ..files import opening
from .models import model_kind
from .published import in_markdown, shown, without_private

# Not measures of how good a model is: what was chosen, and how many images there were.
NO_MEASURES = ("threshold", "images", "dropped", "pairs", "inverse_penalty", "converged")
PIPELINE_TAGS = dict.fromkeys(("expression", "action_units", "regression"), "image-classification")
# The pipeline that answers for a kind of head.
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
# Between these marks of a card stand its results.
MARKS = "<!-- results --><!-- end of results -->"
RESULTS = re.compile(r"<!-- results -->.*?<!-- end of results -->", re.DOTALL)
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.,/-])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w/])")
UNREAD = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)|https?://\S+", re.DOTALL)


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
    """Read a repository's folder.

    Args:
        folder: With `config.json`, and `run.json`, `results.json` and the folders of heads, where there are any.
        repo_id: `user/name`.
        license: Of the weights, as the Hub names it; none is stated without.
        training_data: Collections by a name of `TERMS`, or `name: terms`.
        base_model: Hub id of the encoder that a head was trained on.
        parameters: Of what answers for an image: the encoder, with the head where it has one.
        gmacs: Billions of multiply-accumulate operations that it takes for one image.
        pictures: Paths in the folder.
        own_card: A card that somebody wrote, if it exists: its text is kept.
        examples: `{"file": path in the folder, "output": ...}`, images that may be published, and the model's answers.

    Returns:
        JSON-serialisable facts; but for what is given here and `run.hours`, every number is one of a file's.

    Raises:
        ValueError: If a collection has no terms, naming those that are known.
    """
    config = json.loads((folder / "config.json").read_text())
    config = {"image_size": 64, "head_feature": "trunk", "verification_feature": "face"} | config
    config.setdefault("hidden_sizes", [64, 128, 128, 256])
    for name in ("custom_pipelines", "id2label"):
        config.setdefault(name, {})
    for name in ("problem_type", "verification_threshold"):
        config.setdefault(name, None)
    run, results = (_read(folder / name) for name in ("run.json", "results.json"))
    front, text = _read_card(own_card)
    if run is not None:
        run["hours"] = _hours(run)
    return {
        "repo_id": repo_id,
        "config": config,
        "run": run if run and "images_seen" in run else None,
        "probes": results or {},
        "license": license,
        "training_data": [_with_terms(name) for name in training_data],
        "base_model": base_model,
        "parameters": parameters,
        "gmacs": gmacs,
        "pictures": list(pictures),
        "has_onnx": (folder / "onnx").exists(),
        "crop": describe_crop(FaceCrop(**(_read(folder / "preprocessor_config.json") or {}).get("face_crop", {}))),
        "examples": list(examples),
        "heads": {name: probe["task"] for name, probe in (results or {}).items() if (folder / name).is_dir()},
        "front": front,
        "text": text,
    }


def _read_card(path: Path | None) -> tuple[dict, str]:
    """The front matter and the text of a card that somebody wrote, both empty without one."""
    if path is None or not path.exists():
        return {}, ""
    card = without_private(path.read_text(encoding="utf-8"))
    with opening(f"The front matter of {path.name}"):
        front = FRONT_MATTER.match(card)
        entries = yaml.safe_load(front[1]) if front else {}
        return dict(entries), card[front.end() if front else 0 :]


def _read(path: Path) -> dict | None:
    return without_private(json.loads(path.read_text())) if path.exists() else None


def _hours(run: Mapping) -> float | None:
    if "finished" not in run:
        return None
    started, finished = (datetime.fromisoformat(run[name]) for name in ("started", "finished"))
    return (finished - started).total_seconds() / 3600


def _with_terms(text: str) -> dict[str, str]:
    name, _, terms = text.partition(":")
    terms = terms.strip() or TERMS.get(name.lower())
    if not terms:
        raise ValueError(f"The terms of {name!r} are not known: give `{name}: TERMS`, or one of {', '.join(TERMS)}.")
    return {"name": name, "terms": terms}


def model_card(templates: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    """Write a card.

    Args:
        templates: Text of the templates by name, `base.md` and those of the tasks.
        facts: As `gather_facts` returns them.

    Returns:
        The text of README.md, the same for the same facts: that which somebody wrote, with the results between its
        marks, or at its end, and what is missing of the front matter; or else all of it from the templates.

    Raises:
        ValueError: If a template asks for a fact that is not there.
    """
    loader = jinja2.DictLoader(dict(templates))
    # Names of labels, corpora, runs and files are text of somebody's, not of this card.
    options = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "finalize": shown}
    environment = jinja2.Environment(loader=loader, **options)
    tables = [_checked_table(name, probe) for name, probe in facts["probes"].items()]
    name = "results.md" if facts["text"] else f"{model_kind(facts['config'])}.md"
    try:
        text = environment.get_template(name).render(
            **facts | {"repo_id": Markup(facts["repo_id"])},
            name=facts["repo_id"].split("/")[-1],
            developer=facts["repo_id"].split("/")[0],
            metadata=Markup(metadata(facts).to_yaml()),
            tables=tables,
            pipelines=PIPELINES,
            has_groups=any(table["groups"] for table in tables),
            labels=list(facts["config"]["id2label"].values()),
            head_feature=_feature_in_words(facts["config"]["head_feature"]),
            verification_feature=_feature_in_words(facts["config"]["verification_feature"]),
        )
    except jinja2.UndefinedError as error:
        raise ValueError(
            f"the card's template asks for what run.json, results.json and config.json lack: {error}"
        ) from error
    if facts["text"]:
        own = facts["text"] if RESULTS.search(facts["text"]) else f"{facts['text'].rstrip()}\n\n{MARKS}\n"
        text = f"---\n{metadata(facts).to_yaml()}\n---\n" + RESULTS.sub(lambda _: text.strip(), own)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _feature_in_words(name: str) -> str:
    """A feature's name as it stands before the word "feature" or "features"."""
    return "concatenated face and pose" if name == "face+pose" else name


def metadata(facts: Mapping[str, Any]) -> ModelCardData:
    """The card's front matter, with `model-index` from the probes."""
    kind = model_kind(facts["config"])
    widget = [
        {"src": f"https://huggingface.co/{facts['repo_id']}/resolve/main/{entry['file']}", "output": entry["output"]}
        for entry in facts["examples"]
    ]
    results = [result for probe in facts["probes"].values() for result in _eval_results(probe)]
    given = {"license": facts["license"], "base_model": facts["base_model"], "eval_results": results or None}
    entries = {
        "library_name": "transformers",
        # The Hub has no task for head pose or for verification.
        "pipeline_tag": PIPELINE_TAGS.get(kind, "image-feature-extraction" if kind != "head_pose" else None),
        "tags": ["face", "self-supervised-learning", "pcl", kind.replace("_", "-"), "arxiv:2211.13490"],
        **{name: value for name, value in facts["front"].items() if name != "model-index"},
        **{name: value for name, value in given.items() if value},
        **({"widget": widget} if widget else {}),
        "model_name": facts["repo_id"].split("/")[-1],
    }
    return ModelCardData(**entries)


def _measures(probe: Mapping) -> Iterator[tuple[str, str, str, Mapping]]:
    """Feature, method, measure and its figures."""
    for feature, methods in probe["results"].items():
        for method, measures in methods.items():
            for measure, figures in measures.items():
                if measure not in NO_MEASURES and figures["mean"] is not None:
                    yield feature, method, measure, figures


def _test_set(probe: Mapping) -> Mapping | None:
    """What was tested on; the disentanglement probe has several such, and no one number."""
    return probe["parts"][0]["test"] if isinstance(probe["parts"], list) else None


def _eval_results(probe: Mapping) -> Iterator[EvalResult]:
    test = _test_set(probe)
    if test is None:
        return
    arguments = {"protocol": probe["protocol"], "seeds": probe["seeds"], "image_size": probe["image_size"]}
    if probe["parts"][0].get("train"):
        arguments["train"] = probe["parts"][0]["train"]["source"]
    for feature, method, measure, figures in _measures(probe):
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


def _checked_table(name: str, probe: Mapping) -> dict[str, Any]:
    try:
        list(_eval_results(probe))
        return _probe_table(name, probe)
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError) as error:
        raise ValueError(
            f"the results of `{name}` are not as `pcl probe` writes them ({type(error).__name__}: {error}): probe "
            "again, or take its results.json away"
        ) from error


def _probe_table(name: str, probe: Mapping) -> dict[str, Any]:
    test = _test_set(probe)
    train = probe["parts"][0].get("train") if test else None
    sources = probe["parts"].values() if test is None else [test]
    flat = [source for entry in sources for source in (entry if isinstance(entry, list) else [entry])]
    return {
        "title": f"{name}: {TASK_NAMES.get(probe['task'], probe['task'])}",
        "protocol": probe["protocol"],
        "seeds": ", ".join(map(str, probe["seeds"])),
        "markdown": _markdown(probe["results"]),
        "test": "; ".join(_in_words(source) for source in flat),
        "train": train and _in_words(train),
        "selection": probe["selection"],
        "groups": [
            {"column": column, "markdown": _markdown(groups, first="group")}
            for column, groups in probe.get("groups", {}).items()
        ],
    }


def _markdown(results: Mapping[str, Mapping[str, Mapping]], first: str = "feature") -> str:
    """Features, or groups with their sizes, and methods below each other; measures beside each other."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for feature, method, measure, figures in _measures({"results": results}):
        sizes = [unit for unit in ("images", "pairs") if first == "group" and unit in results[feature][method]]
        counted = {unit: f"{results[feature][method][unit]['mean']:,.0f}" for unit in sizes}
        rows.setdefault((feature, method), counted)[measure] = _cell(figures)
    measures = list(dict.fromkeys(measure for row in rows.values() for measure in row))
    cells = [[*map(in_markdown, key), *(row.get(measure, "") for measure in measures)] for key, row in rows.items()]
    names = [first, "method", *map(in_markdown, measures)]
    return Markup(tabulate(cells, names, tablefmt="github", disable_numparse=True))


def _cell(figures: Mapping) -> str:
    spread = "" if figures["spread"] is None else f" ± {figures['spread']:.3f}"
    return f"{figures['mean']:.3f}{spread}"


def _in_words(part: Mapping) -> str:
    count = next(f"{part[unit]:,} {unit}" for unit in ("images", "pairs") if unit in part)
    return f"{part['source']} ({count})"


def lint(card: str, templates: Mapping[str, str], facts: Mapping[str, Any]) -> list[str]:
    """What is wrong with a card.

    Nothing may be left unfilled, the front matter must be what the Hub reads, and every number in the text outside of
    code and links must be a number of the facts, as it is or rounded, or stand in a text of theirs or in a template.

    Returns:
        One line each, none for a good card.
    """
    _, front, body = card.split("---\n", 2)
    text = UNREAD.sub(" ", body)
    problems = [f"left unfilled: {match[0]!r}" for match in UNFILLED.finditer(front + text)]
    problems += _wrong_metadata(front)
    numbers, texts = _leaves(facts)
    known = "\n".join([*texts, *(re.sub(r"\{[{%].*?[%}]\}", "", text, flags=re.DOTALL) for text in templates.values())])
    written = {match[0] for match in NUMBER.finditer(known)}
    for match in NUMBER.finditer(text):
        if match[0] not in written and not _is_rounded(match[0], numbers):
            problems.append(f"a number that no file holds: {match[0]}")
    return problems


def _wrong_metadata(front: str) -> list[str]:
    try:
        entries = yaml.safe_load(front)
        if "model-index" in entries:
            model_index_to_eval_results(entries["model-index"])
    except (yaml.YAMLError, KeyError, TypeError) as error:
        return [f"front matter that the Hub cannot read: {error}"]
    return []


def _leaves(facts: Any) -> tuple[list[float], list[str]]:
    """All numbers and all texts of the facts."""
    if isinstance(facts, Mapping):
        return _leaves([*facts.keys(), *facts.values()])
    if isinstance(facts, (list, tuple)):
        parts = [_leaves(fact) for fact in facts]
        return [number for part in parts for number in part[0]], [text for part in parts for text in part[1]]
    if isinstance(facts, (int, float)) and not isinstance(facts, bool):
        return [facts], []
    return [], [facts] if isinstance(facts, str) else []


def _is_rounded(text: str, numbers: Sequence[float]) -> bool:
    digits = text.replace(",", "")
    decimals = len(digits.partition(".")[2])
    return any(f"{number:.{decimals}f}" == digits for number in numbers)
