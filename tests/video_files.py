"""Videos whose frames can be told apart."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

EDGES = {"top": (220, 30, 30), "bottom": (30, 30, 220), "left": (30, 200, 30), "right": (220, 220, 30)}


def grey_level(number: int) -> int:
    """Of all pixels of a frame."""
    return 20 + 4 * (number % 50)


def write(
    path: Path,
    frames: int,
    rate: int = 25,
    size: tuple[int, int] = (48, 48),
    edges: dict | None = None,
    rotation: int | None = None,
    pixel: Fraction | None = None,
) -> Path:
    """Write a video, each frame of one grey or with coloured edges.

    Args:
        path: The file; its suffix is the format.
        frames: How many.
        rate: Frames a second.
        size: Width and height in px.
        edges: Colours at top, bottom, left and right.
        rotation: Degrees anticlockwise by which the file says that its frames are to be turned.
        pixel: Width of a pixel, divided by its height.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.codec_context.gop_size = "yuv420p", 10
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), grey_level(number), np.uint8)
            if edges is not None:
                _paint(pixels, edges)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def _paint(pixels: np.ndarray, edges: dict):
    """A quarter of each side in the colour of its edge."""
    height, width = pixels.shape[0] // 4, pixels.shape[1] // 4
    pixels[:, :width], pixels[:, -width:] = edges["left"], edges["right"]
    pixels[:height], pixels[-height:] = edges["top"], edges["bottom"]


def damage(path: Path, target: Path) -> Path:
    """Copy a video with the compressed frames of a part of it overwritten."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for position, size in packets[30:34]:
        content[position : position + size] = bytes([255]) * size
    target.write_bytes(content)
    return target
