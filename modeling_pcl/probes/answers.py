"""Pictures of the predictions of a model's heads, and of nearest neighbours among faces."""

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
NEIGHBOURS, MOST_SEARCHED = 5, 2000  # So many images decode and encode within seconds.
NEIGHBOUR_FEATURES = ("face", "pose")
LEAST_PX = 32  # The side at which images are decoded only to see whether they decode.
NO_HEAD = {"problem_type": None, "verification_threshold": None}  # Values of keys that a config may leave out.


def choose_faces(corpus: str, subjects: str | None, count: int) -> tuple[Dataset, list[int]]:
    """Open a corpus, optionally only some of its subjects, and choose rows to draw.

    Args:
        corpus: Corpus as `load_corpus` opens it.
        subjects: Subjects to keep, as for `select_subjects`; None keeps all.
        count: Maximum number of rows.

    Returns:
        The corpus, and rows at equal distances whose images decode.

    Raises:
        ValueError: If the corpus cannot be opened, lacks a subject, or no image decodes.
    """
    faces = load_corpus(corpus)
    faces = faces if subjects is None else select_subjects(faces, subjects)
    rows = list(decode_rows(faces, spread_rows(len(faces), count), LEAST_PX))
    if not rows:
        raise ValueError(f"No image of {corpus} could be shown: it has {len(faces)} rows.")
    return faces, rows


def decode_rows(corpus: Dataset, rows: Iterable[int], side_px: int) -> dict[int, torch.Tensor]:
    """Decode the images of some rows, and log a warning for each image that does not decode.

    Returns:
        Images by row, each `(3, side_px, side_px)` uint8.
    """
    images, rows = {}, list(rows)
    for row, record in zip(rows, corpus.select(rows)["image"]):
        try:
            images[row] = decode_image(record, side_px, name=f"image {row}")
        except BrokenImageError as error:
            logger.warning("%s is left out: %s", f"image {row}", error.reason)
    return images


def draw_answers(folder: Path, corpus: Dataset, rows: Sequence[int]) -> Image.Image | None:
    """Draw faces with the predictions of each head: classes, numbers, and the axes of head pose.

    Args:
        folder: Folder of a model, with its heads in the folders below it, as `pcl probe` and `pcl push` write them.
        corpus: Corpus of faces.
        rows: Rows to draw. Their images must decode.

    Returns:
        The picture; None if there are no heads.

    Raises:
        ValueError: If a head cannot be opened.
    """
    lines: dict[int, list[str]] = {row: [] for row in rows}
    poses: dict[int, list[float]] = {}
    for path in sorted(folder.glob("*/config.json")):
        kind = model_kind(NO_HEAD | json.loads(path.read_text()))
        if kind in ("pretrained", "verification"):
            continue
        model = open_model(str(path.parent)).eval()
        images = decode_rows(corpus, rows, model.config.image_size)
        with torch.inference_mode():
            answers = model(torch.stack(list(images.values())).float() / 255).logits
        for row, logits in zip(images, answers):
            if kind == "head_pose":
                poses[row] = logits.tolist()
            lines[row].append(_format_answer(kind, logits, model.config.id2label))
    if not any(lines.values()):
        return None
    records = corpus.select(rows)["image"]
    tiles = [
        Tile([record], f"image {row}", f"image {row}", "\n".join(lines[row]), poses.get(row))
        for row, record in zip(rows, records)
    ]
    return draw_tiles("Predictions of the heads", tiles)


def _format_answer(kind: str, logits: torch.Tensor, labels: dict[int, str]) -> str:
    """Format the prediction of a head for one face, as one line."""
    if kind == "head_pose":
        return " ".join(f"{angle} {round(degrees):+d}" for angle, degrees in zip(ANGLES, logits.tolist()))
    if kind == "regression":
        return one_line(f"{labels[0]} {round(logits.item())}", LETTERS)
    if kind == "action_units":
        return one_line(", ".join(labels[unit] for unit in (logits > 0).nonzero()[:, 0].tolist()) or "none", LETTERS)
    shares = logits.softmax(dim=0)
    return one_line(f"{labels[int(shares.argmax())]} {shares.max():.0%}", LETTERS)


def draw_neighbours(encoder: PCLModel, corpus: Dataset, rows: Sequence[int], side_px: int) -> Image.Image:
    """Draw faces of a corpus, each with its nearest neighbours by the face feature and by the pose feature.

    Args:
        encoder: Encoder whose features are compared by cosine, after the mean of the corpus was subtracted.
        corpus: Corpus that is searched: at most 2,000 images at equal distances, without those that do not decode.
        rows: Rows of the faces to draw. Their images must decode.
        side_px: Side of the images, in px.
    """
    searched = decode_rows(corpus, sorted({*rows, *spread_rows(len(corpus), MOST_SEARCHED)}), side_px)
    index_of_row, images = {row: place for place, row in enumerate(searched)}, torch.stack(list(searched.values()))
    features = extract_features(encoder, images.split(BATCH_SIZE))
    pictures = {}
    for row in rows:
        for feature in NEIGHBOUR_FEATURES:
            centred = features[feature] - features[feature].mean(dim=0)
            cosines = F.cosine_similarity(centred, centred[index_of_row[row]][None])
            cosines[index_of_row[row]] = torch.inf  # The face itself comes first.
            nearest = cosines.topk(min(NEIGHBOURS + 1, len(images))).indices
            pictures[f"image {row}\nby {feature}"] = images[nearest].float() / 255
    return draw_face_rows(pictures, title=f"The nearest of {len(images)} faces")
