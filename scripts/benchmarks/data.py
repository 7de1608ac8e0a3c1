"""Speed of decoding and views, the time that training waits for them, and the memory of a stream."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import psutil
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from tqdm import tqdm

from modeling_pcl.data.corpora import load_corpus
from modeling_pcl.data.images import decode_image, image_bytes
from modeling_pcl.data.loading import make_loader
from modeling_pcl.data.views import ViewMaker, ViewSettings
from modeling_pcl.options import option

from . import report
from .baselines import per_image_views
from .iterations import IterationOptions, TimedIteration, build_flags, compute_part_medians, limit_batch

LARGE_PX = 1024
DECODED = 300


@dataclass
class DataBenchmark(IterationOptions):
    """The data, and the amount of work."""

    parts: str = option("decoding,views,iteration,memory", "Parts to run, separated by commas.")
    batches: int = option(8, "Batches of views in one timing.")
    pairs: int = option(5, "Pairs of timings, of which medians are reported.")
    iterations: int = option(3, "Training iterations to time, after one that is not counted.")
    streamed_images: int = option(100_000, "Images to stream in the part `memory`.")
    output_dir: str = option("runs/benchmark-data", "Folder for results.json.")


# Decoding: one image at a time, one thread.


def measure_decoding(corpus: Dataset, options: DataBenchmark) -> dict:
    records = [corpus[row]["image"] for row in np.linspace(0, len(corpus) - 1, DECODED).astype(int).tolist()]
    sources = {"as stored": records, f"JPEG, {LARGE_PX} px": [enlarge(record) for record in records[: DECODED // 10]]}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    for source, images in sources.items():
        row = {"images": source}
        for name, decode in DECODERS.items():
            work = partial(decode_all, decode, images, 2 * options.image_size)
            row[f"{name}, images/s"] = len(images) / min(report.measure_seconds(work) for _ in range(options.pairs))
        rows.append(row)
    torch.set_num_threads(threads)
    return {"decoding": ("Decoding one image to a square, one thread", rows)}


def decode_all(decode: Callable, images: list[dict], size_px: int):
    for image in images:
        decode(image, size_px)


def enlarge(record: dict) -> dict:
    image = open_rgb(record)
    scale = LARGE_PX / min(image.size)
    file = io.BytesIO()
    image.resize((round(image.width * scale), round(image.height * scale))).save(file, "JPEG", quality=90)
    return {"bytes": file.getvalue(), "path": None}


def open_rgb(record: dict) -> Image.Image:
    return Image.open(io.BytesIO(image_bytes(record))).convert("RGB")


def crop_square(image: Image.Image, size_px: int) -> torch.Tensor:
    scale = size_px / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - size_px) // 2, (image.height - size_px) // 2
    pixels = np.array(image.crop((left, top, left + size_px, top + size_px)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decode_by_torchvision(record: dict, size_px: int) -> torch.Tensor:
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2 import functional as F

    try:
        content = torch.frombuffer(bytearray(image_bytes(record)), dtype=torch.uint8)
        pixels = decode_image(content, ImageReadMode.RGB)
    except RuntimeError:  # torchvision does not support the format.
        return crop_square(open_rgb(record), size_px)
    return F.center_crop(F.resize(pixels, [size_px], antialias=True), [size_px, size_px])


DECODERS = {
    "ours": decode_image,
    "PIL": lambda record, size_px: crop_square(open_rgb(record), size_px),
    "torchvision.io": decode_by_torchvision,
    "datasets": lambda record, size_px: crop_square(ImageFeature().decode_example(record).convert("RGB"), size_px),
}


# Views: from the corpus to ready batches, both ways on all CPUs.


def measure_views(corpus: Dataset, options: DataBenchmark) -> dict:
    """Measure images per second. Each timing starts new workers, so that none works while another is timed."""
    rows = []
    views = {"disentangling": 3, "face_contrast": 2, "pose_contrast": 2 + options.pose_negatives_per_image}
    for objective, count in views.items():
        images = options.pose_images if objective == "pose_contrast" else options.batch_size
        functions = make_our_views, make_views_per_image
        work = [partial(function, corpus, objective, images, options) for function in functions]
        timed = report.time_pairs(*work, options.pairs)
        total = images * options.batches
        row = {"objective": objective, "images": images, "views of each": count}
        row |= {"ours, images/s": total / timed.ours_s, "per image, images/s": total / timed.baseline_s}
        rows.append(row | timed.columns())
    return {"views": ("From the corpus to a ready batch of views", rows)}


def make_our_views(corpus: Dataset, objective: str, images: int, options: DataBenchmark):
    settings = ViewSettings(pose_images=options.pose_images, pose_negatives_per_image=options.pose_negatives_per_image)
    make_views = getattr(ViewMaker(settings, options.image_size, seed=0), objective)
    loader = make_loader(corpus, 2 * options.image_size, images, subjects="off", num_workers=1)
    for step, batch in enumerate(islice(loader, options.batches)):
        make_views(batch.images, step)


def make_views_per_image(corpus: Dataset, objective: str, images: int, options: DataBenchmark):
    negatives = options.pose_negatives_per_image
    dataset = per_image_views.PerImageViews(corpus, objective, options.image_size, negatives)
    for _ in islice(per_image_views.batches(dataset, images, report.available_cpus()), options.batches):
        pass


# A training iteration: what of it waits for images and views.


def measure_iteration(corpus: Dataset, options: DataBenchmark) -> dict:
    """Measure how long an iteration of `pcl pretrain` waits for images and views."""
    iteration = TimedIteration(build_flags(options))
    for _ in tqdm(range(options.iterations + 1), desc="Iterations", leave=False):
        iteration()
    medians = compute_part_medians(iteration.spent)
    views = sum(medians[f"{objective} views"] for objective in iteration.run.objectives)
    row = {
        "width": options.width,
        "iteration, s": medians["total"],
        "waits for images, s": medians["waits for images"],
        "makes views, s": views,
        "share of both, %": 100 * (medians["waits for images"] + views) / medians["total"],
    }
    return {"iteration": ("An iteration of pretrain.py", [row])}


# Memory over a long stream.


def measure_memory(corpus: Dataset, options: DataBenchmark) -> dict:
    """Measure the unshared memory of this process and its worker after every tenth of the stream."""
    stream = load_corpus(options.corpus, streaming=True)
    loader = make_loader(stream, 2 * options.image_size, options.batch_size, num_workers=1)
    rows, images = [], 0
    with tqdm(total=options.streamed_images, unit="image", desc="Streaming", leave=False) as bar:
        for batch in loader:
            bar.update(len(batch.images))
            images += len(batch.images)
            if images * 10 >= (len(rows) + 1) * options.streamed_images:
                rows.append({"images": images, "memory, MB": measure_memory_mb()})
            if images >= options.streamed_images:
                break
    return {"memory": ("Memory of a stream and its worker", rows)}


def measure_memory_mb() -> float:
    """Measure the unshared memory of all processes, which does not count shared pages several times."""
    process = psutil.Process()
    members = [process, *process.children(recursive=True)]
    return sum(member.memory_full_info().uss for member in members) / report.MIB


run = partial(
    report.run,
    name="data",
    kind=DataBenchmark,
    parts={
        "decoding": measure_decoding,
        "views": measure_views,
        "iteration": measure_iteration,
        "memory": measure_memory,
    },
    prepare=limit_batch,
)
