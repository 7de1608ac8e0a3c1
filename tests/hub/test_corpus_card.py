from pathlib import Path

import pytest
import yaml
from datasets import Dataset, get_dataset_config_names, load_dataset

from modeling_pcl.hub.corpus_card import TEMPLATE as TEMPLATE_FILE
from modeling_pcl.hub.corpus_card import render_corpus_card

TEMPLATE = TEMPLATE_FILE.read_text()
COLUMNS = {"image": "encoded image", "yaw": "degrees, right-handed", "expression": "calm, glad"}


def report(rows: dict | None = None, **options) -> dict:
    return {
        "options": {"layout": "genki4k", "crop": "none", "size": None} | options,
        "digest": "0123456789abcdef" * 4,
        "rows": rows or {"data": {"train": 12345, "test": 6}, "pairs": {"test": 24}},
        "dropped_copies": 4,
        "broken": [{"name": "a.jpg", "reason": "the file is empty"}] * 17,
        "notes": {},
        "copies": {"images": 31, "groups_over_several_splits": 2, "groups": []},
        "subjects": {"count": 77, "in_several_splits": 5, "named": []},
    }


def front_matter(card: str) -> dict:
    opening, text, _ = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(text)


def test_counts_and_columns_stand_in_it():
    card = render_corpus_card(TEMPLATE, "user/faces", report(), COLUMNS)
    assert "# user/faces" in card
    assert "Faces in the layout `genki4k`" in card
    assert "12,345 images in `train`; 6 images in `test`; 24 pairs in `test`" in card
    assert "| `yaw` | degrees, right-handed |\n| `expression` | calm, glad |" in card
    facts = " ".join(card.split())
    assert "could not be used: 17. Images that are byte for byte equal to another one: 31, of which 4 were" in facts
    assert "Subjects in more than one split: 5." in facts


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "Images are the unchanged files of the collection."),
        ({"crop": "box"}, "Images were cropped (box)."),
        ({"size": 64}, "Images were downscaled if their shorter side was above 64 px."),
        ({"crop": "centre:0.6", "size": 64}, "were cropped (centre:0.6) and downscaled if their shorter side"),
    ],
)
def test_what_was_done_to_the_images_is_told(options, text):
    assert text in render_corpus_card(TEMPLATE, "faces", report(**options), COLUMNS)


def test_a_corpus_with_head_pose_shows_which_way_a_head_turns():
    assert "](head_pose.png)\n\n```python" in render_corpus_card(TEMPLATE, "faces", report(), COLUMNS)
    assert "head_pose.png" not in render_corpus_card(TEMPLATE, "faces", report(), {"image": "encoded image"})


def test_limits_and_consent_are_told():
    card = render_corpus_card(TEMPLATE, "faces", report(), COLUMNS)
    assert "## Limits and consent" in card
    assert "Faces are personal data." in card
    assert "Do not use it to identify or track people without their knowledge" in " ".join(card.split())


def test_the_front_matter_lists_the_files_of_each_configuration_and_split():
    assert front_matter(render_corpus_card(TEMPLATE, "faces", report(), COLUMNS)) == {
        "license": "other",
        "task_categories": ["image-classification"],
        "size_categories": ["10K<n<100K"],
        "configs": [
            {
                "config_name": "default",
                "description": "sha256:0123456789abcdef",
                "data_files": [
                    {"split": "train", "path": "data/train-*.parquet"},
                    {"split": "test", "path": "data/test-*.parquet"},
                ],
            },
            {
                "config_name": "pairs",
                "description": "sha256:0123456789abcdef",
                "data_files": [{"split": "test", "path": "pairs/test-*.parquet"}],
            },
        ],
        "tags": ["face"],
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, count in {"data/train": 5, "data/test": 3, "pairs/test": 2}.items():
        path = tmp_path / "faces" / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict({"frame": list(range(count))}).to_parquet(path)
    return tmp_path / "faces"


def test_datasets_opens_the_configurations_that_it_lists(folder):
    (folder / "README.md").write_text(render_corpus_card(TEMPLATE, "faces", report(), COLUMNS))
    assert get_dataset_config_names(str(folder)) == ["default", "pairs"]
    sizes = {(None, "train"): 5, (None, "test"): 3, ("pairs", "test"): 2}
    assert {key: len(load_dataset(str(folder), key[0], split=key[1])) for key in sizes} == sizes


def test_a_corpus_of_the_same_name_is_not_read_from_the_cache_of_another(folder):
    facts, sizes = report({"data": {"train": 1}}), []
    for digest, count in {"a" * 64: 4, "b" * 64: 9}.items():
        (folder / "README.md").write_text(render_corpus_card(TEMPLATE, "faces", facts | {"digest": digest}, COLUMNS))
        Dataset.from_dict({"frame": list(range(count))}).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
        sizes.append(len(load_dataset(str(folder), split="train")))
    assert sizes == [4, 9]


@pytest.mark.parametrize("rows", [{"data": {"train": 5}}, {"data": {"test": 3}}])
def test_its_snippet_opens_the_corpus(folder, rows, monkeypatch):
    card = render_corpus_card(TEMPLATE, "faces", report(rows), COLUMNS)
    (folder / "README.md").write_text(card)
    monkeypatch.chdir(folder.parent)
    names: dict = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    ((_, count),) = rows["data"].items()
    assert len(names["corpus"]) == count


def test_it_depends_on_its_facts_alone():
    facts = report()
    card = render_corpus_card(TEMPLATE, "faces", facts, COLUMNS)
    assert facts == report()
    assert render_corpus_card(TEMPLATE, "faces", facts, dict(COLUMNS)) == card
