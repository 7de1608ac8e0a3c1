"""One decoder decides what an image is: the same pixels, or the same refusal, wherever one comes in."""

import base64
import importlib.util
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import pipeline

from modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification, PCLForPreTraining, PCLImageProcessor
from modeling_pcl.data.images import decode_image
from modeling_pcl.hub.push import TEMPLATES
from modeling_pcl.images_pcl import BrokenImageError, open_image, to_grey_levels

SIZE = 32
PROCESSOR = PCLImageProcessor.for_image_size(SIZE)
ORIENTATION = 0x0112
REFUSED = "refused"


def photo(seed: int = 0, width: int = 40, height: int = 50) -> Image.Image:
    rows = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(rows)


def to_bytes(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def on_white(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Only where the mask is 255 is anything seen."""
    return Image.composite(image, Image.new("RGB", image.size, "white"), mask)


def kinds() -> dict[str, tuple[bytes, Image.Image]]:
    """Files of every kind, each with what is to be seen of it."""
    colour, grey = photo(), photo().convert("L")
    mask = Image.fromarray(255 * (np.indices((50, 40)).sum(0) % 2 == 0).astype(np.uint8))
    deep = np.asarray(grey).astype(np.uint16) * 257
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # The camera was turned: a quarter to the right brings it upright.
    few = colour.quantize(16)
    cut_out, pale = colour.copy(), grey.copy()
    cut_out.putalpha(mask)
    pale.putalpha(mask)
    indices = np.asarray(few) == 3
    seen = Image.fromarray(255 * (~indices).astype(np.uint8))
    return {
        "RGB": (to_bytes(colour), colour),
        "L": (to_bytes(grey), grey),
        "turned by EXIF": (to_bytes(colour, exif=exif), colour.transpose(Image.Transpose.ROTATE_270)),
        "turned TIFF": (to_bytes(colour, "TIFF", exif=exif), colour.transpose(Image.Transpose.ROTATE_270)),
        "I;16": (to_bytes(Image.fromarray(deep)), grey),
        "I;16B": (to_bytes(Image.frombytes("I;16B", grey.size, deep.astype(">u2").tobytes()), "TIFF"), grey),
        "I": (to_bytes(Image.fromarray(deep.astype(np.int32)), "TIFF"), grey),
        "RGBA": (to_bytes(cut_out), on_white(colour, mask)),
        "RGBA WebP": (to_bytes(cut_out, "WEBP", lossless=True), on_white(colour, mask)),
        "LA": (to_bytes(pale), on_white(grey.convert("RGB"), mask)),
        "P": (to_bytes(few), few.convert("RGB")),
        "P with tRNS": (to_bytes(few, transparency=3), on_white(few.convert("RGB"), seen)),
        "CMYK": (to_bytes(colour.convert("CMYK"), "TIFF"), colour.convert("CMYK").convert("RGB")),
        "1": (to_bytes(grey.convert("1")), grey.convert("1").convert("L")),
        "first frame": (to_bytes(few, "GIF", save_all=True, append_images=[photo(1).quantize(16)]), few.convert("RGB")),
    }


KINDS = kinds()


def load(path: Path):
    """A file that is no module of the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Doors:
    """Where images come in: from the bytes of a file to what the model is given, or answers."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name, model_class in {
            "pretrained": PCLForPreTraining,
            "expression": PCLForImageClassification,
            "head_pose": PCLForHeadPoseEstimation,
        }.items():
            tiny.save(folder / name, model_class, problem_type=None)
        self.handler_module = load(TEMPLATES / "handler.py")
        self.demo = load(Path(__file__).parents[1] / "hub_cards/space/app.py").Models(str(folder / "pretrained"))
        self.handlers = {
            name: self.handler_module.EndpointHandler(folder / name) for name in ("pretrained", "expression")
        }
        tasks = {
            "image-feature-extraction": "pretrained",
            "face-verification": "pretrained",
            "image-classification": "expression",
            "head-pose-estimation": "head_pose",
        }
        self.pipelines = {
            task: pipeline(task, str(folder / name), trust_remote_code=True, device="cpu")
            for task, name in tasks.items()
        }

    def pixels(self, content: bytes) -> dict[str, torch.Tensor]:
        """What the processor and the corpora make of a file, in every form in which they take it."""
        path = self.folder / "image"
        path.write_bytes(content)
        forms = {
            "path": path,
            "text of a path": str(path),
            "bytes": content,
            "PIL": Image.open(io.BytesIO(content)),
            "base64": base64.b64encode(content).decode(),
            "data URI": "data:image/png;base64," + base64.b64encode(content).decode(),
        }
        made = {name: PROCESSOR(form, return_tensors="pt")["pixel_values"][0] for name, form in forms.items()}
        return made | {"corpus": decode_image({"bytes": content, "path": None}, SIZE) / 255}

    def answers(self, content: bytes) -> dict[str, list]:
        path = self.folder / "image"
        path.write_bytes(content)
        answers = {}
        for task, pipe in self.pipelines.items():
            for name, form in {"path": path, "bytes": content, "PIL": Image.open(io.BytesIO(content))}.items():
                answers[f"{task}, {name}"] = pipe((form, form) if task == "face-verification" else form)
        return answers

    def served(self, content: bytes) -> dict[str, list]:
        return {name: handler({"inputs": content}) for name, handler in self.handlers.items()}

    def elsewhere(self, content: bytes) -> dict[str, torch.Tensor | str]:
        """Pixels at the endpoint and in the demo, or `REFUSED`."""
        (self.folder / "image").write_bytes(content)
        ways = {
            "the endpoint": lambda: self.handler_module.RequestReader(self.folder / "expression").open_image(
                content, "the image"
            ),
            "the demo": lambda: self.demo.open_photo(str(self.folder / "image")),
        }
        outcomes = {}
        for door, way in ways.items():
            try:
                outcomes[door] = PROCESSOR(way(), return_tensors="pt")["pixel_values"][0]
            except ValueError:
                outcomes[door] = REFUSED
        return outcomes


@pytest.fixture(scope="module")
def doors(tmp_path_factory) -> Doors:
    return Doors(tmp_path_factory.mktemp("doors"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_what_is_seen_at_every_door(doors, kind):
    content, seen = KINDS[kind]
    expected = PROCESSOR(seen, return_tensors="pt")["pixel_values"][0]
    for door, found in doors.pixels(content).items():
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, msg=f"{kind}, {door}")
    plain = doors.answers(to_bytes(seen))
    for door, answer in doors.answers(content).items():
        assert answer == pytest.approx(plain[door]) if isinstance(answer, dict) else answer == plain[door], door
    assert doors.served(content) == doors.served(to_bytes(seen))


def test_two_people_in_16_bits_are_two_people():
    one, other = (
        open_image(Image.fromarray(np.asarray(photo(seed).convert("L")).astype(np.uint16) * 257)) for seed in (0, 1)
    )
    assert one.getextrema()[0][0] < 10
    assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).mean() > 50


@pytest.mark.parametrize(
    "array",
    [
        np.asarray(photo().convert("L")),
        np.asarray(photo().convert("L"))[..., None],
        np.asarray(photo().convert("L")).astype(np.uint16) * 257,
        (np.asarray(photo().convert("L")).astype(np.uint16) * 257).astype(">u2"),
        np.asarray(photo().convert("L")).astype(np.int64),
        np.asarray(photo().convert("L")) / 255,
        (np.asarray(photo().convert("L")) / 255).astype(np.float16),
        np.asarray(photo().convert("L")).astype(np.float32),
        torch.from_numpy(np.asarray(photo().convert("L")) / 255),
    ],
    ids=lambda array: f"{array.dtype} {array.ndim}",
)
def test_arrays_of_every_type_are_the_photo(array):
    expected = PROCESSOR(photo().convert("L"), return_tensors="pt")["pixel_values"]
    assert torch.equal(PROCESSOR(array, return_tensors="pt")["pixel_values"], expected)


def test_an_array_with_transparency_is_its_photo():
    cut_out = photo()
    cut_out.putalpha(photo(1).convert("L"))
    expected = PROCESSOR(cut_out, return_tensors="pt")["pixel_values"]
    for array in (np.asarray(cut_out), np.asarray(cut_out).transpose(2, 0, 1), np.asarray(cut_out) / 255):
        assert torch.equal(PROCESSOR(array, return_tensors="pt")["pixel_values"], expected)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ([], "the list is empty"),
        ([[]], "the list is empty"),
        (None, "got NoneType|not NoneType"),
        (np.zeros(40, np.uint8), "two or three axes"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((40, 40, 7), np.uint8), "channel dimension"),
        (np.full((40, 40), np.nan), "from nan to nan"),
        (np.full((40, 40), 300.0), "from 300 to 300"),
        (np.full((40, 40), 4000, np.int32), "must be uint16"),
        (np.full((40, 40), -1), "from -1 to -1"),
        (np.zeros((40, 40), complex), "complex128"),
        (Image.fromarray(np.zeros((40, 40), np.float32)), "floating-point pixels have no stated range"),
        (Image.fromarray(np.full((40, 40), 70_000, np.int32)), "beyond 16 bits"),
        ("no/such/file.png", "no/such/file.png: it is no file"),
        (Path("no/such/file.png"), "no/such/file.png: it is no file"),
        (Path("/"), "it is a folder"),
        (b"", "the file is empty"),
        (b"neither", "no image format"),
        (KINDS["RGB"][0][:2000], "truncated"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
def test_what_is_no_image_is_refused_in_one_line(image, reason):
    with pytest.raises((TypeError, ValueError), match=reason) as refusal:
        PROCESSOR(image, return_tensors="pt")
    assert "\n" not in str(refusal.value)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded():
    with pytest.raises(BrokenImageError, match="40 x 50 px are more than `max_pixels` = 1999"):
        open_image(KINDS["RGB"][0], max_pixels=1999)


def test_values_that_are_kept_are_kept():
    values = np.array([[-3.0, 700.0]])
    assert torch.equal(to_grey_levels(values, keep_floats=True), torch.tensor([[-3.0, 700.0]]))


def mangled(seed: int) -> bytes:
    """A file of some kind with its bytes cut short, overwritten, or left as they are."""
    generator = np.random.default_rng(seed)
    content = bytearray(KINDS[list(KINDS)[generator.integers(len(KINDS))]][0])
    match generator.integers(4):
        case 0:
            del content[int(generator.integers(len(content))) :]
        case 1:
            for place in generator.integers(0, len(content), 1 + int(generator.integers(20))):
                content[place] = generator.integers(256)
        case 2:
            first = int(generator.integers(len(content)))
            content[first : first + 40] = generator.bytes(40)
    return bytes(content)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_300_mangled_files_give_the_same_pixels_or_are_refused_at_every_door(doors, capsys):
    counts = Counter()
    for seed in range(300):
        content = mangled(seed)
        outcomes = {}
        for door, read in {
            "corpus": lambda content: decode_image({"bytes": content, "path": None}, SIZE) / 255,
            "processor": lambda content: PROCESSOR(content, return_tensors="pt")["pixel_values"][0],
            "pipeline": lambda content: doors.pipelines["head-pose-estimation"].preprocess(content)["pixel_values"][0],
            "classification": lambda content: doors.pipelines["image-classification"].preprocess(content)[
                "pixel_values"
            ][0],
        }.items():
            try:
                outcomes[door] = read(content)
            except ValueError as error:  # Of the folder's own code, where a pipeline opened it.
                outcomes[door] = error.reason
        outcomes |= doors.elsewhere(content)
        first = outcomes["corpus"]
        for door, outcome in outcomes.items():
            if isinstance(first, str):
                assert outcome in (first, REFUSED), (seed, door)
            else:
                torch.testing.assert_close(outcome, first, rtol=0, atol=1e-6, msg=f"{seed}, {door}")
        counts["refused" if isinstance(first, str) else "read"] += 1
    with capsys.disabled():
        print(f"\n300 mangled files: {dict(counts)}")
    assert min(counts["read"], counts["refused"]) > 50
