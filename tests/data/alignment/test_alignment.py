"""Photos and videos become a corpus of faces, the same whatever happens on the way."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from datasets import load_dataset
from photos import group, portrait
from PIL import Image

from modeling_pcl import PCLImageProcessor
from modeling_pcl.data.alignment import alignment
from modeling_pcl.data.alignment.alignment import align
from modeling_pcl.data.alignment.arguments import AlignmentArguments
from modeling_pcl.data.corpora import load_corpus, read_face_crop
from modeling_pcl.data.video_index import VideoIndex


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "people").mkdir(parents=True)
    portrait().save(folder / "people/a.png")
    group((40, 100, 1.0), (400, 100, 1.5)).save(folder / "people/b.jpg", quality=95)
    Image.new("RGB", (200, 100), "gray").save(folder / "people/empty.png")
    (folder / "people/c.png").write_bytes((folder / "people/a.png").read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A video of two people, the second of whom appears later, and after a cut one of them: 3 s at 10 fps."""
    path = tmp_path_factory.mktemp("video") / "two.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 480, 240, "yuv420p"
        for number in range(30):
            if number < 20:
                places = [(10 + 3 * number, 10, 0.9), *([(280 - 3 * number, 20, 0.8)] if number > 8 else [])]
                frame = group(*places, size=(480, 240))
            else:
                frame = Image.new("RGB", (480, 240), (150, 30, 30))
                frame.paste(group((10, 10, 0.9), size=(220, 220)), (120, 10))
            for packet in stream.encode(av.VideoFrame.from_image(frame)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def make_arguments(source: object, output: Path, **options) -> AlignmentArguments:
    return AlignmentArguments(input=str(source), output_dir=output, **options)


def align_faces(source: object, output: Path, **options) -> dict:
    return align(make_arguments(source, output, **{"num_proc": 1, "longest_px": 320, **options}))


def hash_files(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_folder_of_photos_is_a_corpus_of_its_faces(photos, tmp_path):
    report = align_faces(photos, tmp_path / "faces")
    assert report["rows"] == {"data": {"train": 3}}
    assert (report["photos"], report["photos_with_several_faces"]) == (3, 1)
    missed = {entry["name"]: entry["reason"] for entry in report["missed"]}
    assert missed["people/empty.png"] == "no face is found"
    assert "truncated" in missed["people/c.png"] or "cut short" in missed["people/c.png"]
    corpus = load_corpus(str(tmp_path / "faces"))
    names = [row["image"]["path"] for row in corpus]
    assert names == ["people/a_0.png", "people/b_0.png", "people/b_1.png"]
    assert len(load_dataset(str(tmp_path / "faces"), split="train")) == 3
    assert read_face_crop(str(tmp_path / "faces")) == {"align": "eyes", "margin": 0.15, "padding": "black"}
    with Image.open(tmp_path / "faces/faces.jpg") as sheet:
        assert sheet.width > 360
    assert not (tmp_path / "faces/.aligning").exists()


def test_its_faces_are_those_of_the_processor(photos, tmp_path):
    align_faces(photos / "people/b.jpg", tmp_path / "faces", align="eyes", margin=0.1)
    processor = PCLImageProcessor(face_crop=read_face_crop(str(tmp_path / "faces")), face_detector={"longest_px": 320})
    corpus, faces = load_dataset(str(tmp_path / "faces"), split="train"), processor.cut_faces(photos / "people/b.jpg")
    assert len(corpus) == len(faces) == 2
    for row, face in zip(corpus, faces):
        assert np.array_equal(np.asarray(row["image"]), np.asarray(face.image))
        np.testing.assert_allclose(row["box"], face.box, atol=0.01)


def test_one_person_of_a_video_is_one_subject_in_a_shot(video, tmp_path):
    report = align_faces(video, tmp_path / "faces", every_s=0.2)
    assert (report["people_in_videos"], report["shots"], report["photos"]) == (3, 2, 15)
    corpus = load_corpus(str(tmp_path / "faces"))
    counts = Counter(corpus["subject"])
    assert list(counts) == ["two.mp4#1", "two.mp4#2", "two.mp4#3"]
    assert set(corpus["video"]) == {"two.mp4"}
    frames = [row["frame"] for row in corpus if row["subject"] == "two.mp4#1"]
    assert frames == sorted(frames)
    assert max(frames) < 20
    # Training uses these rows as other frames of the same person.
    others = VideoIndex(corpus).find_other_frames(0)
    assert {corpus[int(row)]["subject"] for row in others} == {"two.mp4#1"}
    # In the last shot nothing moves.
    assert counts["two.mp4#3"] == 1
    assert report["thinned"] >= 4
    assert align_faces(video, tmp_path / "all", every_s=0.2, min_difference=0)["thinned"] == 0


def test_photos_and_videos_of_one_folder_go_together(photos, video, tmp_path):
    (photos / "film").mkdir()
    (photos / "film/two.mp4").write_bytes(video.read_bytes())
    report = align_faces(photos, tmp_path / "faces", every_s=0.5, size=32, jpeg_quality=90)
    corpus = load_dataset(str(tmp_path / "faces"), split="train")
    assert len(corpus) == report["rows"]["data"]["train"] > 5
    assert corpus["subject"][:3] == [None, None, None]
    assert corpus["subject"][3] == "film/two.mp4#1"
    assert {row["image"].format for row in corpus.with_format(None)} == {"JPEG"}
    assert max(row["image"].width for row in corpus) == 32


def test_a_corpus_keeps_its_labels_and_splits(photos, tmp_path):
    for split, name in {"train": "a", "test": "b"}.items():
        (tmp_path / f"labelled/{split}/ann").mkdir(parents=True)
        portrait().save(tmp_path / f"labelled/{split}/ann/{name}.png")
    (tmp_path / "labelled/metadata.csv").write_text("file_name,age\ntrain/ann/a.png,38\ntest/ann/b.png,39\n")
    report = align_faces(tmp_path / "labelled", tmp_path / "faces")
    assert sum(report["rows"]["data"].values()) == 2
    ages = [row["age"] for split in report["rows"]["data"] for row in load_corpus(str(tmp_path / "faces"), split)]
    assert sorted(ages) == [38, 39]


@pytest.mark.parametrize(("align_by", "roll"), [("none", 20), ("eyes", 0)])
def test_labels_of_head_pose_are_turned_with_the_square(tmp_path, align_by, roll):
    (tmp_path / "posed").mkdir()
    portrait().rotate(-20, Image.Resampling.BICUBIC).save(tmp_path / "posed/a.png")  # Clockwise.
    (tmp_path / "posed/metadata.csv").write_text("file_name,yaw,pitch,roll\na.png,0.0,0.0,20.0\n")
    align_faces(tmp_path / "posed", tmp_path / "faces", align=align_by)
    (row,) = load_corpus(str(tmp_path / "faces"))
    assert row["roll"] == pytest.approx(roll, abs=4)  # As exact as the detected eyes.
    assert abs(row["yaw"]) < 1


def test_several_processes_and_a_run_that_was_stopped_give_the_same_bytes(photos, tmp_path, monkeypatch):
    align_faces(photos, tmp_path / "one", photos_per_file=1)
    align_faces(photos, tmp_path / "two", photos_per_file=1, num_proc=2)
    assert hash_files(tmp_path / "two") == hash_files(tmp_path / "one")
    written = alignment.FaceWriter.__call__

    def stop_at_the_third(writer, unit):
        if unit.number == 2:
            raise KeyboardInterrupt
        return written(writer, unit)

    monkeypatch.setattr(alignment.FaceWriter, "__call__", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        align_faces(photos, tmp_path / "stopped", photos_per_file=1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="unfinished corpus that was begun with other margin"):
        align_faces(photos, tmp_path / "stopped", photos_per_file=1, margin=0.5)
    assert json.loads((tmp_path / "stopped/.aligning/plan.json").read_text())["options"]["margin"] == 0.15
    align_faces(photos, tmp_path / "stopped", photos_per_file=1)
    assert hash_files(tmp_path / "stopped") == hash_files(tmp_path / "one")


@pytest.mark.parametrize(
    ("name", "message"),
    [("empty.png", "Not one face in"), ("notes.txt", "is no photo, no video"), ("none", "does not open")],
)
def test_an_input_without_a_face_is_refused(tmp_path, name, message):
    Image.new("RGB", (200, 100), "gray").save(tmp_path / "empty.png")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=message):
        align_faces(tmp_path / name, tmp_path / "faces")
    assert not (tmp_path / "faces/data").exists()


def test_options_out_of_range_are_refused(tmp_path, photos):
    with pytest.raises(ValueError, match="`--jpeg_quality` must be from 1 to 100"):
        make_arguments(photos, tmp_path / "faces", jpeg_quality=0)
    with pytest.raises(ValueError, match="lies in INPUT"):
        make_arguments(photos, photos / "faces")
    with pytest.raises(ValueError, match="`margin` must be a number"):
        align_faces(photos, tmp_path / "faces", margin=9)
    with pytest.raises(ValueError, match=r"`min_score` must be between 0 and 1, got 1.5"):
        align_faces(photos, tmp_path / "faces", min_score=1.5)
    assert not (tmp_path / "faces").exists()
