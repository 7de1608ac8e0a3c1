from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest
import video_files
from PIL import ImageOps

from modeling_pcl.data import video
from modeling_pcl.data.video import BrokenVideoError, find_videos, read_frames, videos_revision

GREY_LEVELS = 12  # Tolerance for a lossy codec, on large areas of one colour.


def read_edge_colours(photo: PIL.Image.Image) -> dict[str, list[int]]:
    """Read the colours at the middle of each edge of a picture, resized to 32 x 32 px."""
    pixels = np.asarray(ImageOps.fit(photo, (32, 32)))
    places = {"top": (2, 16), "bottom": (29, 16), "left": (16, 2), "right": (16, 29)}
    return {name: pixels[row, column].tolist() for name, (row, column) in places.items()}


class TestReadFrames:
    @pytest.fixture(scope="class")
    @classmethod
    def file(cls, tmp_path_factory) -> Path:
        return video_files.write(tmp_path_factory.mktemp("video") / "a.mp4", frames=50, rate=25)

    def test_every_frame_comes_in_order_with_its_time(self, file):
        frames = list(read_frames(file, 0))
        assert [frame.number for frame in frames] == list(range(50))
        assert [frame.time_s for frame in frames] == pytest.approx([number / 25 for number in range(50)])
        for frame in frames:
            assert (frame.photo.mode, frame.photo.size) == ("RGB", (48, 48))
            assert abs(np.mean(frame.photo) - video_files.grey_level(frame.number)) < 3

    @pytest.mark.parametrize(
        ("every_s", "numbers"),
        [(0.04, range(50)), (0.08, range(0, 50, 2)), (0.5, [0, 13, 25, 38]), (1, [0, 25]), (60, [0])],
    )
    def test_the_first_frame_of_each_step_in_time_is_taken(self, every_s, numbers, file):
        assert [frame.number for frame in read_frames(file, every_s)] == list(numbers)

    def test_frames_up_to_a_number_are_passed_over_and_the_others_are_the_same(self, file):
        whole = {frame.number: frame for frame in read_frames(file, 0.12)}
        rest = list(read_frames(file, 0.12, after=9))
        assert [frame.number for frame in rest] == list(range(12, 50, 3))
        for frame in rest:
            assert frame.photo == whole[frame.number].photo

    # Positions of the edges of a picture after an anticlockwise rotation by these degrees.
    @pytest.mark.parametrize(
        ("degrees", "edges"),
        [
            (None, {"top": "top", "bottom": "bottom", "left": "left", "right": "right"}),
            (90, {"left": "top", "right": "bottom", "bottom": "left", "top": "right"}),
            (-90, {"right": "top", "left": "bottom", "top": "left", "bottom": "right"}),
            (180, {"bottom": "top", "top": "bottom", "right": "left", "left": "right"}),
        ],
    )
    def test_a_video_of_a_phone_held_upright_is_not_on_its_side(self, degrees, edges, tmp_path):
        file = video_files.write(tmp_path / "a.mp4", 2, edges=video_files.EDGES, rotation=degrees)
        actual = read_edge_colours(next(read_frames(file, 1)).photo)
        for place, edge in edges.items():
            np.testing.assert_allclose(actual[place], video_files.EDGES[edge], atol=2 * GREY_LEVELS)

    def test_pixels_that_are_wider_than_high_are_shown_so(self, tmp_path):
        narrow = video_files.write(tmp_path / "a.mkv", 2, size=(32, 64), edges=video_files.EDGES)
        wide = video_files.write(tmp_path / "b.mkv", 2, size=(32, 64), edges=video_files.EDGES, pixel=Fraction(2))
        # The central square of the narrow picture does not contain its top, but that of the corrected one does.
        assert read_edge_colours(next(read_frames(narrow, 1)).photo)["top"] != pytest.approx(
            video_files.EDGES["top"], abs=2 * GREY_LEVELS
        )
        actual = read_edge_colours(next(read_frames(wide, 1)).photo)
        assert actual["top"] == pytest.approx(video_files.EDGES["top"], abs=2 * GREY_LEVELS)

    @pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00" * 5000])
    def test_a_file_that_is_no_video_is_refused(self, content, tmp_path):
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(BrokenVideoError, match="Invalid data"):
            next(read_frames(tmp_path / "a.mp4", 1))

    def test_a_file_with_sound_alone_is_refused(self, tmp_path):
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.rate = 16000
            container.mux(stream.encode(silence) + stream.encode())
        with pytest.raises(BrokenVideoError, match="no video stream"):
            next(read_frames(tmp_path / "a.mp4", 1))

    def test_the_frames_around_a_damage_come_all_the_same_and_the_damage_is_told_at_the_end(self, file, tmp_path):
        damaged = video_files.damage(file, tmp_path / "damaged.mp4")
        actual = []
        with pytest.raises(BrokenVideoError, match="packets or frames cannot be decoded, the first:"):
            actual.extend(read_frames(damaged, 0))  # Keeps what came before the error.
        assert 25 < len(actual) < 50

    def test_without_the_package_the_error_says_how_to_get_it(self, file, monkeypatch):
        monkeypatch.setattr(video, "av", None)
        with pytest.raises(ImportError, match=r"pip install modeling_pcl\[video\]"):
            next(read_frames(file, 1))
        assert find_videos(file) == [file]


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        for name in ("b/2.MKV", "b/10.mp4", "a.webm", ".hidden/a.mp4", "b/._a.mp4", "notes.txt", "b/a.jpg"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name)
        return tmp_path

    def test_videos_are_found_at_any_depth_in_an_order_that_never_changes(self, folder):
        assert [file.relative_to(folder).as_posix() for file in find_videos(folder)] == [
            "a.webm",
            "b/10.mp4",
            "b/2.MKV",
        ]
        assert find_videos(folder / "a.webm") == [folder / "a.webm"]
        assert find_videos(folder / "notes.txt") == []
        assert find_videos(folder / "none.mp4") == []

    @pytest.mark.parametrize("change", ["a", "rename", "lengthen"])
    def test_another_revision_for_other_videos_and_the_same_in_another_place(self, change, folder, tmp_path_factory):
        before = videos_revision(find_videos(folder), folder)
        moved = folder.rename(tmp_path_factory.mktemp("moved") / "here")
        assert videos_revision(find_videos(moved), moved) == before
        assert before.startswith("3 videos, sha256:")
        if change == "rename":
            (moved / "a.webm").rename(moved / "c.webm")
        else:
            (moved / "a.webm").write_text("a.webn" if change == "a" else "a.webm ")
        assert videos_revision(find_videos(moved), moved) != before
