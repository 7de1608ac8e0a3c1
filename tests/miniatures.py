"""Small collections of faces on disk, one of each layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from modeling_pcl.data.collections.layouts import LAYOUTS

DISFA = [1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26]
BP4D = [1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24]
UPRIGHT = ("1 0 0", "0 1 0", "0 0 1", "", "0 0 900")  # A pose file of BIWI.


def draw(root: Path, *names: str):
    """Save a small grey image, in the format of its suffix, under each name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / name)


def write(path: Path, *lines: str) -> Path:
    """Save lines of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def save_pose(path: Path, yaw_deg: float):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"Pose_Para": np.array([[0.0, -np.radians(yaw_deg), 0.0, 0.0]])})


def celeba(root: Path):
    names = [f"{number:06d}" for number in range(1, 7)]
    flags = (f"{name}.jpg " + " ".join(["1", "-1"] * 20) for name in names)
    write(root / "list_attr_celeba.txt", "6", " ".join(f"A{number}" for number in range(40)), *flags)
    write(root / "identity_CelebA.txt", *(f"{name}.jpg 7" for name in names))
    draw(root / "img_align_celeba", *(f"{name}.jpg" for name in names))


def rafdb(root: Path):
    write(root / "list_patition_label.txt", *(f"train_0000{number}.jpg {number}" for number in range(1, 8)))
    draw(root / "aligned", *(f"train_0000{number}_aligned.jpg" for number in range(1, 8)))


def fer2013(root: Path):
    pixels = " ".join(["7"] * 48**2)
    write(root / "fer2013.csv", "emotion,pixels,Usage", *(f"{number},{pixels},Training" for number in range(7)))


def genki4k(root: Path):
    write(root / "labels.txt", *(f"{number % 2} 0.1 -0.2 0.3" for number in range(6)))
    draw(root / "files", *(f"file000{number}.jpg" for number in range(1, 7)))


def disfa(root: Path):
    for unit in DISFA:
        write(root / f"ActionUnit_Labels/SN001/SN001_au{unit}.txt", *(f"{frame},3" for frame in range(1, 7)))
    draw(root / "Images/SN001", *(f"{frame}.jpg" for frame in range(1, 7)))


def bp4d(root: Path):
    codes = (",".join([str(frame), *["1"] * len(BP4D)]) for frame in range(1, 7))
    write(root / "F001_T1.csv", ",".join(["0", *map(str, BP4D)]), *codes)
    draw(root / "F001/T1", *(f"{frame}.jpg" for frame in range(1, 7)))


def lfw(root: Path):
    draw(root / "lfw-aligned", *(f"Ann_Lee/Ann_Lee_000{number}.jpg" for number in range(1, 5)), "Bo/Bo_0001.jpg")
    pairs = ("Ann_Lee\t1\t2", "Ann_Lee\t3\t4", "Ann_Lee\t1\tBo\t1", "Ann_Lee\t2\tBo\t1")
    write(root / "pairs.txt", "1\t2", *pairs)


def two_line_pairs(root: Path, list_name: str, digits: int):
    people = [f"P_{letter}" for letter in "abcdefghij"]
    one, two = (f"{number:0{digits}d}.jpg" for number in (1, 2))
    draw(root / "images", *(f"{person}_{number}" for person in people for number in (one, two)))
    pairs = [(f"{person}_{one}", f"{person}_{two}", 1) for person in people]
    pairs += [(f"{person}_{one}", f"{other}_{one}", 0) for person, other in zip(people, people[1:] + people[:1])]
    write(root / list_name, *(f"{name} {flag}" for first, second, flag in pairs for name in (first, second)))


def cplfw(root: Path):
    two_line_pairs(root, "pairs_CPLFW.txt", 1)


def calfw(root: Path):
    two_line_pairs(root, "pairs_CALFW.txt", 4)


def biwi(root: Path):
    for number in range(1, 4):
        draw(root / "faces_0/01", f"frame_0000{number}_rgb.png")
        write(root / f"faces_0/01/frame_0000{number}_pose.txt", *UPRIGHT)


def fitted(root: Path):
    # Numbers of renderings, of which one is the 0 that a face detector adds too.
    for number, yaw in enumerate((-30, 10)):
        save_pose(root / f"image_77_{number}.mat", yaw)
        draw(root, f"image_77_{number}.jpg")


def utkface(root: Path):
    draw(root, "26_0_1_20170116184024662.jpg", "100_1_0_20170112213500903.jpg")


def voxceleb(root: Path):
    draw(root / "id10001/1zcIwhmdeo4", "0000375.jpg", "0000400.jpg")


MINIATURES = {
    "celeba": celeba,
    "rafdb": rafdb,
    "fer2013": fer2013,
    "genki4k": genki4k,
    "disfa": disfa,
    "bp4d": bp4d,
    "lfw": lfw,
    "cplfw": cplfw,
    "calfw": calfw,
    "biwi": biwi,
    "300wlp": lambda root: fitted(root / "AFW"),
    "aflw2000": lambda root: fitted(root / "AFLW2000"),
    "utkface": utkface,
    "voxceleb": voxceleb,
}


def miniature(name: str, root: Path) -> Callable:
    """Make a collection of this layout in a folder, and give what reads it."""
    MINIATURES[name](root)
    return LAYOUTS[name]
