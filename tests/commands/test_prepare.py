import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import child
import numpy as np
import pytest
import refusals
import yaml
from datasets import load_dataset
from PIL import Image

from modeling_pcl.data.collections.layouts import LAYOUTS
from modeling_pcl.data.corpora import load_corpus, load_pairs

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_corpus.py"


def write_face(path: Path, number: int, side: int = 16):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((side, side)).save(path)


@pytest.fixture
def people(tmp_path) -> Path:
    """Ten people with six images each, a folder a person."""
    for number in range(60):
        write_face(tmp_path / "people" / f"p{number // 6}" / f"{number % 6}.jpg", number)
    return tmp_path / "people"


@pytest.fixture
def genki(tmp_path) -> Path:
    """Forty images, a quarter of them smiling."""
    folder = tmp_path / "genki"
    for number in range(1, 41):
        write_face(folder / "files" / f"file{number:04d}.jpg", number)
    (folder / "labels.txt").write_text("".join(f"{int(number % 4 == 0)} 0.1 -0.2 0.3\n" for number in range(40)))
    return folder


@pytest.fixture
def prepare(call, tmp_path, capsys) -> Callable[..., Path]:
    """Run the command in this process; the folder it made, with what it printed as `prepare.printed`."""

    def run(layout: str, input_dir: Path, *options: object, output: str = "corpus") -> Path:
        options = options if "--num_proc" in options else ("--num_proc", 1, *options)
        capsys.readouterr()
        call("prepare", layout, input_dir, "--output_dir", tmp_path / output, *options)
        run.printed = capsys.readouterr().out
        return tmp_path / output

    return run


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def sizes(folder: Path, split: str = "train") -> Counter:
    return Counter(Image.open(io.BytesIO(each["bytes"])).size for each in load_corpus(str(folder), split)["image"])


def test_a_collection_becomes_a_corpus_with_a_card_and_a_report(prepare, genki):
    folder = prepare("genki4k", genki, "--rows_per_file", 25)
    corpus = load_dataset(str(folder), split="train")
    assert len(corpus) == 40
    assert corpus.features["smile"].names == ["not smiling", "smiling"]
    assert sum(corpus["smile"]) == 10
    assert corpus[0]["yaw"] == pytest.approx(np.degrees(0.1), rel=1e-6)
    record = load_corpus(str(folder), "train")[7]["image"]
    assert record["bytes"] == (genki / "files" / "file0008.jpg").read_bytes()
    assert record["path"] == "files/file0008.jpg"
    assert list(files(folder)) == [
        "README.md",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "head_pose.png",
        "report.json",
    ]
    report = report_of(folder)
    assert report["rows"] == {"data": {"train": 40}}
    assert (report["options"]["layout"], report["options"]["rows_per_file"]) == ("genki4k", 25)
    assert "num_proc" not in report["options"]
    card = (folder / "README.md").read_text()
    assert "40 images in `train`" in card
    assert "| `yaw` | degrees, right-handed: positive is the nose to the right of the image |" in card
    assert "train 40" in prepare.printed
    assert "broken   0" in prepare.printed


def test_what_was_found_is_printed_for_a_person(prepare, people):
    (people / "p0" / "0.jpg").write_bytes(b"")
    (people / "p1" / "1.jpg").write_bytes((people / "p1" / "0.jpg").read_bytes())
    Image.new("RGB", (16, 16)).save(people / "p2" / "0.jpg", "PNG")
    folder = prepare("folders", people)
    assert prepare.printed.splitlines() == [
        str(folder),
        "  data    train 59",
        "  broken   1",
        "           p0/0.jpg: the file is empty",
        "  note     PNG under the name of a JPEG: 1",
        "  copies   1, 0 dropped; 0 images are in several splits",
        "  subjects 10, 0 of them in several splits",
        f"  details are in {folder / 'report.json'}",
    ]


class TestOptions:
    def test_splits_of_its_own_are_disjoint_by_subject_and_follow_the_seed(self, prepare, people):
        test_people = []
        for output, seed in {"first": 0, "same": 0, "other": 1}.items():
            folder = prepare("folders", people, "--split", "train=0.8,test=0.2", "--seed", seed, output=output)
            assert report_of(folder)["rows"]["data"] == {"train": 48, "test": 12}
            assert report_of(folder)["subjects"] == {"count": 10, "in_several_splits": 0, "named": []}
            train, test = (set(load_corpus(str(folder), split)["subject"]) for split in ("train", "test"))
            assert (len(train), len(test), train & test) == (8, 2, set())
            test_people.append(test)
        assert test_people[0] == test_people[1] != test_people[2]

    def test_splits_without_subjects_are_stratified(self, prepare, genki):
        folder = prepare("genki4k", genki, "--split", "train=0.5,validation=0.3,test=0.2")
        smiles = {split: Counter(load_corpus(str(folder), split)["smile"]) for split in ("train", "validation", "test")}
        assert smiles == {"train": {0: 15, 1: 5}, "validation": {0: 9, 1: 3}, "test": {0: 6, 1: 2}}

    def test_pairs_open_by_the_name_of_their_configuration(self, prepare, people):
        folder = prepare("folders", people, "--split", "train=0.6,test=0.4", "--pairs", 20, "--folds", 2)
        for split in ("train", "test"):
            pairs = load_pairs(f"{folder}:pairs", split)
            assert Counter(zip(pairs["fold"], pairs["same"])) == {(f, s): 5 for f in (1, 2) for s in (True, False)}
            persons = set(load_corpus(str(folder), split)["subject"])
            for pair in pairs:
                paths = [pair[column]["path"] for column in ("image_a", "image_b")]
                of = [path.split("/")[0] for path in paths]
                assert set(of) <= persons
                assert (of[0] == of[1]) == pair["same"]
                assert pair["image_a"]["bytes"] == (people / paths[0]).read_bytes()
        assert "20 pairs in `train`; 20 pairs in `test`" in (folder / "README.md").read_text()

    def test_rows_are_mixed_by_the_seed(self, prepare, people):
        orders = [
            [record["path"] for record in load_corpus(str(prepare("folders", people, *flags, output=name)))["image"]]
            for name, flags in {
                "plain": (),
                "mixed": ("--shuffle",),
                "again": ("--shuffle",),
                "other": ("--shuffle", "--seed", 5),
            }.items()
        ]
        assert orders[0] == sorted(orders[0]) == sorted(orders[1]) == sorted(orders[3])
        assert orders[1] == orders[2]
        assert len({tuple(order) for order in orders}) == 3

    def test_copies_are_dropped_and_test_stays_whole(self, prepare, tmp_path):
        for split, numbers in {"train": range(8), "test": range(6, 10)}.items():
            for number in numbers:
                write_face(tmp_path / "faces" / split / "someone" / f"{number}.jpg", number)
        kept, dropped = (
            report_of(prepare("folders", tmp_path / "faces", *flags, output=f"out{len(flags)}"))
            for flags in ((), ("--drop_duplicates",))
        )
        assert (kept["rows"]["data"], kept["dropped_copies"]) == ({"train": 8, "test": 4}, 0)
        assert (dropped["rows"]["data"], dropped["dropped_copies"]) == ({"train": 6, "test": 4}, 2)
        assert kept["copies"] == dropped["copies"]
        assert kept["copies"]["groups_over_several_splits"] == 2

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (("--size", 20), {(20, 20): 1, (16, 16): 2}),
            (("--crop", "centre:0.5"), {(20, 20): 1, (8, 8): 2}),
            (("--crop", "centre:0.5", "--size", 10), {(10, 10): 1, (8, 8): 2}),
            (("--max_pixels", 256), {(16, 16): 2}),
        ],
    )
    def test_images_are_made_smaller_cropped_or_left_out(self, prepare, tmp_path, options, expected):
        for number, side in enumerate((16, 40, 16)):
            write_face(tmp_path / "faces" / "a" / f"{number}.jpg", number, side)
        assert sizes(prepare("folders", tmp_path / "faces", *options)) == expected

    def test_the_box_is_that_of_the_collection(self, prepare, tmp_path):
        names = [f"flag{number}" for number in range(40)]
        rows = {f"{number:06d}.jpg": (number, 2, 8, 6) for number in range(1, 4)}
        attributes = "".join(f"{name} {' '.join(40 * ['1'])}\n" for name in rows)
        boxes = "".join(f"{name} {' '.join(map(str, box))}\n" for name, box in rows.items())
        (tmp_path / "celeba").mkdir()
        (tmp_path / "celeba" / "list_attr_celeba.txt").write_text(f"3\n{' '.join(names)}\n{attributes}")
        (tmp_path / "celeba" / "list_bbox_celeba.txt").write_text(f"3\nimage_id x_1 y_1 width height\n{boxes}")
        for name in rows:
            write_face(tmp_path / "celeba" / "img_celeba" / name, int(name[:6]))
        folder = prepare("celeba", tmp_path / "celeba", "--crop", "box")
        assert sizes(folder) == {(8, 8): 3}
        assert "cropped (box)" in (folder / "README.md").read_text()

    def test_folders_may_be_expressions(self, prepare, people):
        corpus = load_corpus(str(prepare("folders", people, "--folder_is", "expression")))
        assert corpus.features["expression"].names == [f"p{number}" for number in range(10)]
        assert corpus["expression"][:] == [number // 6 for number in range(60)]

    def test_samples_are_drawn(self, prepare, people):
        folder = prepare("folders", people, "--show", "--pairs", 20, "--folds", 2)
        for name in ("show.png", "show_pairs.png"):
            with Image.open(folder / name) as picture:
                assert min(picture.size) > 300


def error_of(prepare: Callable, *arguments) -> str:
    """The one line that a run ends in."""
    with contextlib.redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as stop:
        prepare(*arguments)
    assert stop.value.code == 1
    line = errors.getvalue().strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


class TestErrorsAreOneLine:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--split", "train"), "must look like `train=0.8,test=0.2`"),
            (("--split", "train=0.9,test=0.2"), "must sum to 1"),
            (("--split", "all=1"), "No split may be called `all`"),
            (("--crop", "face"), "`crop` must be none, box or centre:F"),
            (("--crop", "centre:1.5"), "`crop` must be none, box or centre:F"),
            (("--crop", "box"), "not one of 60 images could be used. The first, p0/0.jpg: no box of the face is known"),
            (("--size", 0), "`size` must be at least 1, got 0"),
            (("--max_pixels", 0), "`max_pixels` must be at least 1, got 0"),
            (("--num_proc", 0), "`--num_proc` must be at least 1, got 0"),
            (("--rows_per_file", 0), "`--rows_per_file` must be at least 1, got 0"),
            (("--folds", 0), "`--folds` must be at least 1, got 0"),
            (("--pairs", 7), "must be a positive multiple of 2 * `folds`, got 7"),
            (("--pairs", -2), "must be a positive multiple"),
            (("--pairs", 6000), "Split `train`: `count=6000` needs 300 pairs"),
            (("--shuffle", "--seed", -1), "non-negative"),
            (("--push_to_hub", "a/b/c"), "a/b/c"),
        ],
    )
    def test_a_bad_value_is_refused_and_leaves_no_corpus(self, prepare, people, options, message, tmp_path):
        assert message in error_of(prepare, "folders", people, *options)
        assert not list((tmp_path / "corpus").rglob("*.*"))

    def test_an_option_of_another_layout_is_refused(self, prepare, genki):
        message = error_of(prepare, "genki4k", genki, "--folder_is", "expression")
        assert "`--folder_is` is for the layout folders, not genki4k" in message

    @pytest.mark.parametrize(
        ("layout", "changes", "message"),
        [
            ("genki4k", {"labels.txt": "smiling\n"}, "labels.txt:1: must be `smile yaw pitch roll`"),
            ("fer2013", {"fer2013.csv": "emotion,picture\n"}, "fer2013.csv, line 1: the header must be"),
            ("celeba", {"list_attr_celeba.txt": "9\na b\n"}, "list_attr_celeba.txt, line 2: the header must name 40"),
            ("rafdb", {}, "there is no `basic/EmoLabel/list_patition_label.txt`"),
            ("folders", {}, "there is no image in it or below"),
        ],
    )
    def test_a_collection_of_another_layout_is_refused_with_file_and_line(
        self, prepare, tmp_path, layout, changes, message
    ):
        (tmp_path / "raw" / "files").mkdir(parents=True)
        for name, text in changes.items():
            (tmp_path / "raw" / name).write_text(text)
        error = error_of(prepare, layout, tmp_path / "raw")
        assert message in error
        assert str(tmp_path / "raw") in error
        assert not (tmp_path / "corpus").exists()

    def test_an_archive_that_is_not_unpacked_is_refused(self, prepare, tmp_path):
        (tmp_path / "faces.zip").write_bytes(b"PK")
        assert "is not a folder; unpack archives first" in error_of(prepare, "folders", tmp_path / "faces.zip")

    def test_an_output_folder_within_the_collection_is_refused(self, prepare, people, tmp_path):
        assert "lies in INPUT_DIR" in error_of(prepare, "folders", tmp_path)

    def test_an_output_folder_that_datasets_would_take_for_a_pattern_is_refused(self, refused, people, tmp_path):
        message = refused("prepare", "folders", people, "--output_dir", tmp_path / "lfw[1]")
        assert "lfw[1] contains *, ? or [" in message

    def test_a_disk_that_cannot_be_written_to_is_named(self, refused, people, tmp_path):
        (tmp_path / "file").write_text("")
        assert "file" in refused("prepare", "folders", people, "--output_dir", tmp_path / "file" / "corpus")

    def test_an_unknown_layout_is_refused_with_those_there_are(self, prepare, people, capsys):
        with pytest.raises(SystemExit) as stop:
            prepare("imagenet", people)
        assert stop.value.code == 2
        assert "invalid choice: 'imagenet'" in capsys.readouterr().err


class TestASecondRun:
    def test_it_says_that_it_is_finished_and_writes_no_corpus(self, prepare, people, caplog):
        folder = prepare("folders", people)
        before = {path: path.stat().st_mtime_ns for path in (folder / "data").iterdir()}
        printed = prepare.printed
        caplog.set_level("INFO")
        assert prepare("folders", people, "--num_proc", 2) == folder
        assert {path: path.stat().st_mtime_ns for path in (folder / "data").iterdir()} == before
        assert "is complete already" in caplog.text
        assert prepare.printed == printed

    def test_another_collection_or_option_is_refused(self, prepare, people, tmp_path):
        prepare("folders", people)
        assert "made with other size: use the same" in error_of(prepare, "folders", people, "--size", 32)
        write_face(tmp_path / "others" / "p0" / "0.jpg", 1)
        assert "made with other images or labels" in error_of(prepare, "folders", tmp_path / "others")

    def test_a_folder_that_was_made_again_is_not_read_from_a_cache(self, prepare, people):
        folder = prepare("folders", people)
        before = load_dataset(str(folder), split="train")
        assert before[0]["image"].size == (16, 16)
        shutil.rmtree(folder)
        write_face(people / "p0" / "0.jpg", 1000)
        folder = prepare("folders", people)
        after = load_dataset(str(folder), split="train")
        assert np.array_equal(after[0]["image"], Image.open(people / "p0" / "0.jpg"))
        assert not np.array_equal(after[0]["image"], before[0]["image"])

    def test_a_card_that_was_edited_is_kept_and_another_is_renewed(self, prepare, people, monkeypatch):
        monkeypatch.setattr("modeling_pcl.hub.upload.upload_corpus", lambda *_, **__: None)
        folder = prepare("folders", people)
        prepare("folders", people, "--push_to_hub", "user/faces")
        card = (folder / "README.md").read_text()
        assert 'load_dataset("user/faces", split="train")' in card
        edited = card.replace("tags:", "license: cc-by-4.0\ntags:")
        (folder / "README.md").write_text(edited)
        prepare("folders", people, "--push_to_hub", "user/other")
        assert (folder / "README.md").read_text() == edited
        (folder / "README.md").unlink()
        prepare("folders", people)
        assert (folder / "README.md").read_text() == card.replace("user/faces", "corpus")


def with_mark(mark: str) -> list[int]:
    """Processes, whoever started them, that have a mark in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [int(environment.parent.name)] if mark.encode() in environment.read_bytes() else []
        except OSError:  # It has ended, or is somebody else's.
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
class TestStopped:
    @pytest.fixture
    def many(self, tmp_path) -> Path:
        for number in range(150):
            write_face(tmp_path / "many" / "someone" / f"{number:03d}.jpg", number)
        return tmp_path / "many"

    @pytest.fixture
    def words(self, many, tmp_path) -> list[str]:
        """Options of a run with two workers."""
        options = ["--num_proc", "2", "--rows_per_file", "1", "--shuffle"]
        return ["folders", str(many), "--output_dir", str(tmp_path / "corpus"), *options]

    def wait_for_parts(self, is_running: Callable[[], bool], tmp_path: Path):
        while is_running() and len(self.accounts(tmp_path)) < 5:
            time.sleep(0.002)

    def accounts(self, tmp_path: Path) -> list[Path]:
        return list((tmp_path / "corpus" / ".preparing").glob("data-*.json"))

    def finish(self, prepare, many: Path, tmp_path: Path):
        """The same command goes on to the same bytes, and writes no finished part again."""
        inodes = {path.with_suffix(".parquet").stat().st_ino for path in self.accounts(tmp_path)}
        assert 5 <= len(inodes) < 150
        options = ("--rows_per_file", 1, "--shuffle")
        folder = prepare("folders", many, *options)
        assert inodes <= {path.stat().st_ino for path in (folder / "data").iterdir()}
        undisturbed = files(prepare("folders", many, *options, output="undisturbed"))
        resumed = files(folder)
        assert len(resumed) == 152
        assert {name for name in resumed if resumed[name] != undisturbed[name]} == {"README.md"}  # It has its name.

    def test_a_killed_run_leaves_no_process_and_goes_on_to_the_same_bytes(self, words, prepare, many, tmp_path):
        mark = f"PCL_MARK={uuid.uuid4().hex}"
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict([mark.split("=")])
        process = subprocess.Popen([sys.executable, str(SCRIPT), *words], env=environment, start_new_session=True)
        try:
            self.wait_for_parts(lambda: process.poll() is None, tmp_path)
            process.kill()
            process.wait()
            deadline = time.monotonic() + 60
            while with_mark(mark) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert with_mark(mark) == []
        finally:
            for left in with_mark(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
        self.finish(prepare, many, tmp_path)

    def test_ctrl_c_ends_in_one_line_and_goes_on_to_the_same_bytes(self, words, prepare, many, tmp_path):
        run = child.start_command("prepare", words, tmp_path / "errors.txt")
        self.wait_for_parts(run.is_alive, tmp_path)
        os.kill(run.pid, signal.SIGINT)
        run.join(60)
        assert run.exitcode == 130
        error = (tmp_path / "errors.txt").read_text()
        assert error.splitlines()[-1] == "stopped; the same command goes on where it can"
        assert "Traceback" not in error
        self.finish(prepare, many, tmp_path)


class TestUpload:
    def test_the_whole_folder_is_sent_to_a_private_dataset(self, prepare, people, hub):
        folder = prepare("folders", people, "--rows_per_file", 25, "--push_to_hub", "user/faces")
        there = hub.files("user/faces", "datasets")
        assert there == files(folder)
        assert len(there) == 5
        assert [(made["type"], made["visibility"]) for made in hub.created] == [("dataset", "private")]
        assert 'load_dataset("user/faces", split="train")' in there["README.md"].decode()

    def test_public_is_said_outright(self, prepare, people, hub):
        prepare("folders", people, "--push_to_hub", "user/faces", "--public")
        assert hub.created[0]["visibility"] == "public"

    @pytest.mark.parametrize("failure", ["refused", "unreachable"])
    def test_a_failed_upload_says_where_the_corpus_is_and_the_same_command_sends_it(
        self, failure, prepare, people, hub, monkeypatch, tmp_path
    ):
        arguments = ("folders", people, "--push_to_hub", "user/faces")
        message = r"error: the upload to user/faces failed: .*The corpus is safe in .*corpus; the same command sends"
        with monkeypatch.context() as patch:
            if failure == "refused":
                patch.setattr(hub, "tokens", {})
            else:
                patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
            with refusals.refused(message):
                prepare(*arguments)
        before = files(tmp_path / "corpus")
        assert report_of(tmp_path / "corpus")["rows"]["data"] == {"train": 60}
        assert files(prepare(*arguments)) == hub.files("user/faces", "datasets") == before


def test_help_describes_every_layout_and_option(call, capsys):
    with pytest.raises(SystemExit) as stop:
        call("prepare", "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    described = text.split("layouts:\n")[1]
    for name, read in LAYOUTS.items():
        first_line = read.__doc__.splitlines()[0]
        assert f"\n{name}\n    {first_line}" in described
    for option in ("--split", "--crop", "--drop_duplicates", "--pairs", "--push_to_hub"):
        assert option in text
    assert "ROOT/Anno/list_attr_celeba.txt" in described


def test_the_front_matter_of_the_card_is_what_datasets_reads(prepare, people):
    card = (prepare("folders", people, "--pairs", 20, "--folds", 2) / "README.md").read_text()
    configs = yaml.safe_load(card.split("---\n")[1])["configs"]
    assert [config["config_name"] for config in configs] == ["default", "pairs"]
