"""What a model and its heads say of faces, for people to look at."""

from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image

from ..data.corpora import load_corpus
from ..data.images import decode_image
from ..data.subjects import select_subjects
from ..head_pose_pcl import ANGLES
from ..hub.models import model_kind, open_model
from ..modeling_pcl import PCLModel
from ..pictures.captions import LETTERS
from ..pictures.contact_sheet import Tile, draw_tiles
from ..pictures.faces import draw_face_rows
from ..pictures.style import one_line
from .features import extract_features

BATCH_SIZE = 64
NEIGHBOURS = 5
NEIGHBOUR_FEATURES = ("face", "pose")


def choose_faces(corpus: str, subjects: str | None, count: int) -> tuple[Dataset, list[int]]:
    """Open a corpus, or some people of it, and choose so many rows.

    Returns:
        The corpus, and rows at equal distances. The last is its last one, so that of subjects with ten images each not
        all show their first.

    Raises:
        ValueError: If it does not open, or lacks a subject.
    """
    rows = load_corpus(corpus)
    rows = rows if subjects is None else select_subjects(rows, subjects)
    return rows, torch.linspace(0, len(rows) - 1, min(count, len(rows))).long().tolist()


def decode_images(records: Sequence, side_px: int) -> torch.Tensor:
    """Images of a corpus, `(images, 3, side, side)` uint8.

    Raises:
        BrokenImageError: If one does not decode.
    """
    return torch.stack([decode_image(record, side_px, name=f"image {place}") for place, record in enumerate(records)])


def draw_answers(folder: Path, records: Sequence, names: Sequence[str]) -> Image.Image | None:
    """Draw faces with what each head says of them: classes, numbers, and the axes of the head.

    Args:
        folder: Of a model; its heads are in the folders below, as `pcl probe` leaves them.
        records: Images of a corpus, as `decode_image` takes them.
        names: What to write above each.

    Returns:
        None if there are no heads.

    Raises:
        ValueError: If a head or an image does not open.
    """
    words: list[list[str]] = [[] for _ in records]
    poses: list[list[float] | None] = [None] * len(records)
    paths = [path.parent for path in sorted(folder.glob("*/config.json")) if (path.parent / "results.json").exists()]
    for path in paths:
        model = open_model(str(path)).eval()
        kind = model_kind(model.config.to_dict())
        if kind in ("pretrained", "verification"):
            continue
        with torch.inference_mode():
            logits = model(decode_images(records, model.config.image_size).float() / 255).logits
        for place, row in enumerate(logits):
            if kind == "head_pose":
                poses[place] = row.tolist()
            words[place].append(_in_words(kind, row, model.config.id2label))
    if not any(words):
        return None
    tiles = [
        Tile([record], name, one_line(name, LETTERS), "\n".join(lines), pose)
        for record, name, lines, pose in zip(records, names, words, poses)
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
        corpus: At least two images.
        chosen: Rows of the faces.
        side_px: Of the images, in px.

    Raises:
        BrokenImageError: If an image does not decode.
    """
    images = decode_images(corpus["image"], side_px)
    features = extract_features(encoder, images.split(BATCH_SIZE))
    rows = {}
    for row in chosen:
        for feature in NEIGHBOUR_FEATURES:
            centred = features[feature].float() - features[feature].float().mean(dim=0)
            cosines = torch.nn.functional.cosine_similarity(centred, centred[row : row + 1])
            cosines[row] = torch.inf  # The face itself comes first.
            nearest = cosines.topk(min(NEIGHBOURS + 1, len(images))).indices
            rows[f"image {row}\nby {feature}"] = images[nearest].float() / 255
    return draw_face_rows(rows, title=f"The nearest of {len(images)} faces")
