"""Tests of folders of images, and of paths in data that must not be opened."""

import io
import logging
import os
import pickle
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from PIL import Image

from modeling_pcl.data.corpora import corpus_splits, load_corpus, load_pairs
from modeling_pcl.data.image_folders import IMAGE_SUFFIXES
from modeling_pcl.data.images import decode_image
from modeling_pcl.images_pcl import BrokenImageError


@pytest.fixture(autouse=True)
def separate_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encode_png(level: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), level).save(file, "PNG")
    return file.getvalue()


def write_images(folder: Path, *names: str) -> Path:
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_png(level))
    return folder


def read_levels(corpus) -> list[int]:
    return sorted(decode_image(row["image"], 8)[0, 0, 0].item() for row in corpus)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ("a.png", "b.png", "train.png"),
        ("dev_patel/0.png", "ann/0.png", "eval-1/0.png"),
        ("test/0.png", "ann/0.png"),
        ("train/0.png", "test/0.png", "beside.png"),
        ("a.JPG", "b.jfif", "c.AVIF", "d.jpe", "e.webp", "f.tiff", "g"),
        ("validation_0.png", "x/test-3.png", "y/deep/er/train 1.png"),
    ],
)
def test_a_folder_is_all_its_images(tmp_path, names, streaming):
    folder = write_images(tmp_path / "faces [v1]*", *names)
    assert corpus_splits(str(folder)) == ["train"]
    assert read_levels(load_corpus(str(folder), streaming=streaming)) == list(range(len(names)))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train/0.png", "val/0.png", "test/0.png"), ["test", "train", "validation"]),
        (("Training/a/0.png", "Testing/b/0.png"), ["test", "train"]),
        (("train/0.png",), ["train"]),
    ],
)
def test_folders_that_are_all_splits_are_splits(tmp_path, names, splits):
    folder = write_images(tmp_path / "faces", *names)
    assert sorted(corpus_splits(str(folder))) == splits
    assert sum(len(load_corpus(str(folder), split)) for split in splits) == len(names)
    with pytest.raises(ValueError, match="split `extra`, does not open"):
        load_corpus(str(folder), "extra")


def test_folders_of_one_depth_are_labels_below_the_splits(tmp_path):
    corpus = load_corpus(str(write_images(tmp_path / "classes", "happy/0.png", "sad/0.png", "sad/1.png")))
    assert corpus.features["label"].names == ["happy", "sad"]
    assert corpus["label"] == [0, 1, 1]
    assert "label" not in load_corpus(str(write_images(tmp_path / "splits", "train/0.png", "test/0.png"))).column_names
    assert (
        "label" not in load_corpus(str(write_images(tmp_path / "depths", "happy/0.png", "sad/new/0.png"))).column_names
    )


def test_what_is_no_image_is_counted_and_named(tmp_path, caplog):
    folder = write_images(tmp_path / "faces", "a.png", ".hidden.png", "__MACOSX/a.png")
    for name in ("notes.txt", "clip.mp4", "list", "x/labels.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no image")
    with caplog.at_level(logging.WARNING):
        assert read_levels(load_corpus(str(folder))) == [0]
    assert "4 files" in caplog.text
    assert "clip.mp4, list, notes.txt, ..." in caplog.text


def test_a_table_without_file_names_is_refused(tmp_path):
    folder = write_images(tmp_path / "faces", "a.png")
    (folder / "metadata.csv").write_text("name,subject\na.png,s1\n")
    with pytest.raises(ValueError, match=r"metadata.csv needs a column `file_name`; it has name, subject"):
        load_corpus(str(folder))


def test_images_without_a_line_in_the_table_are_counted(tmp_path, caplog):
    folder = write_images(tmp_path / "faces", "x/a.png", "x/b.png")
    (folder / "x/metadata.jsonl").write_text('{"file_name": "b.png", "subject": "s1"}\n')
    with caplog.at_level(logging.WARNING):
        corpus = load_corpus(str(folder))
    assert [(row["subject"], decode_image(row["image"], 8)[0, 0, 0].item()) for row in corpus] == [("s1", 1)]
    assert "1 images in" in caplog.text


def test_suffixes_are_those_of_pictures():
    assert {".jpg", ".jfif", ".jpe", ".webp", ".tiff", ".avif", ".pgm", ".gif"} <= IMAGE_SUFFIXES
    assert not {".eps", ".ps", ".pdf", ".mpg", ".h5", ".txt"} & IMAGE_SUFFIXES


@pytest.fixture
def secrets(tmp_path) -> dict[str, str]:
    """Paths that must be refused, with the expected reasons."""
    write_images(tmp_path / "private", "face.png")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    os.mkfifo(corpus / "fifo.png")
    with open(corpus / "sparse.png", "wb") as file:
        file.truncate(6 * 2**30)
    (corpus / "link.png").symlink_to(tmp_path / "private/face.png")
    (corpus / "folder").symlink_to(tmp_path / "private")
    (corpus / "loop.png").symlink_to(corpus / "loop.png")
    return {
        "http://127.0.0.1:9/face.png": "own corpus",
        "file://" + str(tmp_path / "private/face.png"): "own corpus",
        "zip://a.png::" + str(tmp_path / "private/faces.zip"): "own corpus",
        "hf://datasets/other/faces@main/a.png": "own corpus",
        str(tmp_path / "private/face.png"): "own corpus",
        "../private/face.png": "own corpus",
        "link.png": "own corpus",
        "folder/face.png": "own corpus",
        "loop.png": "own corpus|symbolic links",
        "/dev/zero": "own corpus",
        "fifo.png": "not a regular file",
        "sparse.png": "more than 268435456",
        "nul\0.png": "own corpus",
        "missing.png": "No such file",
    }


@pytest.mark.parametrize("form", ["images", "metadata", "parquet", "pattern", "saved"])
@pytest.mark.parametrize("name", ["faces", "./faces", "../here/faces", "faces [1]"])
def test_a_corpus_opens_by_a_relative_path(tmp_path, monkeypatch, name, form):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_images(Path(name), "a.png", "sub/b.png", "sub/c.png")
    rows = Dataset.from_dict({"image": [{"bytes": None, "path": path} for path in ("a.png", "sub/b.png", "sub/c.png")]})
    if form == "metadata":
        (Path(name) / "metadata.csv").write_text("file_name,subject\na.png,1\nsub/b.png,2\nsub/c.png,2\n")
    elif form == "parquet":
        rows.to_parquet(Path(name) / "rows.parquet")
        name += "/rows.parquet"
    elif form == "pattern":
        rows.to_parquet("faces-0.parquet")
        write_images(Path(), "a.png", "sub/b.png", "sub/c.png")
        name = "faces-*.parquet"
    elif form == "saved":
        rows.save_to_disk(name)
    assert read_levels(load_corpus(name)) == [0, 1, 2]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_no_path_from_data_is_trusted(tmp_path, secrets, form, streaming):
    corpus = write_images(tmp_path / "corpus", "inside.png")
    paths = ["inside.png", str(corpus / "inside.png"), *secrets]
    images = [{"bytes": None, "path": path} for path in paths] + [{"bytes": encode_png(), "path": "/etc/passwd"}]
    rows = Dataset.from_dict({"subject": [str(row) for row in range(len(images))], "image": images})
    if form == "saved":
        rows.save_to_disk(corpus)
        loaded = load_corpus(str(corpus), streaming=streaming)
    else:
        rows.to_parquet(corpus / "faces.parquet")
        loaded = load_corpus(str(corpus / "faces.parquet"), streaming=streaming)
    rows = list(loaded)
    assert [row["subject"] for row in rows] == [str(row) for row in range(len(images))]
    for path, row in zip(paths, rows):
        if path in secrets:
            with pytest.raises(BrokenImageError, match=secrets[path]) as refusal:
                decode_image(row["image"], 8)
            assert refusal.value.name.endswith(path)
        else:
            decode_image(row["image"], 8)
    decode_image(rows[-1]["image"], 8)  # The bytes are decoded, not the path.


def test_a_stream_goes_to_workers_that_are_started_anew(tmp_path):
    write_images(tmp_path, "a.png")
    Dataset.from_dict({"image": [{"bytes": None, "path": "a.png"}]}).to_parquet(tmp_path / "faces.parquet")
    stream = pickle.loads(pickle.dumps(load_corpus(str(tmp_path / "faces.parquet"), streaming=True)))
    assert read_levels(stream) == [0]


def test_no_path_of_a_pair_is_trusted(tmp_path):
    write_images(tmp_path, "private.png", "corpus/a.png")
    records = [{"bytes": None, "path": path} for path in ("a.png", str(tmp_path / "private.png"))]
    pairs = {"image_a": records, "image_b": records[::-1], "same": [True, False], "fold": [1, 2]}
    Dataset.from_dict(pairs).to_parquet(tmp_path / "corpus/pairs.parquet")
    loaded = load_pairs(str(tmp_path / "corpus/pairs.parquet"), "train")
    for column, outside in {"image_a": 1, "image_b": 0}.items():
        decode_image(loaded[1 - outside][column], 8)
        with pytest.raises(BrokenImageError, match="own corpus"):
            decode_image(loaded[outside][column], 8)


def test_a_link_out_of_a_folder_is_a_broken_row_and_one_inside_is_followed(tmp_path, secrets):
    corpus = write_images(tmp_path / "corpus", "inside.png")
    (corpus / "again.png").symlink_to(corpus / "inside.png")
    outcomes = {}
    for row in load_corpus(str(corpus)):
        name = Path(row["image"]["path"]).name
        try:
            outcomes[name] = decode_image(row["image"], 8).shape
        except BrokenImageError as error:
            outcomes[name] = error.reason
    assert outcomes["inside.png"] == outcomes["again.png"] == (3, 8, 8)
    assert "own corpus" in outcomes["link.png"]
    assert "regular" in outcomes["fifo.png"]
    assert set(outcomes) == {"inside.png", "again.png", "link.png", "fifo.png", "sparse.png", "loop.png"}


@pytest.mark.parametrize("name", ["faces [1].parquet", "face?.parquet", "{a}/*.parquet/faces.parquet"])
def test_a_parquet_file_with_marks_of_a_pattern_in_its_name_opens(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict({"image": [encode_png(level) for level in range(3)]}).to_parquet(tmp_path / name)
    assert read_levels(load_corpus(str(tmp_path / name))) == [0, 1, 2]


def test_a_folder_of_parquet_with_brackets_in_its_name_opens(tmp_path):
    folder = tmp_path / "faces [v1]"
    folder.mkdir()
    for split in ("train", "test"):
        table = Dataset.from_dict({"image": [{"bytes": None, "path": "face.png"}]})
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    write_images(folder, "face.png")
    assert sorted(corpus_splits(str(folder))) == ["test", "train"]
    assert read_levels(load_corpus(str(folder), "test")) == [0]
