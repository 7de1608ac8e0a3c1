"""Collections as people have them: aligned, in another format, or as Kaggle packs them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from modeling_pcl.data.collections.layouts.action_units import read_bp4d, read_disfa
from modeling_pcl.data.collections.layouts.attributes import read_celeba, read_utkface
from modeling_pcl.data.collections.layouts.base import LayoutError, Photo
from modeling_pcl.data.collections.layouts.expression import read_fer2013, read_rafdb
from modeling_pcl.data.collections.layouts.folders import read_voxceleb
from modeling_pcl.data.collections.layouts.genki import read_genki4k
from modeling_pcl.data.collections.layouts.pair_lists import read_calfw, read_cplfw, read_lfw
from modeling_pcl.data.collections.layouts.pose import read_300wlp, read_aflw2000, read_biwi
from modeling_pcl.data.collections.raw_images import Treatment, prepare_image
from modeling_pcl.images_pcl import BrokenImageError

SUFFIXES = ["{}.jpg", "{}.png", "{}.jpeg", "{}.JPG", "{}_0.jpg", "{}_0.png"]
DISFA = [1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26]
BP4D = [1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24]


def draw(root: Path, *names: str):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / name)


def write(path: Path, *lines: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lfw(tmp_path, suffix):
    for person, numbers in {"AJ_Cook": (1, 2), "Ann_Lee": (1,)}.items():
        draw(tmp_path / "lfw-aligned", *(f"{person}/" + suffix.format(f"{person}_{n:04d}") for n in numbers))
    write(tmp_path / "pairs.txt", "1\t1", "AJ_Cook\t1\t2", "AJ_Cook\t1\tAnn_Lee\t1")
    collection = read_lfw(tmp_path)
    assert [row.labels["subject"] for row in collection.splits["train"]] == ["AJ_Cook", "AJ_Cook", "Ann_Lee"]
    pairs = collection.pairs["test"]
    assert len(pairs) == 2
    assert all(pair.image_a.source.exists() and pair.image_b.source.exists() for pair in pairs)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cplfw(tmp_path, suffix):
    people = [f"P_{'abcdefghij'[number]}" for number in range(10)]
    draw(tmp_path / "images", *(suffix.format(f"{person}_{n}") for person in people for n in (1, 2)))
    pairs = [(f"{person}_1.jpg", f"{person}_2.jpg", 1) for person in people]
    pairs += [(f"{person}_1.jpg", f"{other}_1.jpg", 0) for person, other in zip(people, people[1:] + people[:1])]
    write(tmp_path / "pairs_CPLFW.txt", *(f"{name} {flag}" for a, b, flag in pairs for name in (a, b)))
    collection = read_cplfw(tmp_path)
    assert {row.labels["subject"] for row in collection.splits["train"]} == set(people)
    assert len(collection.pairs["test"]) == 20
    assert collection.broken == []
    assert all(pair.image_b.source.exists() for pair in collection.pairs["test"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["{}_aligned", "{}"])
def test_rafdb(tmp_path, suffix, name):
    names = [f"train_{number:05d}" for number in range(1, 5)]
    write(tmp_path / "EmoLabel/list_patition_label.txt", *(f"{each}.jpg {n}" for n, each in enumerate(names, 1)))
    draw(tmp_path / "Image/aligned", *(suffix.format(name.format(each)) for each in names))
    collection = read_rafdb(tmp_path)
    assert [row.labels["expression"] for row in collection.splits["train"]] == [0, 1, 2, 3]
    assert all(row.image.source.exists() for row in collection.splits["train"])
    assert collection.broken == []


def test_images_of_rafdb_without_a_line_are_named(tmp_path):
    write(tmp_path / "EmoLabel/list_patition_label.txt", "train_00001.jpg 1", "train_00002.jpg 2")
    draw(tmp_path / "Image/aligned", *(f"train_{number:05d}_aligned.jpg" for number in (1, 2, 3)))
    (broken,) = read_rafdb(tmp_path).broken
    assert broken == ("Image/aligned/train_00003_aligned.jpg", "has no line in `list_patition_label.txt`")


@pytest.mark.parametrize("base", ["", "DATASET/", "archive/DATASET/"])
@pytest.mark.parametrize("folders", [("1", "7"), ("Surprise", "neutral"), ("surprised", "Neutral")])
def test_rafdb_of_kaggle(tmp_path, base, folders):
    for split, number in {"train": "00001", "test": "0001"}.items():
        draw(tmp_path / base / split, *(f"{folder}/{split}_{number}_aligned.jpg" for folder in folders))
        write(tmp_path / base / f"{split}_labels.csv", "image,label")
    collection = read_rafdb(tmp_path)
    assert list(collection.splits) == ["train", "test"]
    assert sorted(row.labels["expression"] for row in collection.splits["train"]) == [0, 6]


@pytest.mark.parametrize("base", ["", "fer2013/", "archive/images/"])
def test_fer2013_of_kaggle_in_class_folders(tmp_path, base):
    draw(tmp_path / base, "train/angry/Training_3908.jpg", "test/neutral/PrivateTest_1.jpg", "validation/sad/1.jpg")
    collection = read_fer2013(tmp_path)
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
    (row,) = read_fer2013(tmp_path).splits["train"]
    assert row.labels == {"expression": 3}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_celeba(tmp_path, suffix):
    names = [f"{number:06d}" for number in range(1, 4)]
    attributes = [f"A{number}" for number in range(40)]
    lines = [f"{name}.jpg " + " ".join(["1"] * 40) for name in names]
    write(tmp_path / "Anno/list_attr_celeba.txt", "3", " ".join(attributes), *lines)
    draw(tmp_path / "Img/img_align_celeba", *map(suffix.format, names))
    collection = read_celeba(tmp_path)
    assert len(collection.splits["train"]) == 3
    assert all(row.image.source.exists() for row in collection.splits["train"])
    assert collection.broken == []


def test_images_of_celeba_without_attributes_or_identity_are_counted_and_named(tmp_path):
    lines = [f"{number:06d}.jpg " + " ".join(["1"] * 40) for number in (1, 2)]
    write(tmp_path / "list_attr_celeba.txt", "2", " ".join(f"A{number}" for number in range(40)), *lines)
    write(tmp_path / "identity_CelebA.txt", "000001.jpg 2880")
    draw(tmp_path / "img_align_celeba", "000001.jpg", "000002.jpg", "000003.jpg")
    collection = read_celeba(tmp_path)
    assert [row.labels["subject"] for row in collection.splits["train"]] == ["2880", None]
    assert dict(collection.broken) == {
        "img_align_celeba/000003.jpg": "has no line in `list_attr_celeba`",
        "identity_CelebA": "1 images have no line, so no subject; the first is 000002",
    }


def test_two_images_of_one_name_are_refused(tmp_path):
    draw(tmp_path / "Image/aligned", "train_00001_aligned.jpg", "train_00001_aligned.png")
    write(tmp_path / "EmoLabel/list_patition_label.txt", "train_00001.jpg 1")
    with pytest.raises(LayoutError, match=r"train_00001_aligned.png.*has the name of .*train_00001_aligned.jpg"):
        read_rafdb(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_calfw(tmp_path, suffix):
    people = [f"P_{'abcdefghij'[number]}" for number in range(10)]
    draw(tmp_path / "images", *(suffix.format(f"{person}_000{n}") for person in people for n in (1, 2)))
    pairs = [(f"{person}_0001.jpg", f"{person}_0002.jpg", fold) for fold, person in enumerate(people, 1)]
    pairs += [(f"{a}_0001.jpg", f"{b}_0001.jpg", 0) for a, b in zip(people, people[1:] + people[:1])]
    write(tmp_path / "pairs_CALFW.txt", *(f"{name} {flag}" for a, b, flag in pairs for name in (a, b)))
    collection = read_calfw(tmp_path)
    assert len(collection.pairs["test"]) == 20
    assert collection.broken == []


def save_pose(path: Path, yaw_deg: float):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"Pose_Para": np.array([[0.0, -np.radians(yaw_deg), 0.0, 0.0]])})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("read", "folder"), [(read_300wlp, "AFW"), (read_300wlp, "300W_LP/AFW_Flip"), (read_aflw2000, "AFLW2000")]
)
def test_head_poses_of_matlab(tmp_path, suffix, read, folder):
    # Numbers of renderings, of which one is the 0 that a face detector adds too.
    for number, yaw in enumerate((-30, 10)):
        save_pose(tmp_path / folder / f"image_77_{number}.mat", yaw)
        draw(tmp_path / folder, suffix.format(f"image_77_{number}"))
    collection = read(tmp_path)
    (rows,) = collection.splits.values()
    assert [round(row.labels["yaw"]) for row in rows] == [-30, 10]
    assert {row.labels.get("subject", "AFW/image_77") for row in rows} == {"AFW/image_77"}
    assert collection.broken == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_biwi(tmp_path, suffix):
    for number in ("00003", "00012"):
        draw(tmp_path / "faces_0/01", suffix.format(f"frame_{number}_rgb"))
        write(tmp_path / f"faces_0/01/frame_{number}_pose.txt", "1 0 0", "0 1 0", "0 0 1", "", "0 0 900")
    collection = read_biwi(tmp_path)
    assert [row.labels["frame"] for row in collection.splits["train"]] == [3, 12]
    assert collection.broken == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_genki4k(tmp_path, suffix):
    draw(tmp_path / "files", *(suffix.format(f"file000{number}") for number in (1, 2)))
    write(tmp_path / "labels.txt", "0 0.1 0 0", "1 -0.2 0 0")
    collection = read_genki4k(tmp_path)
    assert [row.labels["smile"] for row in collection.splits["train"]] == [0, 1]
    assert all(row.image.source.exists() for row in collection.splits["train"])
    assert collection.broken == []


@pytest.mark.parametrize("suffix", [*SUFFIXES, "{}.jpg.chip.jpg", "{}.jpg.chip.png"])
@pytest.mark.parametrize("folder", ["", "UTKFace", "part2"])
def test_utkface(tmp_path, suffix, folder):
    names = ("26_0_1_20170116184024662", "100_1_0_20170112213500903")
    draw(tmp_path / folder, *map(suffix.format, names))
    rows = read_utkface(tmp_path).splits["train"]
    assert [(row.labels["age"], row.labels["gender"]) for row in rows] == [(26, 0), (100, 1)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_voxceleb(tmp_path, suffix):
    draw(tmp_path / "id10001/1zcIwhmdeo4", *map(suffix.format, ("0000375", "0000400")))
    rows = read_voxceleb(tmp_path).splits["train"]
    assert [(row.labels["subject"], row.labels["frame"]) for row in rows] == [("id10001", 375), ("id10001", 400)]


@pytest.mark.parametrize(
    ("read", "first", "second"),
    [
        (read_genki4k, "files/file0001.jpg", "files/file0001.png"),
        (read_aflw2000, "image00002.jpg", "image00002_0.jpg"),
        (read_biwi, "01/frame_00003_rgb.png", "01/frame_00003_rgb.jpg"),
        (read_voxceleb, "id1/v/0001.jpg", "id1/v/0001.png"),
    ],
)
def test_two_images_of_one_line_are_refused(tmp_path, read, first, second):
    draw(tmp_path, first, second)
    write(tmp_path / "labels.txt", "0 0.1 0 0")
    save_pose(tmp_path / "image00002.mat", 5)
    with pytest.raises(LayoutError, match="keep one"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["SN001_{:05d}_crop256.jpg", "{:04d}_112x112.png", "{}.jpg", "LeftVideoSN001_{:04d}.jpg"]
)
def test_frames_of_disfa(tmp_path, name):
    for unit in DISFA:
        write(tmp_path / f"ActionUnit_Labels/SN001/SN001_au{unit}.txt", *(f"{frame},{frame}" for frame in (1, 2, 3)))
    draw(tmp_path / "Images/SN001", *(name.format(frame) for frame in (1, 2, 3)))
    rows = read_disfa(tmp_path).splits["train"]
    assert [(row.labels["frame"], row.labels["AU12"]) for row in rows] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("name", ["{:04d}_112x112.jpg", "F001_T1_{:04d}_crop256.jpg", "{}.png"])
def test_frames_of_bp4d(tmp_path, name):
    codes = (",".join([str(frame), *["1"] * len(BP4D)]) for frame in (1, 10))
    write(tmp_path / "AUCoding/AU_OCC/F001_T1.csv", ",".join(["0", *map(str, BP4D)]), *codes)
    draw(tmp_path / "2D+3D/F001/T1", *(name.format(frame) for frame in (1, 10)))
    assert [row.labels["frame"] for row in read_bp4d(tmp_path).splits["train"]] == [1, 10]


def test_a_frame_of_biwi_beyond_64_bits_is_broken(tmp_path):
    for number in ("00003", "9" * 25):
        draw(tmp_path / "01", f"frame_{number}_rgb.png")
        write(tmp_path / f"01/frame_{number}_pose.txt", "1 0 0", "0 1 0", "0 0 1", "", "0 0 900")
    collection = read_biwi(tmp_path)
    assert [row.labels["frame"] for row in collection.splits["train"]] == [3]
    assert [reason for _, reason in collection.broken] == ["its frame has a number of more than 18 digits"]


def test_pixels_of_a_table_have_the_limit_of_files():
    image = Photo(np.zeros((64, 64, 3), np.uint8), "AFW.npz:0")
    with pytest.raises(BrokenImageError, match=r"AFW.npz:0: 64 x 64 px are more than `max_pixels` = 4095"):
        prepare_image(Path(), image, Treatment(max_pixels=4095))


def miniatures(root: Path) -> dict[Callable, list[Path]]:
    """A small collection of each layout that has label files, and those files."""
    names = [f"{number:06d}" for number in range(1, 7)]
    flags = (f"{name}.jpg " + " ".join(["1", "-1"] * 20) for name in names)
    write(root / "celeba/list_attr_celeba.txt", "6", " ".join(f"A{number}" for number in range(40)), *flags)
    write(root / "celeba/identity_CelebA.txt", *(f"{name}.jpg 7" for name in names))
    draw(root / "celeba/img_align_celeba", *(f"{name}.jpg" for name in names))
    write(root / "rafdb/list_patition_label.txt", *(f"train_0000{number}.jpg {number}" for number in range(1, 8)))
    draw(root / "rafdb/aligned", *(f"train_0000{number}_aligned.jpg" for number in range(1, 8)))
    pixels = " ".join(["7"] * 48**2)
    write(root / "fer/fer2013.csv", "emotion,pixels,Usage", *(f"{number},{pixels},Training" for number in range(7)))
    write(root / "genki/labels.txt", *(f"{number % 2} 0.1 -0.2 0.3" for number in range(6)))
    draw(root / "genki/files", *(f"file000{number}.jpg" for number in range(1, 7)))
    for unit in DISFA:
        write(root / f"disfa/ActionUnit_Labels/SN001/SN001_au{unit}.txt", *(f"{frame},3" for frame in range(1, 7)))
    draw(root / "disfa/Images/SN001", *(f"{frame}.jpg" for frame in range(1, 7)))
    codes = (",".join([str(frame), *["1"] * len(BP4D)]) for frame in range(1, 7))
    write(root / "bp4d/F001_T1.csv", ",".join(["0", *map(str, BP4D)]), *codes)
    draw(root / "bp4d/F001/T1", *(f"{frame}.jpg" for frame in range(1, 7)))
    draw(root / "lfw", *(f"Ann_Lee/Ann_Lee_000{number}.jpg" for number in range(1, 5)), "Bo/Bo_0001.jpg")
    write(root / "lfw/pairs.txt", "1\t2", "Ann_Lee\t1\t2", "Ann_Lee\t3\t4", *["Ann_Lee\t1\tBo\t1"] * 2)
    draw(root / "biwi/01", *(f"frame_0000{number}_rgb.png" for number in range(1, 4)))
    for number in range(1, 4):
        write(root / f"biwi/01/frame_0000{number}_pose.txt", "1 0 0", "0 1 0", "0 0 1", "", "0 0 900")
    readers = {
        "celeba": read_celeba,
        "rafdb": read_rafdb,
        "fer": read_fer2013,
        "genki": read_genki4k,
        "disfa": read_disfa,
        "bp4d": read_bp4d,
        "lfw": read_lfw,
        "biwi": read_biwi,
    }
    labels = {name: [*(root / name).rglob("*.txt"), *(root / name).rglob("*.csv")] for name in readers}
    return {reader: sorted(labels[name]) for name, reader in readers.items()}


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
def test_300_mangled_label_files_are_read_or_refused_in_one_line(tmp_path, capsys):
    counts = Counter()
    collections = miniatures(tmp_path)
    expected = {read: labels_by_image(read(root_of(tmp_path, files))) for read, files in collections.items()}
    for seed in range(300):
        generator = np.random.default_rng(seed)
        read = list(collections)[generator.integers(len(collections))]
        file = collections[read][generator.integers(len(collections[read]))]
        content = file.read_bytes()
        file.write_bytes(changed := mangled(content, generator))
        try:
            found = labels_by_image(read(root_of(tmp_path, collections[read])))
        except LayoutError as error:
            counts["refused" if "\n" not in str(error) else "refused in several lines"] += 1
        else:
            if changed in (content, content.replace(b"\n", b"\r\n")):
                assert found == expected[read]
            counts["read as before" if found == expected[read] else "read with other rows"] += 1
        finally:
            file.write_bytes(content)
    with capsys.disabled():
        print(f"\n300 mangled label files: {dict(counts)}")
    assert min(counts.values()) > 20
    assert len(counts) == 3


def root_of(root: Path, files: list[Path]) -> Path:
    return root / files[0].relative_to(root).parts[0]


def labels_by_image(collection) -> dict:
    return {row.image.name: row.labels for rows in collection.splits.values() for row in rows}
