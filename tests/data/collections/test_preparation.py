"""Tests of written corpora, and of interrupted runs, which must give the same files."""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, load_dataset
from PIL import Image

from modeling_pcl.data import parts
from modeling_pcl.data.collections import parts as collection_parts
from modeling_pcl.data.collections import preparation
from modeling_pcl.data.collections.layouts.base import Collection, LayoutError, Pair, Photo, Row
from modeling_pcl.data.collections.preparation import prepare_corpus
from modeling_pcl.data.collections.raw_images import Treatment
from modeling_pcl.data.corpora import load_corpus, load_pairs
from modeling_pcl.data.parts import replacing, select_records, write_records
from modeling_pcl.data.schema import get_features

COLUMNS = get_features("subject", "age") | {
    "expression": ClassLabel(names=["calm", "glad", "sad"]),
    "attributes": {"hat": ClassLabel(names=["no", "yes"])},
}
OPTIONS = {"layout": "folders", "size": None, "crop": "none"}


def encode_image(number: int, format: str = "JPEG", side: int = 16) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def make_labels(number: int) -> dict:
    """Make the labels of a row; every third row has none."""
    if number % 3 == 2:
        return {"subject": f"s{number // 2}"}
    attributes = {"hat": number % 2}
    return {"subject": f"s{number // 2}", "age": number + 0.5, "expression": number % 3, "attributes": attributes}


class Interrupted(Exception):
    pass


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with ten different images, 0.jpg to 9.jpg."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(encode_image(number))
    return folder


def make_row(root: Path, number: int) -> Row:
    return Row(Photo(root / f"{number}.jpg", f"{number}.jpg"), make_labels(number))


@pytest.fixture
def collection(root) -> Collection:
    """Seven images in train, three in test, and two pairs of the test images."""
    rows = [make_row(root, number) for number in range(10)]
    pairs = [Pair(rows[7].image, rows[8].image, True, 1), Pair(rows[7].image, rows[9].image, False, 2)]
    return Collection(COLUMNS, {"train": rows[:7], "test": rows[7:]}, {"test": pairs})


@pytest.fixture
def prepare(root, collection, tmp_path) -> Callable[..., Path]:
    def run(name: str = "out", options: dict = OPTIONS, **arguments) -> Path:
        arguments = {"rows_per_part": 2} | arguments
        prepare_corpus(arguments.pop("collection", collection), root, tmp_path / name, options, **arguments)
        return tmp_path / name

    return run


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def read_report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def compute_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_broken(folder: Path) -> dict[str, str]:
    return {entry["name"]: entry["reason"] for entry in read_report(folder)["broken"]}


class TestTheCorpus:
    def test_images_keep_their_bytes_and_rows_their_order(self, prepare):
        folder = prepare()
        for split, numbers in {"train": range(7), "test": range(7, 10)}.items():
            corpus = load_corpus(str(folder), split)
            assert [compute_digest(record["bytes"]) for record in corpus["image"]] == [
                compute_digest(encode_image(number)) for number in numbers
            ]
            assert [record["path"] for record in corpus["image"]] == [f"{number}.jpg" for number in numbers]
            assert corpus["split"][:] == [split] * len(numbers)
        assert read_report(folder)["rows"] == {"data": {"train": 7, "test": 3}, "pairs": {"test": 2}}

    def test_labels_class_names_and_gaps_come_through_datasets_alone(self, prepare):
        corpus = load_dataset(str(prepare()), split="train")
        assert corpus.features["expression"].names == ["calm", "glad", "sad"]
        assert corpus.features["attributes"]["hat"].names == ["no", "yes"]
        assert corpus["subject"][:] == ["s0", "s0", "s1", "s1", "s2", "s2", "s3"]
        assert corpus["expression"][:] == [0, 1, None, 0, 1, None, 0]
        assert corpus["age"][:] == [0.5, 1.5, None, 3.5, 4.5, None, 6.5]
        assert [(each or {}).get("hat") for each in corpus["attributes"]] == [0, 1, None, 1, 0, None, 0]
        assert corpus[4]["image"].size == (16, 16)

    def test_files_are_named_by_split_and_hold_so_many_rows(self, prepare):
        folder = prepare(rows_per_part=3)
        assert {
            name: pq.read_metadata(folder / name).num_rows for name in read_files(folder) if name.endswith("parquet")
        } == {
            "data/test-00000-of-00001.parquet": 3,
            "data/train-00000-of-00003.parquet": 3,
            "data/train-00001-of-00003.parquet": 3,
            "data/train-00002-of-00003.parquet": 1,
            "pairs/test-00000-of-00001.parquet": 2,
        }
        assert sorted(path.name for path in folder.iterdir()) == ["data", "pairs", "report.json"]

    def test_pairs_hold_both_images(self, prepare):
        pairs = load_pairs(f"{prepare()}/pairs/test-*.parquet", "train")
        assert [compute_digest(record["bytes"]) for record in pairs["image_a"]] == 2 * [compute_digest(encode_image(7))]
        assert [compute_digest(record["bytes"]) for record in pairs["image_b"]] == [
            compute_digest(encode_image(8)),
            compute_digest(encode_image(9)),
        ]
        assert (pairs["same"][:], pairs["fold"][:]) == ([True, False], [1, 2])

    def test_images_are_treated(self, prepare):
        corpus = load_corpus(str(prepare(treatment=Treatment(size_px=8))), "train")
        assert {Image.open(io.BytesIO(record["bytes"])).size for record in corpus["image"]} == {(8, 8)}

    def test_pixels_of_a_table_become_images(self, prepare, root):
        pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
        table = Collection({}, {"train": [Row(Photo(pixels, "table.csv:2"))]})
        (record,) = load_corpus(str(prepare(collection=table)), "train")
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(record["image"]["bytes"]))), pixels)
        assert record["image"]["path"] == "table.csv:2"

    def test_names_of_any_script_come_through(self, prepare, root):
        name = "é 名前 '#%?[a]*,\n.jpg"
        (root / name).write_bytes(encode_image(0))
        named = Collection(get_features("subject"), {"train": [Row(Photo(root / name, name), {"subject": name})]})
        (record,) = load_corpus(str(prepare(collection=named)), "train")
        assert record["image"]["path"] == record["subject"] == name

    def test_subjects_in_several_splits_are_named(self, prepare):
        assert read_report(prepare())["subjects"] == {"count": 5, "in_several_splits": 1, "named": ["s3"]}

    def test_a_reader_of_one_row_reads_a_group_of_rows(self, prepare, monkeypatch):
        monkeypatch.setattr(parts, "ROWS_PER_GROUP", 3)
        metadata = pq.read_metadata(prepare(rows_per_part=100) / "data/train-00000-of-00001.parquet")
        assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [3, 3, 1]


@pytest.mark.parametrize("rows_per_part", [2, 5])
def test_the_same_input_gives_the_same_bytes_with_any_number_of_processes(prepare, rows_per_part):
    alone = read_files(prepare("alone", rows_per_part=rows_per_part))
    assert len(alone) == {2: 8, 5: 5}[rows_per_part]
    assert read_files(prepare("again", rows_per_part=rows_per_part)) == alone
    assert read_files(prepare("together", rows_per_part=rows_per_part, num_proc=2)) == alone


def test_there_are_no_more_processes_than_parts(prepare, monkeypatch):
    def refuse(work, items, count: int):
        raise Interrupted(count)

    monkeypatch.setattr(parts, "map_in_processes", refuse)
    with pytest.raises(Interrupted, match=r"^7$"):
        prepare(num_proc=64)


class TestBrokenRows:
    @pytest.fixture
    def bad(self, root, tmp_path) -> dict[str, str]:
        """Damage images 1 to 6; returns the expected reasons."""
        (tmp_path / "outside.jpg").write_bytes(encode_image(0))
        for number in range(1, 7):
            (root / f"{number}.jpg").unlink()
        (root / "1.jpg").write_bytes(b"")
        (root / "2.jpg").write_bytes(encode_image(2)[:-100])
        (root / "3.jpg").write_text("<html>404 not found</html>")
        (root / "4.jpg").write_bytes(encode_image(4, side=40))
        (root / "5.jpg").symlink_to(tmp_path / "outside.jpg")
        return {
            "1.jpg": "the file is empty",
            "2.jpg": "truncated",
            "3.jpg": "no image format that PIL knows",
            "4.jpg": "40 x 40 px are more than `max_pixels` = 1000",
            "5.jpg": "a symbolic link leads out of the collection's folder",
            "6.jpg": "No such file",
        }

    def test_each_kind_is_left_out_and_named_with_its_reason(self, prepare, collection, bad):
        collection.broken.append(("labels.txt:7", "has 2 fields, not 3"))
        folder = prepare(treatment=Treatment(max_pixels=1000))
        reasons = read_broken(folder)
        assert reasons.pop("labels.txt:7") == "has 2 fields, not 3"
        assert reasons.keys() == bad.keys()
        assert all(reason in reasons[name] for name, reason in bad.items()), reasons
        assert read_report(folder)["rows"]["data"] == {"train": 1, "test": 3}
        (record,) = load_corpus(str(folder), "train")
        assert record["image"]["bytes"] == encode_image(0)
        assert record["expression"] == 0

    def test_a_pair_needs_both_of_its_images_and_a_broken_one_is_named_once(self, prepare, root):
        (root / "8.jpg").write_bytes(b"")
        folder = prepare()
        assert read_report(folder)["rows"] == {"data": {"train": 7, "test": 2}, "pairs": {"test": 1}}
        assert read_broken(folder) == {"8.jpg": "the file is empty"}

    def test_png_under_the_name_of_a_jpeg_is_kept_and_noted(self, prepare, root):
        (root / "3.jpg").write_bytes(encode_image(3, "PNG"))
        folder = prepare()
        assert read_report(folder)["notes"] == {"PNG under the name of a JPEG": ["3.jpg"]}
        assert load_corpus(str(folder), "train")[3]["image"]["bytes"] == encode_image(3, "PNG")

    def test_a_name_that_is_not_utf_8_is_broken(self, prepare, collection, root):
        name = os.fsdecode(b"caf\xe9.jpg")
        (root / name).write_bytes(encode_image(50))
        collection.splits["train"].append(Row(Photo(root / name, name), {"subject": name}))
        folder = prepare()
        assert read_broken(folder) == {r"caf\udce9.jpg": "its name is not UTF-8: rename the file"}
        assert read_report(folder)["rows"]["data"]["train"] == 7

    def test_a_split_of_which_nothing_is_left_is_none(self, prepare, root, caplog):
        for number in (7, 8, 9):
            (root / f"{number}.jpg").write_bytes(b"")
        folder = prepare()
        assert read_report(folder)["rows"] == {"data": {"train": 7}}
        assert len(load_corpus(str(folder), "train")) == 7
        assert "The split `test` of `data` is left out" in caplog.text

    def test_nothing_but_broken_images_are_refused_and_leave_nothing_behind(self, prepare, root, collection, tmp_path):
        collection.pairs = {}
        contents = {path: path.read_bytes() for path in root.iterdir()}
        for path in contents:
            path.write_bytes(b"")
        with pytest.raises(
            LayoutError, match=r"raw: not one of 10 images could be used. The first, 0.jpg: the file is"
        ):
            prepare()
        assert list((tmp_path / "out").iterdir()) == []
        for path, content in contents.items():
            path.write_bytes(content)
        assert read_report(prepare())["rows"]["data"] == {"train": 7, "test": 3}

    def test_no_row_at_all_is_refused(self, prepare):
        with pytest.raises(LayoutError, match="there is not a single row in it"):
            prepare(collection=Collection({}, {"train": []}))


class TestCopies:
    @pytest.fixture(autouse=True)
    def copies(self, root):
        """Image 0 is three times in train, image 8 is in train and test."""
        for copy, original in {2: 0, 5: 0, 3: 8}.items():
            (root / f"{copy}.jpg").write_bytes(encode_image(original))

    def test_copies_are_reported_and_stay(self, prepare):
        report = read_report(prepare())
        assert report["copies"] == {
            "images": 3,
            "groups_over_several_splits": 1,
            "groups": [["train/0.jpg", "train/2.jpg", "train/5.jpg"], ["test/8.jpg", "train/3.jpg"]],
        }
        assert report["dropped_copies"] == 0
        assert report["rows"]["data"] == {"train": 7, "test": 3}

    def test_dropping_keeps_the_first_and_all_of_test(self, prepare):
        folder = prepare(drop_duplicates=True)
        report, train = read_report(folder), load_corpus(str(folder), "train")
        assert report["dropped_copies"] == 3
        assert report["rows"]["data"] == {"train": 4, "test": 3}
        assert [record["path"] for record in train["image"]] == ["0.jpg", "1.jpg", "4.jpg", "6.jpg"]
        assert [compute_digest(record["bytes"]) for record in train["image"]] == [
            compute_digest(encode_image(n)) for n in (0, 1, 4, 6)
        ]
        assert train["age"][:] == [0.5, 1.5, 4.5, 6.5]
        assert train.features["expression"].names == ["calm", "glad", "sad"]
        assert [name for name in read_files(folder) if "train" in name] == [
            f"data/train-0000{number}-of-00003.parquet"
            for number in range(3)  # Rows 2 and 3 were one part.
        ]

    def test_a_split_of_copies_alone_is_none(self, prepare, root):
        for number in range(7):
            (root / f"{number}.jpg").write_bytes(encode_image(7 + number % 3))
        folder = prepare(drop_duplicates=True)
        assert read_report(folder)["rows"]["data"] == {"test": 3}
        assert read_report(folder)["dropped_copies"] == 7
        assert len(load_corpus(str(folder), "test")) == 3

    def test_two_rows_of_one_file_are_copies(self, prepare, collection, root):
        collection.splits["train"].append(make_row(root, 1))
        assert read_report(prepare())["copies"]["groups"][1] == ["train/1.jpg", "train/1.jpg"]

    def test_copies_are_those_of_the_collection_not_of_what_is_made_of_them(self, prepare, root):
        flat = Image.new("RGB", (16, 16), "red")
        flat.save(root / "0.jpg", quality=90)
        flat.save(root / "1.jpg", quality=50)
        groups = read_report(prepare(treatment=Treatment(size_px=4)))["copies"]["groups"]
        assert groups == [["train/2.jpg", "train/5.jpg"], ["test/8.jpg", "train/3.jpg"]]


def fail_at_call(monkeypatch, module, name: str, call: int):
    """Make a function of a module fail at its n-th call, from 1, as for a full disk or Ctrl-C."""
    function, calls = getattr(module, name), iter(range(1, 1000))

    def fails(*arguments, **options):
        if next(calls) == call:
            raise Interrupted
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, fails)


def get_identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Return attributes that change if a file is written again, by the part of its name that stays the same."""
    stats = {path.name.replace("data-", "")[:-8]: path.stat() for path in folder.rglob("*.parquet")}
    return {name.partition("-of-")[0]: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


class TestAnInterruptedRun:
    @pytest.fixture
    def expected(self, prepare) -> dict[str, bytes]:
        return read_files(prepare("undisturbed"))

    @pytest.mark.parametrize("image", [1, 6, 10, 14])
    def test_it_goes_on_with_the_parts_it_has(self, image, prepare, expected, monkeypatch, tmp_path, caplog):
        with monkeypatch.context() as patch:
            fail_at_call(patch, collection_parts, "prepare_image", image)
            with pytest.raises(Interrupted):
                prepare()
        before = get_identities(tmp_path / "out")
        assert len(before) == {1: 0, 6: 2, 10: 5, 14: 6}[image]
        assert not (tmp_path / "out" / "report.json").exists()
        caplog.set_level("INFO")
        folder = prepare()
        assert read_files(folder) == expected
        after = get_identities(folder)
        assert {name: after[name] for name in before if name in after} == {
            name: before[name] for name in before if "pairs" not in name
        }
        assert "Continuing the unfinished corpus" in caplog.text

    def test_a_part_without_its_account_is_written_again(self, prepare, expected, monkeypatch):
        with monkeypatch.context() as patch:
            fail_at_call(patch, parts, "asdict", 2)  # Between the second part and its account.
            with pytest.raises(Interrupted):
                prepare()
        assert read_files(prepare()) == expected

    @pytest.mark.parametrize("drop_duplicates", [False, True])
    @pytest.mark.parametrize("call", [1, 3, 6])
    def test_it_goes_on_where_files_were_given_their_names(self, prepare, call, drop_duplicates, monkeypatch, root):
        (root / "3.jpg").write_bytes(encode_image(0))
        expected = read_files(prepare("undisturbed", drop_duplicates=drop_duplicates))
        with monkeypatch.context() as patch:
            fail_at_call(patch, parts, "_move_part", call)
            with pytest.raises(Interrupted):
                prepare(drop_duplicates=drop_duplicates)
        assert read_files(prepare(drop_duplicates=drop_duplicates)) == expected

    def test_it_is_finished_once_there_is_a_report(self, prepare, expected, monkeypatch, tmp_path):
        with monkeypatch.context() as patch:
            fail_at_call(patch, preparation.shutil, "rmtree", 1)
            with pytest.raises(Interrupted):
                prepare()
        (
            tmp_path / "out" / ".preparing" / "plan.json"
        ).unlink()  # An interrupted deletion of the folder may leave this state.
        assert read_files(prepare()) == expected
        assert not (tmp_path / "out" / ".preparing").exists()

    def test_it_begins_again_if_it_had_not_noted_its_plan(self, prepare, expected, tmp_path):
        (tmp_path / "out" / ".preparing").mkdir(parents=True)
        (tmp_path / "out" / ".preparing" / "plan.json.17.unfinished").write_text("{")
        assert read_files(prepare()) == expected

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"options": OPTIONS | {"size": 64}}, "an unfinished corpus that was begun with other size: use the same"),
            ({"options": OPTIONS | {"size": 64, "crop": "box"}}, "with other size, crop"),
            ({"rows_per_part": 3}, "with other images or labels"),
        ],
    )
    def test_it_does_not_go_on_with_other_options(self, prepare, changes, message, monkeypatch):
        with monkeypatch.context() as patch:
            fail_at_call(patch, collection_parts, "prepare_image", 6)
            with pytest.raises(Interrupted):
                prepare()
        with pytest.raises(ValueError, match=message):
            prepare(**changes)

    @pytest.mark.parametrize("change", ["name", "label", "box", "pair"])
    def test_it_does_not_go_on_with_another_collection(self, prepare, collection, change, monkeypatch):
        with monkeypatch.context() as patch:
            fail_at_call(patch, collection_parts, "prepare_image", 6)
            with pytest.raises(Interrupted):
                prepare()
        first = collection.splits["train"][0]
        if change == "name":
            first.image.name = "other.jpg"
        elif change == "label":
            first.labels["age"] = 30.0
        elif change == "box":
            first.image.box = (0, 0, 5, 5)
        else:
            collection.pairs["test"][0].fold = 2
        with pytest.raises(ValueError, match="with other images or labels: use the same, delete the folder, or choose"):
            prepare()


class TestAFolderThatIsThere:
    def test_a_finished_run_is_recognised_and_left_alone(self, prepare, root, caplog):
        folder = prepare()
        report, before = read_report(folder), {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        (root / "0.jpg").unlink()  # The images are not opened again.
        caplog.set_level("INFO")
        prepare()
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        assert "out is complete already" in caplog.text
        assert read_report(folder) == report

    def test_a_finished_run_with_other_options_or_images_is_refused(self, prepare, collection):
        prepare()
        with pytest.raises(ValueError, match="holds a corpus that was made with other crop"):
            prepare(options=OPTIONS | {"crop": "box"})
        collection.splits["train"].pop()
        with pytest.raises(ValueError, match="holds a corpus that was made with other images or labels"):
            prepare()

    @pytest.mark.parametrize(
        ("name", "content"),
        [("notes.txt", "mine"), ("report.json", "not even JSON"), ("report.json", "[1]"), ("report.json", '{"a": 1}')],
    )
    def test_other_files_are_not_touched(self, prepare, name, content, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_text(content)
        with pytest.raises(ValueError, match="out exists already and is not empty: delete it, or choose another"):
            prepare()
        assert [path.name for path in (tmp_path / "out").iterdir()] == [name]

    def test_a_file_in_its_place_is_refused(self, prepare, tmp_path):
        (tmp_path / "out").write_text("a file")
        with pytest.raises(ValueError, match="out exists already"):
            prepare()

    def test_an_empty_folder_is_used(self, prepare, tmp_path):
        (tmp_path / "out").mkdir()
        assert read_report(prepare())["rows"]["data"] == {"train": 7, "test": 3}


class KillsItsProcess(Treatment):
    """Kill the worker process that unpickles it, as the kernel does if memory runs out."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_worker_that_dies_ends_in_an_error_that_says_what_to_do(prepare):
    with pytest.raises(ChildProcessError, match=r"lower `num_proc`. The same command continues"):
        prepare(treatment=KillsItsProcess(), num_proc=2)
    assert read_report(prepare())["rows"]["data"] == {"train": 7, "test": 3}


class TestParts:
    SCHEMA = pa.schema([pa.field("number", pa.int64(), nullable=True)], metadata={"kept": "yes"})

    def records(self, read: list[int], count: int) -> Iterator[dict]:
        for number in range(count):
            read.append(number)
            yield {"number": number}

    def test_no_more_than_a_group_of_records_is_held(self, tmp_path, monkeypatch):
        monkeypatch.setattr(parts, "ROWS_PER_GROUP", 4)
        read, written = [], []
        write = pq.ParquetWriter.write_table

        def record(self, table):
            written.append((table.num_rows, len(read)))
            write(self, table)

        monkeypatch.setattr(pq.ParquetWriter, "write_table", record)
        write_records(self.records(read, 10), self.SCHEMA, tmp_path / "a.parquet")
        assert written == [(4, 4), (4, 8), (2, 10)]

    def test_selected_records_keep_values_gaps_and_metadata(self, tmp_path):
        values = [{"number": value} for value in (5, None, 7, 8)]
        write_records(values, self.SCHEMA, tmp_path / "a.parquet")
        select_records(tmp_path / "a.parquet", [True, True, False, True], tmp_path / "b.parquet")
        table = pq.read_table(tmp_path / "b.parquet")
        assert table["number"].to_pylist() == [5, None, 8]
        assert table.schema.metadata[b"kept"] == b"yes"

    def write_half(self, path: Path):
        with replacing(path) as unfinished:
            unfinished.write_text("sec")
            raise Interrupted

    def test_a_file_is_replaced_whole_or_not_at_all(self, tmp_path):
        path = tmp_path / "new" / "a.txt"
        with replacing(path) as unfinished:
            unfinished.write_text("first")
        with pytest.raises(Interrupted):
            self.write_half(path)
        assert [each.name for each in path.parent.iterdir()] == ["a.txt"]
        assert path.read_text() == "first"
