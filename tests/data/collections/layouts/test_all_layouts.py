"""Tests of all layouts, and of variants of collections: aligned, in another format, or packed by Kaggle."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from miniatures import BP4D, MINIATURES, UPRIGHT, draw, miniature, write

from modeling_pcl.data.collections.layouts import LAYOUTS
from modeling_pcl.data.collections.layouts.base import Collection, LayoutError


@pytest.mark.parametrize("suffix", ["{}.png", "{}.jpeg", "{}.JPG", "{}_0.jpg", "{}_0.png"])
@pytest.mark.parametrize("layout", sorted(MINIATURES.keys() - {"fer2013"}))
def test_images_of_another_suffix_and_those_of_a_face_detector_have_the_same_labels(tmp_path, layout, suffix):
    read = miniature(layout, tmp_path)
    expected = read(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.suffix in (".jpg", ".png")]:
        path.rename(path.with_name(suffix.format(path.stem)))
    collection = read(tmp_path)
    assert collection.broken == []
    assert [row.labels for row in list_rows(collection)] == [row.labels for row in list_rows(expected)]
    assert {split: len(pairs) for split, pairs in collection.pairs.items()} == {
        split: len(pairs) for split, pairs in expected.pairs.items()
    }
    photos = [row.image for row in list_rows(collection)]
    photos += [photo for pairs in collection.pairs.values() for pair in pairs for photo in (pair.image_a, pair.image_b)]
    assert all(photo.source.exists() for photo in photos)


def list_rows(collection: Collection) -> list:
    return [row for rows in collection.splits.values() for row in rows]


def test_images_of_rafdb_without_a_line_are_named(tmp_path):
    read = miniature("rafdb", tmp_path)
    draw(tmp_path / "aligned", "train_00009.jpg")
    assert read(tmp_path).broken == [("aligned/train_00009.jpg", "has no line in `list_patition_label.txt`")]


@pytest.mark.parametrize("base", ["", "DATASET/", "archive/DATASET/"])
@pytest.mark.parametrize("folders", [("1", "7"), ("Surprise", "neutral"), ("surprised", "Neutral")])
def test_rafdb_of_kaggle(tmp_path, base, folders):
    for split, number in {"train": "00001", "test": "0001"}.items():
        draw(tmp_path / base / split, *(f"{folder}/{split}_{number}_aligned.jpg" for folder in folders))
        write(tmp_path / base / f"{split}_labels.csv", "image,label")
    collection = LAYOUTS["rafdb"](tmp_path)
    assert list(collection.splits) == ["train", "test"]
    assert sorted(row.labels["expression"] for row in collection.splits["train"]) == [0, 6]


@pytest.mark.parametrize("base", ["", "fer2013/", "archive/images/"])
def test_fer2013_of_kaggle_in_class_folders(tmp_path, base):
    draw(tmp_path / base, "train/angry/Training_3908.jpg", "test/neutral/PrivateTest_1.jpg", "validation/sad/1.jpg")
    collection = LAYOUTS["fer2013"](tmp_path)
    assert {split: rows[0].labels["expression"] for split, rows in collection.splits.items()} == {
        "train": 0,
        "validation": 4,
        "test": 6,
    }


@pytest.mark.parametrize("name", ["fer2013/fer2013.csv", "archive/fer2013/icml_face_data.csv", "train.csv"])
def test_fer2013_of_kaggle_as_a_table(tmp_path, name):
    pixels = " ".join(["7"] * 48**2)
    columns = ("emotion", "pixels") if name == "train.csv" else ("emotion", "pixels", "Usage")
    write(tmp_path / name, ",".join(columns), ",".join(["3", pixels, "Training"][: len(columns)]))
    (row,) = LAYOUTS["fer2013"](tmp_path).splits["train"]
    assert row.labels == {"expression": 3}


def test_images_of_celeba_without_attributes_or_identity_are_counted_and_named(tmp_path):
    read = miniature("celeba", tmp_path)
    write(tmp_path / "identity_CelebA.txt", *(f"00000{number}.jpg 2880" for number in range(1, 6)))
    draw(tmp_path / "img_align_celeba", "000007.jpg")
    collection = read(tmp_path)
    assert [row.labels["subject"] for row in collection.splits["train"]] == ["2880"] * 5 + [None]
    assert dict(collection.broken) == {
        "img_align_celeba/000007.jpg": "has no line in `list_attr_celeba` that can be read",
        "identity_CelebA": "1 images have no line, so no subject; the first is 000006",
    }


@pytest.mark.parametrize(
    ("layout", "first", "second"),
    [
        ("rafdb", "aligned/train_00001_aligned.jpg", "aligned/train_00001_aligned.png"),
        ("genki4k", "files/file0001.jpg", "files/file0001.png"),
        ("aflw2000", "AFLW2000/image_77_1.jpg", "AFLW2000/image_77_1_0.jpg"),
        ("biwi", "faces_0/01/frame_00003_rgb.png", "faces_0/01/frame_00003_rgb.jpg"),
        ("voxceleb", "id10001/1zcIwhmdeo4/0000375.jpg", "id10001/1zcIwhmdeo4/0000375.png"),
    ],
)
def test_two_images_of_one_line_are_refused(tmp_path, layout, first, second):
    read = miniature(layout, tmp_path)
    draw(tmp_path, second)
    with pytest.raises(LayoutError, match="keep one") as error:
        read(tmp_path)
    assert first in str(error.value)
    assert second in str(error.value)


def test_a_frame_of_biwi_beyond_64_bits_is_broken(tmp_path):
    read = miniature("biwi", tmp_path)
    draw(tmp_path / "faces_0/01", f"frame_{'9' * 25}_rgb.png")
    write(tmp_path / f"faces_0/01/frame_{'9' * 25}_pose.txt", *UPRIGHT)
    collection = read(tmp_path)
    assert [row.labels["frame"] for row in collection.splits["train"]] == [1, 2, 3]
    assert [reason for _, reason in collection.broken] == ["the number of the frame has more than 18 digits"]


PIXELS = " ".join(["7"] * 48**2)
FLAGS = " ".join(["1"] * 40)
CODES = ",".join(["1"] * (len(BP4D) - 1))
TABLE, UNITS, FLAGS_FILE = "fer2013.csv", "ActionUnit_Labels/SN001/SN001_au6.txt", "list_attr_celeba.txt"
RAFDB, PAIRS, COUPLES = "list_patition_label.txt", "pairs.txt", "pairs_CPLFW.txt"


@pytest.mark.parametrize(
    ("layout", "file", "number", "line", "reason"),
    [
        ("fer2013", TABLE, 3, f"7,{PIXELS},Training", "the emotion `7` is not a number from 0 to 6"),
        ("fer2013", TABLE, 3, f"nan,{PIXELS},Training", "the emotion `nan` is not a number"),
        ("fer2013", TABLE, 3, f"0,{PIXELS},Sunday", "the usage `Sunday` is none of Training, PublicTest, PrivateTest"),
        ("fer2013", TABLE, 3, f"0,{PIXELS} 1,Training", "has 2305 pixels, not 2304"),
        ("fer2013", TABLE, 3, "0,,Training", "has 0 pixels"),
        ("fer2013", TABLE, 3, f"0,256{PIXELS[1:]},Training", "the pixel '256' is not a number from 0 to 255"),
        ("fer2013", TABLE, 3, f"0,-1{PIXELS[1:]},Training", "the pixel '-1' is not a number from 0 to 255"),
        ("fer2013", TABLE, 3, f"0,{PIXELS}", "has 2 fields, not 3"),
        ("rafdb", RAFDB, 3, "train_00003.jpg 8", "the label `8` is not a number from 1 to 7"),
        ("rafdb", RAFDB, 3, "train_00003.jpg nan", "the label `nan` is not a number"),
        ("rafdb", RAFDB, 3, "train_00003.jpg", "has 1 fields, not a name and a label"),
        ("rafdb", RAFDB, 3, "train_../../1.jpg 1", "is not like train_00001.jpg"),
        ("rafdb", RAFDB, 3, "valid_00003.jpg 1", "the name `valid_00003.jpg` is not like"),
        ("disfa", UNITS, 2, "2,6", "the intensity 6 of frame 2 is not in 0..5"),
        ("disfa", UNITS, 2, "2,-1", "the intensity -1 of frame 2"),
        ("disfa", UNITS, 2, "2,nan", "must be `frame,intensity`, is `2,nan`"),
        ("disfa", UNITS, 2, "2", "must be `frame,intensity`, is `2`"),
        ("disfa", UNITS, 2, "2,1,1", "must be `frame,intensity`, is `2,1,1`"),
        ("bp4d", "F001_T1.csv", 3, f"2,nan,{CODES}", "must be a frame and 12 codes"),
        ("bp4d", "F001_T1.csv", 3, f"2,{CODES}", "must be a frame and 12 codes"),
        ("celeba", FLAGS_FILE, 7, f"000005.jpg {FLAGS} 1", "40 values, has 41: `000005.jpg`"),
        ("celeba", FLAGS_FILE, 7, "000005.jpg 1 1", "40 values, has 2"),
        ("celeba", FLAGS_FILE, 7, f"../000005.jpg {FLAGS}", "must be the name of a .jpg file"),
        ("celeba", FLAGS_FILE, 7, f"000005.jpg {FLAGS[:-1]}2", "a value of `000005.jpg` is invalid: '2'"),
        ("celeba", FLAGS_FILE, 7, f"000005.jpg {FLAGS[:-1]}nan", "a value of `000005.jpg` is invalid: 'nan'"),
        ("genki4k", "labels.txt", 2, "", "must be `smile yaw pitch roll`, and has 0 fields"),
        ("genki4k", "labels.txt", 2, "1 0 0 0 0", "has 5 fields"),
        ("genki4k", "labels.txt", 2, "2 0 0 0", "the smile must be 0 or 1, not `2`"),
        ("genki4k", "labels.txt", 2, "1 0 x 0", "could not convert"),
        ("genki4k", "labels.txt", 2, "1 0 nan 0", "must lie within 360 degrees"),
        ("genki4k", "labels.txt", 2, "1 0 45 0", "must lie within 360 degrees"),
        ("lfw", PAIRS, 3, "Ann_Lee\t1", "must be `Name n1 n2`, got"),
        ("lfw", PAIRS, 3, "../Ann_Lee\t1\t2", "must be `Name n1 n2`, got"),
        ("lfw", PAIRS, 3, "a/b\t1\t2", "must be `Name n1 n2`, got"),
        ("lfw", PAIRS, 3, "a\\b\t1\t2", "must be `Name n1 n2`, got"),
        ("lfw", PAIRS, 5, "Ann_Lee\tthree\tBo\t1", "must be `Name1 n1 Name2 n2`, got"),
        ("cplfw", COUPLES, 5, "P_c_3.jpg 1", "must be the name of an image and a flag, got `P_c_3.jpg 1` and"),
        ("cplfw", COUPLES, 5, "P_c_1.jpg", "must be the name of an image and a flag"),
        ("cplfw", COUPLES, 5, "P_c_1.jpg 1 1", "must be the name of an image and a flag"),
        ("cplfw", COUPLES, 5, "../images_1.jpg 1", "must be the name of an image and a flag"),
    ],
)
def test_a_bad_line_is_named_and_changes_no_other_row_or_pair(tmp_path, layout, file, number, line, reason):
    read = miniature(layout, tmp_path)
    expected = get_content(read(tmp_path))
    lines = (tmp_path / file).read_text().splitlines()
    lines[number - 1] = line
    write(tmp_path / file, *lines)
    collection = read(tmp_path)
    name, broken_reason = collection.broken[0]
    assert name == f"{Path(file).name}:{number}"
    assert reason in broken_reason
    content = get_content(collection)
    assert content.keys() <= expected.keys()
    assert sum(content.get(key) != value for key, value in expected.items()) == 1


def get_content(collection: Collection) -> dict:
    """Return the labels by image, and the flag and fold by the names of a pair."""
    pairs = [pair for split_pairs in collection.pairs.values() for pair in split_pairs]
    return get_labels_by_image(collection) | {(p.image_a.name, p.image_b.name): (p.same, p.fold) for p in pairs}


@pytest.mark.parametrize(
    ("layout", "file", "first"),
    [
        ("celeba", FLAGS_FILE, 3),
        ("celeba", "identity_CelebA.txt", 1),
        ("rafdb", RAFDB, 1),
        ("fer2013", TABLE, 2),
        ("genki4k", "labels.txt", 1),
        ("disfa", UNITS, 1),
        ("bp4d", "F001_T1.csv", 2),
        ("lfw", PAIRS, 2),
    ],
)
def test_a_file_of_other_lines_is_refused_at_the_first(tmp_path, layout, file, first):
    read = miniature(layout, tmp_path)
    lines = (tmp_path / file).read_text().splitlines()
    write(tmp_path / file, *lines[: first - 1], *["something else"] * (len(lines) - first + 1))
    message = rf"{Path(file).name}: \d of \d do not fit the layout. The first, {Path(file).name}:{first}: "
    with pytest.raises(LayoutError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("layout", "gone", "message"),
    [
        ("celeba", FLAGS_FILE, "there is no `list_attr_celeba.txt` or `Anno/list_attr_celeba.txt`"),
        ("celeba", "img_align_celeba", "there is no .*`img_align_celeba` or .*`img_celeba`"),
        ("rafdb", RAFDB, f"there is no `basic/EmoLabel/{RAFDB}` or"),
        ("rafdb", "aligned", "there is no `Image/aligned` or `aligned` in it"),
        ("fer2013", TABLE, "there is no `fer2013.csv` or `icml_face_data.csv` in it, and no class"),
        ("genki4k", "labels.txt", "there is no `labels.txt`"),
        ("genki4k", "files", "there is no `files`"),
        ("disfa", "ActionUnit_Labels", "there is no `ActionUnit_Labels`"),
        ("disfa", "Images", "there is no `Images` or `images` or `Frames` or `Image`"),
        ("disfa", UNITS, f"there is no `{UNITS}`"),
        ("bp4d", "F001_T1.csv", "no file of codes like AUCoding/AU_OCC/F001_T1.csv"),
        ("bp4d", "F001", "no coded frame has an image"),
        ("lfw", "lfw-aligned", "there is no `<Name>/<Name>_0001.jpg`"),
        ("lfw", PAIRS, "there is none of `pairs.txt`.* csv lists are not read"),
        ("calfw", "images", "there is no `aligned images`"),
        ("calfw", "pairs_CALFW.txt", "there is no `pairs_CALFW.txt`"),
    ],
)
def test_what_a_collection_lacks_is_named(tmp_path, layout, gone, message):
    read = miniature(layout, tmp_path / "root")
    (tmp_path / "root" / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match=message):
        read(tmp_path / "root")


def damage(content: bytes, generator: np.random.Generator) -> bytes:
    """Damage a label file: remove, repeat or swap lines, overwrite bytes, or truncate it."""
    lines = content.splitlines(keepends=True)
    first, second = sorted(generator.integers(0, len(lines), 2).tolist())
    match generator.integers(7):
        case 0:
            del lines[first]
        case 1:
            lines.insert(first, lines[second])
        case 2:
            lines[first] = generator.choice(
                [b"\n", b"nan nan nan nan\n", b"9" * 30 + b"," + b"9" * 30 + b"\n", b"\xff\xfe\n"]
            )
        case 3:
            return content[: int(generator.integers(len(content)))]
        case 4:
            changed = bytearray(content)
            for place in generator.integers(0, len(content), 5):
                changed[place] = generator.integers(256)
            return bytes(changed)
        case 5:
            lines[first] = lines[first].replace(b" ", b",", 1)
        case 6:
            return content.replace(b"\n", b"\r\n")
    return b"".join(lines)


@pytest.mark.slow
def test_300_mangled_label_files_are_read_or_refused_in_one_line(tmp_path):
    counts = Counter()
    layouts = ["celeba", "rafdb", "fer2013", "genki4k", "disfa", "bp4d", "lfw", "biwi"]
    readers = {layout: miniature(layout, tmp_path / layout) for layout in layouts}
    expected = {layout: get_labels_by_image(read(tmp_path / layout)) for layout, read in readers.items()}
    for seed in range(300):
        generator = np.random.default_rng(seed)
        layout = layouts[generator.integers(len(layouts))]
        files = find_label_files(tmp_path / layout)
        file = files[generator.integers(len(files))]
        content = file.read_bytes()
        file.write_bytes(changed := damage(content, generator))
        try:
            actual = get_labels_by_image(readers[layout](tmp_path / layout))
        except LayoutError as error:
            counts["refused" if "\n" not in str(error) else "refused in several lines"] += 1
        else:
            if changed in (content, content.replace(b"\n", b"\r\n")):
                assert actual == expected[layout]
            counts["read as before" if actual == expected[layout] else "read with other rows"] += 1
        finally:
            file.write_bytes(content)
    assert min(counts.values()) > 20
    assert len(counts) == 3


def find_label_files(root: Path) -> list[Path]:
    return sorted([*root.rglob("*.txt"), *root.rglob("*.csv")])


def get_labels_by_image(collection: Collection) -> dict:
    return {row.image.name: row.labels for row in list_rows(collection)}
