import json
import os
from pathlib import Path

import pytest
import torch
import video_files
from datasets import ClassLabel, Dataset, DatasetDict, Image, load_dataset
from filelock import FileLock
from PIL import Image as PILImage
from safetensors.torch import load_file

from modeling_pcl import PCLForPreTraining, PCLModel
from modeling_pcl.data import image_decoder
from modeling_pcl.data.images import decode_image
from modeling_pcl.data.sources import CorpusSource
from modeling_pcl.features_pcl import FEATURES
from modeling_pcl.probes import embedding, feature_files
from modeling_pcl.probes import encoder as encoder_module

NAMES = ["red", "green", "blue"]
BROKEN = (3, 11)
ROWS = 23


@pytest.fixture(scope="module")
def corpus(faces, tmp_path_factory) -> Path:
    """Faces of three colours, of which two do not decode."""
    path = tmp_path_factory.mktemp("corpus") / "faces.parquet"
    colours = [None if row in BROKEN else row % 3 for row in range(ROWS)]
    made = faces(colours, colour=[row % 3 for row in range(ROWS)], age=[20.0 + row for row in range(ROWS)])
    made.cast_column("colour", ClassLabel(names=NAMES)).to_parquet(path)
    return path


@pytest.fixture
def embed(call, model, corpus):
    """Embed the corpus with the tiny model into a folder; options of a test come last, and win."""

    def run(folder: Path, *options, model=model):
        own = (model, "--corpus", corpus, "--output_dir", folder, "--rows_per_file", 8, "--batch_size", 3)
        call("embed", *own, *options)

    return run


@pytest.fixture
def refuse(refused, model, corpus):
    def run(folder: Path, *options, model=model) -> str:
        own = (model, "--corpus", corpus, "--output_dir", folder, "--rows_per_file", 8, "--batch_size", 3)
        return refused("embed", *own, *options)

    return run


@pytest.fixture
def stopping(monkeypatch):
    """Let the encoder stop as by Ctrl-C when it is called for the n-th time; how often it was called is counted."""
    encoders = encoder_module
    encode = encoders.TorchEncoder.__call__
    state = {"calls": 0, "stop": None}

    def counted(self, images):
        state["calls"] += 1
        if state["calls"] == state["stop"]:
            raise KeyboardInterrupt
        return encode(self, images)

    monkeypatch.setattr(encoders.TorchEncoder, "__call__", counted)

    def begin(stop: int | None = None) -> dict:
        state.update(calls=0, stop=stop)
        return state

    return begin


def table(folder: Path):
    return load_dataset("parquet", data_files=str(folder / "*.parquet"), split="train")


def record(folder: Path) -> dict:
    return json.loads((folder / "embed.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a run wrote, but for when and by which words it was started."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
    written = record(folder)
    for name in ("started", "command", "git_revision"):
        written.pop(name)
    written["options"].pop("output_dir")
    return found | {"embed.json": json.dumps(written)}


class TestFeatures:
    @torch.no_grad()
    def test_each_row_has_its_own_columns_and_the_features_that_the_model_gives_its_image(
        self, embed, model, corpus, tmp_path
    ):
        embed(tmp_path / "out")
        found = table(tmp_path / "out")
        assert found.column_names == ["row", "colour", "age", "trunk", "face", "pose"]
        assert found.features["colour"].names == NAMES
        rows = [row for row in range(ROWS) if row not in BROKEN]
        assert found["row"][:] == rows
        assert found["colour"][:] == [row % 3 for row in rows]
        assert found["age"][:] == [20.0 + row for row in rows]
        records = Dataset.from_parquet(str(corpus)).cast_column("image", Image(decode=False))["image"][:]
        images = torch.stack([decode_image(records[row], 32) for row in rows]) / 255
        expected = PCLModel.from_pretrained(model)(images)
        for name, output in FEATURES.items():
            torch.testing.assert_close(found.with_format("torch")[name][:], expected[output], rtol=1e-4, atol=1e-5)

    def test_embed_json_says_what_was_done_and_names_what_is_broken(self, embed, model, tmp_path, capsys):
        embed(tmp_path / "out")
        written = record(tmp_path / "out")
        assert [entry["row"] for entry in written["broken"]] == list(BROKEN)
        assert all("no image format" in entry["reason"] for entry in written["broken"])
        assert written["shapes"] == {name: [21, 32] for name in ("trunk", "face", "pose")}
        assert written["files"] == [f"features-0000{number}.parquet" for number in range(3)]
        assert written["image_size"] == 32
        assert written["model_revision"].startswith("sha256:")
        assert "23 rows, sha256:" in written["data_revision"]
        assert written["options"]["model"] == str(model)
        assert written["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert "face 21 x 32, pose 21 x 32; files: 3; 2 broken" in capsys.readouterr().out

    def test_the_folder_itself_opens_as_a_dataset(self, embed, tmp_path):
        embed(tmp_path / "out")
        assert load_dataset(str(tmp_path / "out"), split="train")["row"][:] == table(tmp_path / "out")["row"][:]

    def test_safetensors_hold_the_same_numbers_with_the_rows_beside_them(self, embed, tmp_path):
        embed(tmp_path / "parquet")
        embed(tmp_path / "tensors", "--format", "safetensors", "--features", "face")
        expected = table(tmp_path / "parquet").with_format("torch")[:]
        shards = [load_file(path) for path in sorted((tmp_path / "tensors").glob("features-*.safetensors"))]
        assert [list(shard) for shard in shards] == [["face"]] * 3
        assert torch.equal(torch.cat([shard["face"] for shard in shards]), expected["face"])
        assert table(tmp_path / "tensors")["row"][:] == expected["row"].tolist()

    def test_half_precision_and_another_size_are_what_they_say(self, embed, tmp_path):
        embed(tmp_path / "exact", "--image_size", 40)
        embed(tmp_path / "half", "--image_size", 40, "--precision", "bf16", "--format", "safetensors")
        half = load_file(tmp_path / "half" / "features-00000.safetensors")["pose"]
        exact = table(tmp_path / "exact").with_format("torch")["pose"][: len(half)]
        assert half.dtype == torch.bfloat16
        assert half.shape[1] == 8 * 3 * 3
        assert 1e-4 < (half.float() - exact).norm() / exact.norm() < 0.05

    def test_by_default_a_file_holds_so_many_rows_as_fit_into_its_bytes(
        self, call, model, corpus, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(feature_files, "FILE_BYTES", 10 * 3 * 32 * 4)
        call("embed", model, "--corpus", corpus, "--output_dir", tmp_path / "out")
        shards = [Dataset.from_parquet(str(path)) for path in sorted((tmp_path / "out").glob("*.parquet"))]
        assert [len(shard) for shard in shards] == [9, 9, 3]  # Of the first and second ten rows one is broken.

    def test_several_cores_write_what_one_does(self, embed, tmp_path):
        embed(tmp_path / "one")
        torch.set_num_threads(3)
        try:
            embed(tmp_path / "three")
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(1)
        one, three = contents(tmp_path / "one"), contents(tmp_path / "three")
        assert {name: three[name] for name in three if name.endswith("parquet")} == {
            name: one[name] for name in one if name.endswith("parquet")
        }

    def test_beside_an_accelerator_all_cores_decode_and_the_features_are_the_same(self, embed, tmp_path, monkeypatch):
        embed(tmp_path / "cpu")
        open_backend = embedding.open_backend

        def accelerated(*arguments):
            encoder = open_backend(*arguments)
            encoder.device = torch.device("cuda")  # In name: the model stays where it is.
            return encoder

        monkeypatch.setattr(embedding, "open_backend", accelerated)
        embed(tmp_path / "cuda")
        assert contents(tmp_path / "cuda") == contents(tmp_path / "cpu")


class TestInputs:
    def test_a_stream_gives_the_same_files(self, embed, tmp_path):
        embed(tmp_path / "table")
        embed(tmp_path / "stream", "--streaming")
        tables, streamed = contents(tmp_path / "table"), contents(tmp_path / "stream")
        assert tables.keys() == streamed.keys()
        for name in set(tables) - {"embed.json"}:
            assert tables[name] == streamed[name]

    def test_a_tree_of_frames_gives_their_paths_below_it(self, embed, faces, tmp_path):
        rows = faces([0, 1, 2, 0])["image"][:]
        names = ["a/first/0001.png", "a/first/0002.png", "a/second/0001.png", "b/first/0001.png"]
        for name, row in zip(names, rows):
            (tmp_path / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "frames" / name).write_bytes(row["bytes"])
        embed(tmp_path / "out", "--corpus", tmp_path / "frames")
        assert table(tmp_path / "out")["path"][:] == names
        (tmp_path / "link").symlink_to(tmp_path / "frames")
        embed(tmp_path / "linked", "--corpus", tmp_path / "link")
        assert table(tmp_path / "linked")["path"][:] == names

    def test_a_saved_dataset_is_read_by_its_split(self, embed, faces, tmp_path):
        splits = {"train": faces([0]), "test": faces([1, 2, 0], age=[1, 2, 3])}
        DatasetDict(splits).save_to_disk(tmp_path / "saved")
        embed(tmp_path / "out", "--corpus", tmp_path / "saved", "--split", "test")
        assert table(tmp_path / "out")["age"][:] == [1, 2, 3]

    def test_columns_of_other_images_are_left_out(self, embed, faces, tmp_path):
        corpus = faces([0, 1])
        corpus = corpus.add_column("mask", corpus["image"][:]).cast_column("mask", Image())
        corpus.to_parquet(tmp_path / "faces.parquet")
        embed(tmp_path / "out", "--corpus", tmp_path / "faces.parquet")
        assert table(tmp_path / "out").column_names == ["row", "trunk", "face", "pose"]


class TestVideos:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory) -> Path:
        """Two videos of 50 frames, 2 s, that open, one of 10, one that is damaged, and one that is none."""
        folder = tmp_path_factory.mktemp("videos")
        (folder / "b").mkdir()
        video_files.write(folder / "a.mp4", 50)
        video_files.write(folder / "b" / "a.mkv", 50)
        (folder / "c.mp4").write_text("no video")
        video_files.damage(folder / "a.mp4", folder / "d.mp4")
        video_files.write(folder / "e.mp4", 10)
        return folder

    @torch.no_grad()
    def test_frames_come_with_their_video_and_time(self, embed, folder, model, tmp_path):
        embed(tmp_path / "out", "--corpus", folder, "--every_s", 0.5)
        found = table(tmp_path / "out")
        times = [(row["video"], row["frame"], row["time_s"]) for row in found.to_list()]
        expected = [(name, frame, frame / 25) for name in ("a.mp4", "b/a.mkv") for frame in (0, 13, 25, 38)]
        assert times[:8] == [(name, frame, pytest.approx(time_s, abs=1e-3)) for name, frame, time_s in expected]
        assert {name for name, *_ in times[8:]} == {"d.mp4", "e.mp4"}
        grey = torch.full((1, 3, 32, 32), video_files.grey_level(25) / 255)
        features = PCLModel.from_pretrained(model)(grey).face_features[0]
        found = found.with_format("torch")["face"][:]
        nearest = (found[:4] - features).norm(dim=1).argmin()
        assert nearest == 2
        assert (found[2] - features).norm() < 0.05 * features.norm()

    def test_broken_videos_are_named_with_the_reason(self, embed, folder, tmp_path, caplog):
        embed(tmp_path / "out", "--corpus", folder, "--every_s", 0.5)
        broken = {entry["video"]: entry["reason"] for entry in record(tmp_path / "out")["broken"]}
        assert list(broken) == ["c.mp4", "d.mp4"]
        assert broken["c.mp4"] == "Invalid data found when processing input"
        assert "packets or frames cannot be decoded" in broken["d.mp4"]
        assert "c.mp4 was not read completely" in caplog.text

    def test_every_frame_of_one_file(self, embed, folder, tmp_path):
        embed(tmp_path / "out", "--corpus", folder / "e.mp4", "--every_s", 0)
        assert table(tmp_path / "out")["frame"][:] == list(range(10))
        assert set(table(tmp_path / "out")["video"][:]) == {"e.mp4"}

    @pytest.mark.parametrize("stop", range(2, 9))
    def test_stopped_anywhere_and_gone_on_with_the_bytes_are_the_same(self, stop, embed, folder, stopping, tmp_path):
        options = ("--corpus", folder, "--every_s", 0.3, "--rows_per_file", 5)
        stopping()
        embed(tmp_path / "whole", *options)
        stopping(stop)
        with pytest.raises(SystemExit) as stopped:
            embed(tmp_path / "stopped", *options)
        assert stopped.value.code == 130
        stopping()
        embed(tmp_path / "stopped", *options)
        assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")

    def test_a_file_that_is_no_video_and_a_mixed_folder_are_refused(self, refuse, folder, tmp_path):
        assert "No image of" in refuse(tmp_path / "out", "--corpus", folder / "c.mp4")
        assert "does not open" in refuse(tmp_path / "out", "--corpus", folder / "none.mp4")
        (tmp_path / "mixed").mkdir()
        (tmp_path / "mixed" / "a.mp4").write_text("no video")
        PILImage.new("RGB", (32, 32)).save(tmp_path / "mixed" / "a.jpg")
        assert "contains images and videos" in refuse(tmp_path / "out", "--corpus", tmp_path / "mixed")


class TestGoingOn:
    @pytest.mark.parametrize("file_format", ["parquet", "safetensors"])
    @pytest.mark.parametrize("streaming", [False, True])
    def test_stopped_in_the_middle_and_gone_on_with_the_bytes_are_the_same(
        self, file_format, streaming, embed, stopping, tmp_path, capsys
    ):
        options = ("--format", file_format, "--streaming", streaming)
        whole = stopping()
        embed(tmp_path / "whole", *options)
        calls = whole["calls"]
        assert calls == 1 + 3 + 3 + 3  # one to know the widths, then rows by threes in files of 8, 8 and 7
        stopping(calls - 1)
        with pytest.raises(SystemExit) as stopped:
            embed(tmp_path / "stopped", *options)
        assert stopped.value.code == 130
        assert "stopped; the same command goes on" in capsys.readouterr().err
        assert "files" not in record(tmp_path / "stopped")
        again = stopping()
        embed(tmp_path / "stopped", *options)
        assert again["calls"] == 1 + 3  # Two files were whole.
        assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")

    def test_what_is_finished_is_not_encoded_again(self, embed, stopping, tmp_path):
        embed(tmp_path / "out")
        before, calls = contents(tmp_path / "out"), stopping()
        embed(tmp_path / "out")
        assert calls["calls"] == 1
        assert contents(tmp_path / "out") == before

    @pytest.mark.parametrize("lost", ["features-00001.parquet", "embed.json's end"])
    def test_what_is_missing_is_made_again(self, lost, embed, tmp_path):
        embed(tmp_path / "out")
        before, written = contents(tmp_path / "out"), record(tmp_path / "out")
        if lost.endswith("parquet"):
            (tmp_path / "out" / lost).unlink()
        else:
            kept = {name: written[name] for name in written if name not in ("files", "shapes", "broken", "image_size")}
            (tmp_path / "out" / "embed.json").write_text(json.dumps(kept))
        embed(tmp_path / "out")
        assert contents(tmp_path / "out") == before

    def test_a_full_disk_is_one_line_and_the_same_command_goes_on(self, embed, refuse, tmp_path, monkeypatch):
        embed(tmp_path / "whole")
        write_table = feature_files.pq.write_table

        def full(table, path, **options):
            if "00001" in path.name:
                path.write_bytes(b"PAR1 half a")
                raise OSError(28, "No space left on device")
            write_table(table, path, **options)

        monkeypatch.setattr(feature_files.pq, "write_table", full)
        assert "No space left on device" in refuse(tmp_path / "out")
        names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".lock")}
        assert names == {"embed.json", "features-00000.parquet"}
        monkeypatch.undo()
        embed(tmp_path / "out", "--batch_size", 8)  # Has no effect on what is written, within what floats have.
        assert table(tmp_path / "out")["row"][:] == table(tmp_path / "whole")["row"][:]

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--precision", "bf16", "other values of `--precision` (float32, now bf16)"),
            ("--features", "face", "other values of `--features` (['trunk', 'face', 'pose'], now ['face'])"),
            ("--rows_per_file", 9, "other values of `--rows_per_file` (8, now 9)"),
            ("--image_size", 48, "other values of `--image_size` (None, now 48)"),
            ("--format", "safetensors", "other values of `--format` (parquet, now safetensors)"),
        ],
    )
    def test_another_option_is_refused_by_name(self, option, value, said, embed, refuse, tmp_path):
        embed(tmp_path / "out")
        before = contents(tmp_path / "out")
        assert said in refuse(tmp_path / "out", option, value)
        assert contents(tmp_path / "out") == before

    def test_another_model_and_another_corpus_are_refused_by_name(self, embed, refuse, faces, tiny_config, tmp_path):
        embed(tmp_path / "out")
        PCLForPreTraining(tiny_config).save_pretrained(tmp_path / "other")
        faces([0, 1, 2]).to_parquet(tmp_path / "few.parquet")
        assert "other values of `--model` (sha256:" in refuse(tmp_path / "out", model=tmp_path / "other")
        assert "other values of `--corpus` (23 rows" in refuse(tmp_path / "out", "--corpus", tmp_path / "few.parquet")

    def test_two_processes_do_not_write_to_one_folder(self, refuse, tmp_path):
        (tmp_path / "out").mkdir()
        with FileLock(tmp_path / "out" / ".lock"):
            assert "Another process is writing" in refuse(tmp_path / "out")

    @pytest.mark.parametrize("content", ["no json", "[]", "{}", '{"options": 3}'])
    def test_a_folder_with_a_file_of_that_name_from_elsewhere_is_refused(self, content, refuse, tmp_path):
        (tmp_path / "embed.json").write_text(content)
        assert "was not written by `pcl embed`" in refuse(tmp_path)

    def test_features_of_an_unknown_origin_are_refused(self, embed, refuse, tmp_path):
        embed(tmp_path / "out")
        (tmp_path / "out" / "embed.json").unlink()
        assert "features-00000.parquet without embed.json" in refuse(tmp_path / "out")


@pytest.mark.parametrize(
    ("file_format", "name"),
    [
        ("parquet", "features-00001.parquet"),
        ("safetensors", "features-00001.safetensors"),
        ("safetensors", "rows-00001.parquet"),
    ],
)
@pytest.mark.parametrize("bytes_left", [0, 100])
def test_a_file_that_was_cut_short_is_written_again(embed, tmp_path, file_format, name, bytes_left, caplog):
    embed(tmp_path / "out", "--format", file_format)
    written = contents(tmp_path / "out")
    os.truncate(tmp_path / "out" / name, bytes_left)
    embed(tmp_path / "out", "--format", file_format)
    assert contents(tmp_path / "out") == written
    assert "is damaged, or was not finished: shards from there on are written again" in caplog.text


class TestRefusals:
    def test_an_encoder_whose_features_are_not_finite(self, refuse, monkeypatch, tmp_path):
        """As of an ONNX file, whose weights are not looked at."""
        nothing = torch.full((1, 32), float("nan"))
        monkeypatch.setattr(encoder_module.TorchEncoder, "__call__", lambda *_: dict.fromkeys(FEATURES, nothing))
        assert "computes features that are not finite" in refuse(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--corpus", "none.parquet"), "The corpus `none.parquet`, split `train`, does not open"),
            (("--split", "test"), "split `test`, does not open"),
            (("--features", "face", "mood"), "`--features` must be some of ['trunk', 'face', 'pose']"),
            (("--features", "face+pose"), "for `face+pose`, concatenate the columns `face` and `pose`"),
            (("--image_size", 31), "`--image_size` must be at least 32, got 31"),
            (("--every_s", -1), "`--every_s` must be at least 0, got -1.0"),
            (("--every_s", "nan"), "`--every_s` must be at least 0, got nan"),
            (("--rows_per_file", 0), "`--rows_per_file` must be at least 1"),
            (("--batch_size", 0), "`--batch_size` must be at least 1"),
            (("--max_broken_share", 2), "`--max_broken_share` must be in [0, 1]"),
        ],
    )
    def test_what_no_run_can_have_is_refused_and_nothing_is_written(self, options, said, refuse, tmp_path):
        assert said in refuse(tmp_path / "out", *options)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("column", ["row", "face"])
    def test_columns_that_would_be_overwritten_are_refused(self, column, refuse, faces, tmp_path):
        faces([0, 1], **{column: [1, 2]}).to_parquet(tmp_path / "faces.parquet")
        assert column in refuse(tmp_path / "out", "--corpus", tmp_path / "faces.parquet")

    def test_a_column_named_as_a_feature_that_is_not_asked_for_may_stay(self, embed, faces, tmp_path):
        faces([0, 1], face=[1, 2]).to_parquet(tmp_path / "faces.parquet")
        embed(tmp_path / "out", "--corpus", tmp_path / "faces.parquet", "--features", "pose")
        assert table(tmp_path / "out")["face"][:] == [1, 2]

    def test_more_broken_images_than_allowed_stop_the_run_and_the_option_lets_it_go_on(
        self, embed, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(image_decoder, "MIN_ATTEMPTS", 10)
        with pytest.raises(SystemExit):
            embed(tmp_path / "out", "--batch_size", 3)
        said = capsys.readouterr().err
        assert "2 of the 23 images" in said
        assert "raise `--max_broken_share`" in said
        embed(tmp_path / "out", "--batch_size", 3, "--max_broken_share", 0.1)
        assert len(table(tmp_path / "out")) == ROWS - len(BROKEN)

    def test_a_corpus_without_one_whole_image_or_without_rows_is_refused(self, refuse, faces, tmp_path):
        faces([None, None]).to_parquet(tmp_path / "broken.parquet")
        assert "No image" in refuse(tmp_path / "out", "--corpus", tmp_path / "broken.parquet")
        with pytest.raises(ValueError, match="`empty` has no rows"):
            CorpusSource(faces([0]).select([]), "empty", 32, 0.05)
