"""Collections as people have them: aligned, in another format, or as Kaggle packs them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from miniatures import BP4D, DISFA, MINIATURES, UPRIGHT, draw, miniature, write

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
    assert [row.labels for row in rows_of(collection)] == [row.labels for row in rows_of(expected)]
    assert {split: len(pairs) for split, pairs in collection.pairs.items()} == {
        split: len(pairs) for split, pairs in expected.pairs.items()
    }
    photos = [row.image for row in rows_of(collection)]
    photos += [photo for pairs in collection.pairs.values() for pair in pairs for photo in (pair.image_a, pair.image_b)]
    assert all(photo.source.exists() for photo in photos)


def rows_of(collection: Collection) -> list:
    return [row for rows in collection.splits.values() for row in rows]


@pytest.mark.parametrize("suffix", ["{}.jpg.chip.jpg", "{}.jpg.chip.png"])
@pytest.mark.parametrize("folder", ["", "UTKFace", "part2"])
def test_utkface(tmp_path, suffix, folder):
    draw(tmp_path / folder, *map(suffix.format, ("26_0_1_20170116184024662", "100_1_0_20170112213500903")))
    rows = LAYOUTS["utkface"](tmp_path).splits["train"]
    assert [(row.labels["age"], row.labels["gender"]) for row in rows] == [(26, 0), (100, 1)]


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


@pytest.mark.parametrize(
    "name", ["SN001_{:05d}_crop256.jpg", "{:04d}_112x112.png", "{}.jpg", "LeftVideoSN001_{:04d}.jpg"]
)
def test_frames_of_disfa(tmp_path, name):
    for unit in DISFA:
        write(tmp_path / f"ActionUnit_Labels/SN001/SN001_au{unit}.txt", *(f"{frame},{frame}" for frame in (1, 2, 3)))
    draw(tmp_path / "Images/SN001", *(name.format(frame) for frame in (1, 2, 3)))
    rows = LAYOUTS["disfa"](tmp_path).splits["train"]
    assert [(row.labels["frame"], row.labels["AU12"]) for row in rows] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("name", ["{:04d}_112x112.jpg", "F001_T1_{:04d}_crop256.jpg", "{}.png"])
def test_frames_of_bp4d(tmp_path, name):
    codes = (",".join([str(frame), *["1"] * len(BP4D)]) for frame in (1, 10))
    write(tmp_path / "AUCoding/AU_OCC/F001_T1.csv", ",".join(["0", *map(str, BP4D)]), *codes)
    draw(tmp_path / "2D+3D/F001/T1", *(name.format(frame) for frame in (1, 10)))
    assert [row.labels["frame"] for row in LAYOUTS["bp4d"](tmp_path).splits["train"]] == [1, 10]


def test_a_frame_of_biwi_beyond_64_bits_is_broken(tmp_path):
    read = miniature("biwi", tmp_path)
    draw(tmp_path / "faces_0/01", f"frame_{'9' * 25}_rgb.png")
    write(tmp_path / f"faces_0/01/frame_{'9' * 25}_pose.txt", *UPRIGHT)
    collection = read(tmp_path)
    assert [row.labels["frame"] for row in collection.splits["train"]] == [1, 2, 3]
    assert [reason for _, reason in collection.broken] == ["its frame has a number of more than 18 digits"]


def mangled(content: bytes, generator: np.random.Generator) -> bytes:
    """A label file that lost, doubled or exchanged lines, or whose bytes were overwritten or cut short."""
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
    expected = {layout: labels_by_image(read(tmp_path / layout)) for layout, read in readers.items()}
    for seed in range(300):
        generator = np.random.default_rng(seed)
        layout = layouts[generator.integers(len(layouts))]
        files = label_files(tmp_path / layout)
        file = files[generator.integers(len(files))]
        content = file.read_bytes()
        file.write_bytes(changed := mangled(content, generator))
        try:
            found = labels_by_image(readers[layout](tmp_path / layout))
        except LayoutError as error:
            counts["refused" if "\n" not in str(error) else "refused in several lines"] += 1
        else:
            if changed in (content, content.replace(b"\n", b"\r\n")):
                assert found == expected[layout]
            counts["read as before" if found == expected[layout] else "read with other rows"] += 1
        finally:
            file.write_bytes(content)
    assert min(counts.values()) > 20
    assert len(counts) == 3


def label_files(root: Path) -> list[Path]:
    return sorted([*root.rglob("*.txt"), *root.rglob("*.csv")])


def labels_by_image(collection: Collection) -> dict:
    return {row.image.name: row.labels for row in rows_of(collection)}
