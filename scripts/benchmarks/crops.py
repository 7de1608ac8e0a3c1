"""Face detection in scenes, and the effect of other crops on features.

Scenes are made from aligned portraits (CelebA's `img_align_celeba`, in which eyes, nose and mouth have fixed
positions), which are scaled, rotated and pasted into pictures without faces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn import functional as F
from tqdm import tqdm

from modeling_pcl import PCLModel
from modeling_pcl.crop_pcl import ALIGNMENTS, FaceCrop
from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.data.images import image_bytes
from modeling_pcl.data.label_columns import names
from modeling_pcl.detection_pcl import FaceDetector, Faces
from modeling_pcl.head_pose_pcl import ANGLES, turn_back
from modeling_pcl.image_processing_pcl import PCLImageProcessor
from modeling_pcl.images_pcl import open_bytes, to_rgb
from modeling_pcl.options import option
from modeling_pcl.probes.encoder import extract_features
from modeling_pcl.probes.quick_scores import measure_linear_accuracy, measure_verification_auc, predict_by_ridge

from . import report

# Positions of eyes, nose and corners of the mouth in aligned portraits, as fractions of width and height.
ALIGNED = np.array([[69.5, 111], [107.6, 111], [88, 136], [71.5, 152], [104.8, 152]]) / (178, 218)
TURNS_DEG, SCALES = (0, 15, 45), (0.9, 2.2)
SAME_POINTS = 0.5  # Largest mean error of a detected face's points, as a fraction of the distance of the eyes.
NOISE_PX, NOISE_SCALE = 2.0, 0.1
PHOTOS_AT_ONCE = 8


@dataclass
class CropBenchmark:
    """The portraits and photos, and the amount of work."""

    corpus: str = option("identities.parquet", "Aligned portraits of CelebA, with `identity` or `subject`.")
    head_pose: str = option("", "Photos with `yaw`, `pitch`, `roll` and `smile`, such as GENKI-4K; empty for none.")
    model: str = option("hub_cards/pcl-small-faces", "Encoder whose features are compared.")
    portraits: int = option(2400, "Number of portraits for the parts `crops` and `noise`.")
    scenes: int = option(150, "Number of scenes with one to three faces for each rotation in the part `detection`.")
    image_size: int = option(64, "Side in px at which crops are encoded.")
    longest_px: int = option(320, "Longer side in px at which photos are searched in the parts `crops` and `noise`.")
    margins: str = option("0,0.15,0.28,0.45,0.8", "Margins to compare, separated by commas.")
    parts: str = option("detection,crops,noise", "Parts to run, separated by commas.")
    output_dir: str = option("runs/benchmark-crops", "Folder for results.json.")


def load_backgrounds(size: tuple[int, int]) -> list[Image.Image]:
    return [Image.fromarray(image).resize(size) for image in load_sample_images().images]


def paste(scene: Image.Image, portrait: Image.Image, scale: float, angle_deg: float, place: np.ndarray) -> np.ndarray:
    """Paste a portrait around a position, and return its five points in the scene, `(5, 2)`."""
    size = np.array([round(portrait.width * scale), round(portrait.height * scale)])
    large = portrait.resize(tuple(size), Image.Resampling.BICUBIC).convert("RGBA")
    turned = large.rotate(angle_deg, Image.Resampling.BICUBIC, expand=True)
    corner = np.clip(place - np.array(turned.size) / 2, 0, np.maximum(0, np.array(scene.size) - turned.size)).astype(
        int
    )
    scene.paste(turned, tuple(corner.tolist()), turned)
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return (ALIGNED - 0.5) * size @ np.array([[cosine, -sine], [sine, cosine]]) + corner + np.array(turned.size) / 2


def detect(photos: Sequence[Image.Image], detector: FaceDetector) -> list[Faces]:
    firsts = tqdm(range(0, len(photos), PHOTOS_AT_ONCE), desc="Finding faces", leave=False)
    return [faces for first in firsts for faces in detector(photos[first : first + PHOTOS_AT_ONCE])]


class Setting:
    """Portraits, scenes with one portrait each, photos with head pose, and the faces that were detected in them."""

    def __init__(self, corpus: Dataset, options: CropBenchmark):
        column = "identity" if "identity" in corpus.column_names else "subject"
        corpus = corpus.select(range(min(options.portraits, len(corpus))))
        self.people = np.array(names(corpus, column))
        self.portraits = [open_photo(row) for row in corpus.with_format(None)["image"]]
        self.generator = np.random.default_rng(0)
        self.model = PCLModel.from_pretrained(options.model).eval()
        self.processor = PCLImageProcessor.for_image_size(options.image_size)
        print(f"{len(corpus)} portraits of {options.corpus}, {options.model}, on {report.describe_machine()}")

    def make_scenes(self, options: CropBenchmark):
        detector, pictures = FaceDetector(longest_px=options.longest_px), load_backgrounds((480, 360))
        self.scenes = []
        for portrait in self.portraits:
            scene = pictures[self.generator.integers(len(pictures))].copy()
            place = self.generator.uniform((120, 120), (360, 240))
            paste(scene, portrait, self.generator.uniform(*SCALES), self.generator.uniform(-25, 25), place)
            self.scenes.append(scene)
        self.detections = detect(self.scenes, detector)
        if options.head_pose:
            self.posed = load_corpus(options.head_pose)
            self.photos = [open_photo(row) for row in self.posed.with_format(None)["image"]]
            self.detections_in_photos = detect(self.photos, detector)

    def cut(self, photos: Sequence[Image.Image], detections: Sequence[Faces], crop: FaceCrop | None, moved=None):
        """Cut out the largest face of each photo; a photo without a face is used as a whole.

        Args:
            photos: Photos.
            detections: Detected faces of each photo.
            crop: Specification; None uses whole photos.
            moved: Function that changes box and points of a face; None leaves them.

        Returns:
            Pixels, `(photos, 3, side, side)`, and the angle of each square in degrees, `(photos,)`.
        """
        images, angles = [], []
        for photo, faces in zip(photos, detections):
            if crop is None or not len(faces):
                images.append(photo), angles.append(0.0)
                continue
            box, points = faces.boxes[0], faces.points[0]
            square = crop.square(*(moved(box, points) if moved else (box, points)))
            images.append(square.cut(photo, crop.padding)), angles.append(square.angle_deg)
        return self.processor(images, return_tensors="pt")["pixel_values"], np.array(angles)

    def encode(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        features = extract_features(self.model, pixels.mul(255).round().byte().split(128), precision="bf16")
        return {name: features[name].float() for name in ("trunk", "face")}


def open_photo(record: dict) -> Image.Image:
    with open_bytes(image_bytes(record)) as image:
        return to_rgb(image)


def measure_detection(setting: Setting, options: CropBenchmark) -> dict:
    """Measure the share of faces that are found, the error of their points, and photos per second."""
    rows = []
    for turn_deg in TURNS_DEG:
        scenes, truths = [], []
        for _ in range(options.scenes):
            size = setting.generator.integers((640, 480), (1600, 1200))
            pictures, count = load_backgrounds(tuple(size.tolist())), setting.generator.integers(1, 4)
            scene, truth = pictures[setting.generator.integers(len(pictures))], []
            for number in range(count):
                portrait = setting.portraits[setting.generator.integers(len(setting.portraits))]
                place = np.array([(number + 0.5) * size[0] / count, setting.generator.uniform(0.3, 0.7) * size[1]])
                scale = min(setting.generator.uniform(0.6, 3), 0.7 * size[0] / count / portrait.height)
                angle = setting.generator.choice([-1, 1]) * turn_deg
                truth.append(paste(scene, portrait, scale, angle, place))
            scenes.append(scene), truths.append(truth)
        for longest_px in (320, 640, 960):
            detector, start = FaceDetector(longest_px=longest_px), report.now()
            detections = detect(scenes, detector)
            seconds = report.now() - start
            errors, false = _compute_point_errors(detections, truths)
            rows.append(
                {
                    "turned, degrees": turn_deg,
                    "searched at, px": longest_px,
                    "faces": sum(map(len, truths)),
                    "found": len(errors) / sum(map(len, truths)),
                    "false": false,
                    "points, share of the eyes' distance": float(np.mean(errors)),
                    "photos a second": len(scenes) / seconds,
                }
            )
    return {"detection": ("Faces found in scenes of one to three", rows)}


def _compute_point_errors(detections: list[Faces], truths: list[list[np.ndarray]]) -> tuple[list[float], int]:
    errors, false = [], 0
    for faces, truth in zip(detections, truths):
        matched = set()
        for points in truth:
            eyes = np.linalg.norm(points[1] - points[0])
            distances = np.linalg.norm(faces.points - points, axis=2).mean(axis=1) / eyes
            if len(distances) and distances.min() < SAME_POINTS:
                errors.append(distances.min())
                matched.add(int(distances.argmin()))
        false += len(faces) - len(matched)
    return errors, false


def measure_crops(setting: Setting, options: CropBenchmark) -> dict:
    """Measure what is predicted from features of the same photos with different crops."""
    setting.make_scenes(options)
    margins = [float(margin) for margin in options.margins.split(",")]
    crops = [None, *(FaceCrop(align, margin) for align in ALIGNMENTS for margin in margins)]
    rows = []
    for crop in crops:
        pixels, _ = setting.cut(setting.scenes, setting.detections, crop)
        row = {"align": crop.align if crop else "whole photo", "margin": crop.margin if crop else ""}
        for name, features in setting.encode(pixels).items():
            row[f"AUC, {name}"] = measure_verification_auc(features, setting.people)
        rows.append(row | (_measure_head_pose(setting, crop) if options.head_pose else {}))
    return {"crops": ("What is read from the same photos", rows)}


def _measure_head_pose(setting: Setting, crop: FaceCrop | None) -> dict[str, float]:
    """Measure the errors of head pose in degrees and the accuracy of smiles.

    Labels are rotated with the squares, and predictions are rotated back.
    """
    pixels, angles = setting.cut(setting.photos, setting.detections_in_photos, crop)
    order = np.random.default_rng(5).permutation(len(pixels))
    train = round(0.8 * len(order))
    features = setting.encode(pixels)["trunk"][order]
    labels = setting.posed.select_columns([*ANGLES, "smile"])[:]
    poses, angles = np.stack([labels[angle] for angle in ANGLES], axis=1)[order], angles[order]
    turned = np.array([turn_back(*pose, -angle) for pose, angle in zip(poses, angles)], np.float32)
    predictions = predict_by_ridge(features[:train], torch.tensor(turned[:train]), features[train:]).tolist()
    predictions = np.array([turn_back(*pose, angle) for pose, angle in zip(predictions, angles[train:])])
    errors = np.abs(predictions - poses[train:]).mean(axis=0)
    smiles = np.array(labels["smile"])[order]
    accuracy = measure_linear_accuracy(features[:train], smiles[:train], features[train:], smiles[train:])
    return dict(zip((f"{angle} MAE" for angle in ANGLES), errors.tolist())) | {"smile": accuracy}


def measure_noise(setting: Setting, options: CropBenchmark) -> dict:
    """Measure how far features move with errors of points or scale, and between photos and between people."""
    if not hasattr(setting, "scenes"):
        setting.make_scenes(options)
    photos_by_person = [np.flatnonzero(setting.people == person)[:2] for person in np.unique(setting.people)]
    pairs = np.array(
        [rows for rows in photos_by_person if len(rows) == 2 and all(len(setting.detections[row]) for row in rows)]
    )

    def move_points(box, points):
        return box, points + setting.generator.normal(0, NOISE_PX, points.shape)

    def change_scale(box, points):
        factor = 1 + setting.generator.choice([-NOISE_SCALE, NOISE_SCALE])
        middle = np.tile((box[:2] + box[2:]) / 2, 2)
        return middle + factor * (box - middle), points.mean(axis=0) + factor * (points - points.mean(axis=0))

    def compute_features(rows, crop, moved=None):
        pixels, _ = setting.cut(
            [setting.scenes[row] for row in rows], [setting.detections[row] for row in rows], crop, moved
        )
        return setting.encode(pixels)

    rows = []
    for align in ALIGNMENTS:
        crop = FaceCrop(align)
        first, second = compute_features(pairs[:, 0], crop), compute_features(pairs[:, 1], crop)
        changes = {f"{NOISE_PX:g} px on the points": move_points, f"{NOISE_SCALE:.0%} of scale": change_scale}
        others = {name: compute_features(pairs[:, 0], crop, change) for name, change in changes.items()}
        others["other photo"] = second
        for name, original in first.items():
            centre = original.mean(dim=0)
            centred = original - centre
            row = {"align": align, "feature": name}
            for column, other in others.items():
                row[column] = F.cosine_similarity(centred, other[name] - centre).mean().item()
            row["other person"] = F.cosine_similarity(centred, centred.roll(1, 0)).mean().item()
            rows.append(row)
    return {"noise": ("Cosine of centred features with those of the right crop", rows)}


PARTS = {"detection": measure_detection, "crops": measure_crops, "noise": measure_noise}
run = partial(report.run, name="crops", kind=CropBenchmark, parts=PARTS, prepare=Setting)
