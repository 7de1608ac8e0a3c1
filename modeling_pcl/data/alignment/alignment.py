"""Cut the faces out of photos and videos into a corpus.

    OUTPUT/
        data/train-00000-of-00003.parquet ...      faces, by split
        report.json                                counts, and photos without a face, with reasons
        faces.jpg                                  samples with boxes, points and crops
        .aligning/                                 parts of an unfinished run; deleted at its end

The same input and options give the same bytes. An interrupted run continues with the parts that it has written.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets import Dataset, Features, Value
from datasets import Sequence as NumberList
from PIL import Image, ImageOps
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from ... import PCLImageProcessor
from ...crop_pcl import FaceCrop
from ...detection_pcl import FaceDetector
from ...files import write_json
from ..child_processes import available_cpus
from ..corpora import corpus_revision, corpus_splits, load_corpus
from ..image_folders import is_image
from ..parts import begin_or_resume
from ..schema import get_features, make_corpus_features
from ..sources import MEDIA
from ..video import find_videos, videos_revision
from .arguments import AlignmentArguments
from .faces import Account, FaceWriter, Unit

logger = logging.getLogger(__name__)

DETECTION_FEATURES = {
    "box": NumberList(Value("float32"), 4),
    "points": NumberList(Value("float32"), 10),
    "score": Value("float32"),
}
SHEET_SAMPLES, SHEET_COLUMNS, TILE_PX, GAP_PX = 24, 4, 360, 8


def align(arguments: AlignmentArguments) -> dict:
    """Detect and cut out faces, and write them as a corpus.

    Returns:
        The report, as in `report.json`.

    Raises:
        ValueError: If the input has no photo and no video, no face is detected, or OUTPUT holds other files.
        ImportError: If packages for the face detector or for videos are not installed.
        OSError: If a file cannot be written, or a process died.
    """
    crop = PCLImageProcessor.from_pretrained(arguments.like).face_crop if arguments.like else arguments.crop()
    face_crop = FaceCrop(**crop)
    FaceDetector(**arguments.detector())  # Checks the options before any file is written.
    corpora, videos, root = open_input(arguments.input)
    folder = arguments.output_dir / ".aligning"
    revisions = [f"{split} {corpus_revision(corpus)}" for split, corpus in corpora.items()]
    revisions += [videos_revision(videos, root)] if videos else []
    plan = {"options": arguments.recorded() | {"crop": crop}, "collection": ", ".join(revisions)}
    earlier_report = begin_or_resume(arguments.output_dir, folder, plan)
    if earlier_report is not None:
        return earlier_report
    units = list(make_units(corpora, videos, root, arguments.photos_per_file))
    num_proc = arguments.num_proc or available_cpus()
    features = {"data": make_face_features(corpora, bool(videos))}
    shows_frames = min(num_proc, len(units)) < 2
    writer = FaceWriter(folder, root, features, corpora, face_crop, arguments, shows_frames)
    writer.write_missing(units, num_proc, "photo", "Finding faces")
    accounts = {unit: writer.read_account(unit) for unit in units}
    total = Account()
    for account in accounts.values():
        total.add(account)
    if not total.kept:
        shutil.rmtree(folder)  # Otherwise a run with another threshold would be refused.
        (name, reason), *_ = total.missed or [(arguments.input, "nothing was searched")]
        raise ValueError(
            f"Not one face in {arguments.input}. The first of {len(total.missed)} misses, {name}: {reason}."
        )
    if arguments.sheet:
        draw_sheet(folder, units).save(arguments.output_dir / "faces.jpg", quality=90)
    report = plan | {
        "digest": hashlib.sha256(json.dumps([plan, total.kept]).encode()).hexdigest(),
        "rows": writer.move_parts(accounts, arguments.output_dir),
        "photos": total.photos,
        "photos_with_several_faces": total.several,
        "thinned": total.thinned,
        "people_in_videos": total.people,
        "shots": total.shots,
        "missed": [{"name": name, "reason": reason} for name, reason in total.missed],
        "face_crop": crop,
    }
    write_json(arguments.output_dir / "report.json", report)
    shutil.rmtree(folder)
    return report


def open_input(name: str) -> tuple[dict[str, Dataset], list[Path], Path]:
    """Open the input.

    Returns:
        Photos by split, paths of videos, and the folder to which names of videos are relative.

    Raises:
        ValueError: If the input is neither a photo, a video nor a corpus.
    """
    path = Path(name).expanduser()
    root = path if path.is_dir() else path.parent
    videos = find_videos(path)
    if path.is_file() and not videos and path.suffix != ".parquet":
        if not is_image(path):
            raise ValueError(f"INPUT {name} is no photo, no video and no corpus.")
        record = {"bytes": path.read_bytes(), "path": path.name}
        return {"train": Dataset.from_dict({"image": [record]})}, [], root
    try:
        corpora = (
            {} if path.is_file() and videos else {split: load_corpus(name, split) for split in corpus_splits(name)}
        )
    except ValueError:
        if not videos:
            raise
        corpora = {}  # The folder has only videos.
    return corpora, videos, root


def make_face_features(corpora: Mapping[str, Dataset], has_videos: bool) -> Features:
    """Make the features of the faces: columns of the photos, of videos, and of the detected faces."""
    labels = {}
    for corpus in corpora.values():
        labels |= {key: kind for key, kind in corpus.features.items() if not isinstance(kind, MEDIA)}
    labels |= get_features("subject", "video", "frame") if has_videos else {}
    labels = {key: kind for key, kind in labels.items() if key not in ("image", "split")}
    return make_corpus_features(labels | DETECTION_FEATURES)


def make_units(corpora: Mapping[str, Dataset], videos: Sequence[Path], root: Path, photos_per_file: int):
    """Divide the input into units, in the order of the corpus."""
    for split, corpus in corpora.items():
        for number, start in enumerate(range(0, len(corpus), photos_per_file)):
            yield Unit(number, split, start, min(start + photos_per_file, len(corpus)))
    first = -(-len(corpora.get("train", ())) // photos_per_file)
    for number, video in enumerate(videos, first):
        yield Unit(number, "train", video=video, name=video.relative_to(root).as_posix())


def draw_sheet(folder: Path, units: Sequence[Unit]) -> Image.Image:
    """Draw a contact sheet of photos with detected faces, taken evenly from all units."""
    paths = [path for unit in units for path in sorted(folder.glob(f"{unit.stem}-*.jpg"))]
    tiles = []
    for path in paths[:: max(1, -(-len(paths) // SHEET_SAMPLES))]:
        with Image.open(path) as tile:
            tiles.append(pil_to_tensor(ImageOps.pad(tile, (TILE_PX, TILE_PX), color="white")))
    return to_pil_image(make_grid(tiles, nrow=min(SHEET_COLUMNS, len(tiles)), padding=GAP_PX, pad_value=255))


def describe_report(output_dir: Path, report: Mapping) -> str:
    """Describe a report in a few lines."""
    rows = ", ".join(f"{split} {count:,}" for split, count in report["rows"]["data"].items())
    lines = [f"{output_dir}", f"  faces    {rows}"]
    lines.append(f"  photos   {report['photos']:,}, {report['photos_with_several_faces']:,} of them with several faces")
    if report["shots"]:
        lines.append(
            f"  videos   {report['people_in_videos']:,} people in {report['shots']:,} shots; "
            f"{report['thinned']:,} near-duplicate faces left out"
        )
    lines.append(f"  missed   {len(report['missed']):,}")
    lines += [f"           {entry['name']}: {entry['reason']}" for entry in report["missed"][:3]]
    return "\n".join([*lines, f"  details are in {output_dir / 'report.json'}"])
