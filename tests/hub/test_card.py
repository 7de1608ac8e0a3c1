"""Cards from facts, facts from files, and what lint finds."""

import json
import re
from pathlib import Path

import pytest
import tiny
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image

from modeling_pcl import (
    PCLConfig,
    PCLForHeadPoseEstimation,
    PCLForImageClassification,
    PCLForPreTraining,
    PCLModel,
)
from modeling_pcl.data.collections.layouts import LAYOUTS, TERMS
from modeling_pcl.hub import push
from modeling_pcl.hub.card import gather_facts, lint, render_model_card
from modeling_pcl.hub.models import model_kind
from modeling_pcl.hub.published import escape_markdown, remove_private

TEMPLATES = {path.name: path.read_text() for path in push.TEMPLATES.glob("*.md")}


def figures(mean: float, spread: float | None = None) -> dict:
    return {"mean": mean, "spread": spread, "values": [mean]}


PROBE = {
    "task": "expression",
    "protocol": "strict",
    "seeds": [0, 1],
    "image_size": 64,
    "selection": "epoch with the best validation accuracy",
    "parts": [
        {
            "train": {"source": "0.9 of /data/x/rafdb_train.parquet, split train", "images": 10_800, "revision": "a"},
            "test": {"source": "/data/x/rafdb_test.parquet, split train", "images": 3_589, "revision": "b"},
        }
    ],
    "results": {"face": {"linear": {"accuracy": figures(0.36556, 0.00512), "converged": figures(1.0)}}},
}
GROUPS = {"gender": {"female": {"linear": {"accuracy": figures(0.41234)}}}}
CONFIGS = {
    "pretrained": {"architectures": ["PCLForPreTraining"]},
    "expression": {"architectures": ["PCLForImageClassification"], "id2label": {0: "calm", 1: "glad"}},
    "action_units": {
        "architectures": ["PCLForImageClassification"],
        "problem_type": "multi_label_classification",
        "id2label": {0: "AU1", 1: "AU12"},
    },
    "head_pose": {"architectures": ["PCLForHeadPoseEstimation"], "problem_type": "regression"},
    "regression": {
        "architectures": ["PCLForImageClassification"],
        "problem_type": "regression",
        "id2label": {0: "age"},
    },
    "verification": {"architectures": ["PCLModel"], "verification_threshold": 0.71234},
}


@pytest.fixture
def folder(tmp_path):
    def make(kind: str = "pretrained", run: dict | None = tiny.RUN, probes: dict | None = None) -> Path:
        PCLConfig(**CONFIGS[kind]).save_pretrained(tmp_path)
        for name, content in (("run.json", run), ("results.json", probes)):
            if content is not None:
                (tmp_path / name).write_text(json.dumps(content))
        return tmp_path

    return make


def front_matter(card: str) -> dict:
    return yaml.safe_load(card.split("---\n", 2)[1])


def test_a_head_on_an_encoder_that_verifies_is_what_the_head_is():
    config = {"problem_type": "single_label_classification", "verification_threshold": 0.5}
    for architecture, kind in (("PCLForImageClassification", "expression"), ("PCLForPreTraining", "pretrained")):
        assert model_kind(config | {"architectures": [architecture]}) == kind


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("is_bare", [False, True])
def test_every_kind_of_model_has_a_card_without_faults(folder, kind, is_bare):
    given = {} if is_bare else {"license": "cc-by-nc-4.0", "training_data": ["voxceleb"], "base_model": "user/pcl"}
    path = folder(kind, None if is_bare else tiny.RUN, None if is_bare else {kind: PROBE | {"groups": GROUPS}})
    facts = gather_facts(path, "user/faces", **given)
    assert model_kind(facts["config"]) == kind
    card = render_model_card(TEMPLATES, facts)
    assert lint(card, TEMPLATES, facts) == []
    assert card == render_model_card(TEMPLATES, json.loads(json.dumps(facts)))
    assert "user/faces" in card
    assert ModelCard(card).data.to_dict()["library_name"] == "transformers"


@pytest.mark.parametrize("value", [False, True])
def test_a_face_feature_of_image_and_mirror_is_told(folder, value):
    path = folder()
    PCLConfig(**CONFIGS["pretrained"], mirror_invariant_face=value).save_pretrained(path)
    facts = gather_facts(path, "user/faces")
    card = render_model_card(TEMPLATES, facts)
    assert lint(card, TEMPLATES, facts) == []
    assert ("the mean over an image and its mirror" in " ".join(card.split())) == value


def test_numbers_of_runs_and_probes_stand_in_it(folder):
    card = render_model_card(TEMPLATES, gather_facts(folder(probes={"raf": PROBE}), "user/faces"))
    said = " ".join(card.split())
    assert "It has seen 204,800 images in 800 iterations" in said
    assert "took 1.50 hours, from `started` to `finished` in `run.json`; device: NVIDIA H100, processes: 2" in said
    assert "The hours before step 300" in said
    assert "| face | linear | 0.366 ± 0.005 |" in said
    assert "Test: rafdb_test.parquet, split train (3,589 images)." in said


def test_the_model_index_names_dataset_split_protocol_and_seeds(folder):
    facts = gather_facts(folder(probes={"raf": PROBE}), "user/faces")
    (result,) = front_matter(render_model_card(TEMPLATES, facts))["model-index"][0]["results"]
    assert result["dataset"]["name"] == "rafdb_test.parquet, split train"
    assert result["dataset"]["split"] == "test"
    assert result["dataset"]["revision"] == "b"
    assert result["dataset"]["args"]["protocol"] == "strict"
    assert result["dataset"]["args"]["seeds"] == [0, 1]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.36556, "name": "accuracy, face feature, linear"}]


def test_results_by_group_stand_in_it_where_they_were_measured(folder):
    facts = gather_facts(folder(probes={"raf": PROBE | {"groups": GROUPS}}), "user/faces")
    card = render_model_card(TEMPLATES, facts)
    assert "By `gender`:" in card
    assert "0.412" in card
    assert "No results by group" not in card
    assert "No results by group" in render_model_card(
        TEMPLATES, gather_facts(folder(probes={"raf": PROBE}), "user/faces")
    )


@pytest.mark.parametrize("kind", ["expression", "action_units", "head_pose", "regression", "verification"])
def test_face_and_pose_together_are_said_in_words(folder, kind):
    both = {"results": {"face+pose": PROBE["results"]["face"]}}
    facts = gather_facts(folder(kind, probes={"raf": PROBE | both}), "user/faces")
    facts["config"] |= {"head_feature": "face+pose", "verification_feature": "face+pose"}
    card = render_model_card(TEMPLATES, facts)
    said = " ".join(card.split())
    assert "the concatenated face and pose feature" in said
    assert "| face+pose | linear | 0.366 ± 0.005 |" in said
    assert "`face+pose` is the face and the pose feature concatenated." in said
    assert lint(card, TEMPLATES, facts) == []
    alone = render_model_card(TEMPLATES, gather_facts(folder(kind, probes={"raf": PROBE}), "user/faces"))
    assert "concatenated" not in alone


def test_terms_are_known_or_given_or_refused(folder):
    facts = gather_facts(folder(), "user/faces", training_data=["voxceleb", "our own: with consent, 2025"])
    card = render_model_card(TEMPLATES, facts)
    assert "- **voxceleb**: VoxCeleb; lists under CC BY 4.0" in card
    assert "- **our own**: with consent, 2025" in card
    with pytest.raises(ValueError, match=r"terms of 'mine' are not known: give `mine: TERMS`, or one of .*voxceleb"):
        gather_facts(folder(), "user/faces", training_data=["mine"])


def test_the_terms_of_every_collection_that_can_be_prepared_are_told():
    assert set(LAYOUTS) - set(TERMS) == {"folders"}


def test_stored_outputs_are_the_widgets(folder):
    example = {"file": "examples/face.png", "output": [{"label": "glad", "score": 0.75}]}
    facts = gather_facts(folder("expression"), "user/faces", examples=[example])
    (widget,) = front_matter(render_model_card(TEMPLATES, facts))["widget"]
    assert widget["src"] == "https://huggingface.co/user/faces/resolve/main/examples/face.png"
    assert widget["output"] == example["output"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.9 of /home/me/x/rafdb.parquet, split", "0.9 of rafdb.parquet, split"),
        ("--corpus=/data/faces", "--corpus=faces"),
        ("/home/Jane Doe/pics/faces/", "faces"),
        ("/data", "data"),
        ("~/faces", "faces"),
        ("C:\\Users\\jane\\faces", "faces"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("user/faces", "user/faces"),
        ("runs/mine", "runs/mine"),
        ("256 / 256", "256 / 256"),
    ],
)
def test_absolute_paths_are_their_last_part_and_links_and_shares_stay(text, expected):
    assert remove_private({"command": [text, 1, None]}) == {"command": [expected, 1, None]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://key:secret@host/faces", "s3://host/faces"),
        ("https://user:pass@example.org/a", "https://example.org/a"),
        ("--token hf_abcdefghijklmnopqrstuvwxyz", "--token (token)"),
        ("x=ghp_0123456789abcdef, y", "x=(token), y"),
        ("hf_short", "hf_short"),
    ],
)
def test_no_password_and_no_token_is_published(text, expected):
    assert remove_private({"command": [text]}) == {"command": [expected]}


MARKUP = {
    "heading": "x\n# Heading",
    "remote picture": "![x](https://evil.example/x.png)",
    "link": "[x](https://evil.example)",
    "html": "<img src=https://evil.example/x.png onerror=alert(1)>",
    "table": "a | b | c",
    "code": "`x` ```y```",
    "emphasis": "**bold** _slanted_",
    "comment": "<!-- hidden",
    "template": "{{ repo_id }}",
    "list": "x\n- item",
    "address": "https://evil.example/x.png",
}


@pytest.mark.parametrize("what", MARKUP)
@pytest.mark.parametrize("place", ["label", "probe", "source", "terms", "group", "feature"])
def test_text_from_data_is_shown_as_it_is(folder, what, place):
    text = MARKUP[what]
    probe = json.loads(json.dumps(PROBE | {"groups": GROUPS}))
    probes = {text if place == "probe" else "raf": probe}
    if place == "source":
        probe["parts"][0]["test"]["source"] = text
    if place == "group":
        probe["groups"] = {"gender": {text: GROUPS["gender"]["female"]}}
    if place == "feature":
        probe["results"] = {text: PROBE["results"]["face"]}
    terms = text if place == "terms" else "own"
    facts = gather_facts(folder("expression", probes=probes), "user/faces", training_data=[f"ours: {terms}"])
    plain = facts | {"probes": {"raf": PROBE | {"groups": GROUPS}}, "training_data": [{"name": "ours", "terms": "own"}]}
    if place == "label":
        facts = facts | {"config": facts["config"] | {"id2label": {0: text, 1: "glad"}}}
    body, plain_body = (render_model_card(TEMPLATES, given).split("---\n", 2)[2] for given in (facts, plain))
    assert "".join(escape_markdown(text).split()) in "".join(body.split())
    rendered, plain = (MarkdownIt("commonmark").enable("table").render(text) for text in (body, plain_body))
    assert "evil.example" not in re.sub(r">[^<]*<", "><", rendered)
    for tag in ("<h1", "<h2", "<h3", "<img", "<em>", "<ul>", "<td", "<a ", "<script"):
        assert rendered.count(tag) == plain.count(tag), tag


def test_results_that_are_incomplete_are_named(folder):
    probe = {key: value for key, value in PROBE.items() if key != "selection"}
    with pytest.raises(ValueError, match=r"of `raf` are not as `pcl probe` writes them \(KeyError: 'selection'"):
        render_model_card(TEMPLATES, gather_facts(folder(probes={"raf": probe}), "user/faces"))


def test_developer_size_and_license_are_told(folder):
    given = {"license": "cc-by-4.0", "parameters": 1_234_567, "gmacs": 0.0521}
    card = render_model_card(TEMPLATES, gather_facts(folder(), "jane/faces", **given))
    for text in ("| jane |", "1,234,567", "0.052 GMACs", "| cc-by-4.0 |", "arxiv.org/abs/2211.13490", "feature maps"):
        assert text in card
    assert lint(card, TEMPLATES, gather_facts(folder(), "jane/faces", **given)) == []


class TestLint:
    @pytest.fixture
    def facts(self, folder):
        return gather_facts(folder(probes={"raf": PROBE}), "user/faces")

    def faults(self, facts, old: str, new: str) -> list[str]:
        card = render_model_card(TEMPLATES, facts)
        assert old in card
        return lint(card.replace(old, new, 1), TEMPLATES, facts)

    def test_a_number_that_no_file_holds(self, facts):
        assert self.faults(facts, "0.366", "0.466") == ["a number that no file holds: 0.466"]
        assert self.faults(facts, "204,800", "204,801") == ["a number that no file holds: 204,801"]

    @pytest.mark.parametrize("text", ["{{ name }}", "None", "nan", "[More Information Needed]"])
    def test_what_is_left_unfilled(self, facts, text):
        assert any("left unfilled" in fault for fault in self.faults(facts, "NVIDIA H100", text))

    def test_front_matter_that_is_broken(self, facts):
        assert any("front matter" in fault for fault in self.faults(facts, "  results:", "  outcome:"))
        assert any("front matter" in fault for fault in self.faults(facts, "library_name: ", "library_name: ]: "))

    def test_a_template_that_asks_for_what_is_not_there(self, facts):
        with pytest.raises(ValueError, match=r"template asks for what .* lack: 'no' is undefined"):
            render_model_card(TEMPLATES | {"pretrained.md": "{{ no.such }}"}, facts)


@pytest.mark.parametrize(
    ("model_class", "changes"),
    [
        (PCLForPreTraining, {}),
        (PCLForHeadPoseEstimation, {}),
        (PCLModel, {"verification_threshold": 0.5}),
        (PCLForImageClassification, {"problem_type": "multi_label_classification"}),
        (PCLForImageClassification, {"problem_type": "single_label_classification"}),
    ],
)
def test_the_code_in_a_card_runs(tmp_path, monkeypatch, model_class, changes):
    monkeypatch.chdir(tmp_path)
    tiny.save(Path("user/faces"), model_class, **changes)
    for name in ("face.jpg", "other.jpg"):
        Image.radial_gradient("L").save(name)
    card = render_model_card(TEMPLATES, gather_facts(Path("user/faces"), "user/faces"))
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(snippet, {})
