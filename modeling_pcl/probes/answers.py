"""What a model and its heads say of faces, for people to look at."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image
from torch.nn import functional as F

from ..data.corpora import load_corpus
from ..data.images import decode_image
from ..data.subjects import select_subjects
from ..head_pose_pcl import ANGLES
from ..hub.models import model_kind, open_model
from ..images_pcl import BrokenImageError
from ..modeling_pcl import PCLModel
from ..pictures.captions import LETTERS
from ..pictures.contact_sheet import Tile, draw_tiles
from ..pictures.faces import draw_face_rows
from ..pictures.style import one_line
from .encoder import extract_features
from .subset import spread_rows

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
NEIGHBOURS, MOST_SEARCHED = 5, 2000  # A picture of faces for people: what decodes and encodes in seconds is enough.
NEIGHBOUR_FEATURES = ("face", "pose")
LEAST_PX = 32  # Large enough to see whether an image decodes.
NO_HEAD = {"problem_type": None, "verification_threshold": None}  # What a config need not say.


def choose_faces(corpus: str, subjects: str | None, count: int) -> tuple[Dataset, list[int]]:
    """Open a corpus, or some people of it, and choose so many rows.

    Returns:
        The corpus, and rows at equal distances, without those that do not decode.

    Raises:
        ValueError: If it does not open, lacks a subject, or no image decodes.
    """
    faces = load_corpus(corpus)
    faces = faces if subjects is None else select_subjects(faces, subjects)
    chosen = list(decode_rows(faces, spread_rows(len(faces), count), LEAST_PX))
    if not chosen:
        raise ValueError(f"No image of {corpus} could be shown: it has {len(faces)} rows.")
    return faces, chosen


def decode_rows(corpus: Dataset, rows: Iterable[int], side_px: int) -> dict[int, torch.Tensor]:
    """Images by their rows, each `(3, side, side)` uint8; a warning names each that does not decode."""
    images, rows = {}, list(rows)
    for row, record in zip(rows, corpus.select(rows)["image"]):
        try:
            images[row] = decode_image(record, side_px, name=f"image {row}")
        except BrokenImageError as error:
            logger.warning("%s is left out: %s", f"image {row}", error.reason)
    return images


def draw_answers(folder: Path, corpus: Dataset, chosen: Sequence[int]) -> Image.Image | None:
    """Draw faces with what each head says of them: classes, numbers, and the axes of the head.

    Args:
        folder: Of a model; its heads are in the folders below, as `pcl probe` leaves them and `pcl push` publishes
            them.
        corpus: Of faces.
        chosen: Its rows that are drawn, which decode.

    Returns:
        None if there are no heads.

    Raises:
        ValueError: If a head does not open.
    """
    words: dict[int, list[str]] = {row: [] for row in chosen}
    poses: dict[int, list[float]] = {}
    for path in sorted(folder.glob("*/config.json")):
        kind = model_kind(NO_HEAD | json.loads(path.read_text()))
        if kind in ("pretrained", "verification"):
            continue
        model = open_model(str(path.parent)).eval()
        images = decode_rows(corpus, chosen, model.config.image_size)
        with torch.inference_mode():
            answers = model(torch.stack(list(images.values())).float() / 255).logits
        for row, logits in zip(images, answers):
            if kind == "head_pose":
                poses[row] = logits.tolist()
            words[row].append(_in_words(kind, logits, model.config.id2label))
    if not any(words.values()):
        return None
    records = corpus.select(chosen)["image"]
    tiles = [
        Tile([record], f"image {row}", f"image {row}", "\n".join(words[row]), poses.get(row))
        for row, record in zip(chosen, records)
    ]
    return draw_tiles("What its heads say of faces", tiles)


def _in_words(kind: str, logits: torch.Tensor, labels: dict[int, str]) -> str:
    """The answer of a head for one face, in one line."""
    if kind == "head_pose":
        return " ".join(f"{angle} {round(degrees):+d}" for angle, degrees in zip(ANGLES, logits.tolist()))
    if kind == "regression":
        return one_line(f"{labels[0]} {logits.item():.0f}", LETTERS)
    if kind == "action_units":
        return one_line(", ".join(labels[unit] for unit in (logits > 0).nonzero()[:, 0].tolist()) or "none", LETTERS)
    shares = logits.softmax(dim=0)
    return one_line(f"{labels[int(shares.argmax())]} {shares.max():.0%}", LETTERS)


def draw_neighbours(encoder: PCLModel, corpus: Dataset, chosen: Sequence[int], side_px: int) -> Image.Image:
    """Draw some faces of a corpus with the nearest others of it, by the face feature and by the pose feature.

    Args:
        encoder: Its features are compared by their cosines, the corpus's mean taken off.
        corpus: Of a large one 2,000 images at equal distances are searched; those that do not decode are left out.
        chosen: Rows of the faces, which decode.
        side_px: Of the images, in px.
    """
    searched = decode_rows(corpus, sorted({*chosen, *spread_rows(len(corpus), MOST_SEARCHED)}), side_px)
    places, images = {row: place for place, row in enumerate(searched)}, torch.stack(list(searched.values()))
    features = extract_features(encoder, images.split(BATCH_SIZE))
    rows = {}
    for row in chosen:
        for feature in NEIGHBOUR_FEATURES:
            centred = features[feature] - features[feature].mean(dim=0)
            cosines = F.cosine_similarity(centred, centred[places[row]][None])
            cosines[places[row]] = torch.inf  # The face itself comes first.
            nearest = cosines.topk(min(NEIGHBOURS + 1, len(images))).indices
            rows[f"image {row}\nby {feature}"] = images[nearest].float() / 255
    return draw_face_rows(rows, title=f"The nearest of {len(images)} faces")
