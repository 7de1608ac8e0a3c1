import json
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_pcl.features_pcl import READABLE_FEATURES
from modeling_pcl.probes import feature_files
from modeling_pcl.probes.feature_cache import load_or_compute_features

KEY = {"model": "sha256:model", "corpus": "10 rows, sha256:corpus", "image_size": 64, "precision": "bf16"}
ROWS, DIMS = 10, {"trunk": 6, "face": 4, "pose": 5}


def features(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(ROWS, dim, generator=generator).to(dtype) for name, dim in DIMS.items()}


class Encoded:
    """Yields features in batches of 4, records the rows it starts from, and may fail at a row."""

    def __init__(self, fails_at: int | None = None, broken: dict | None = None, dtype=torch.bfloat16):
        self.starts, self.fails_at, self.broken, self.rows = [], fails_at, broken or {}, features(dtype)
        self.seen: dict[int, str] = {}

    def __call__(self, start: int):
        self.starts.append(start)
        for first in range(start, ROWS, 4):
            if self.fails_at is not None and first >= self.fails_at:
                raise OSError("No space left on device")
            self.seen |= {row: reason for row, reason in self.broken.items() if first <= row < first + 4}
            yield {name: rows[first : first + 4] for name, rows in self.rows.items()}


def table(cache: Path, encoded: Encoded, key: dict = KEY):
    return load_or_compute_features(cache, key, ROWS, encoded, encoded.seen)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache whose files have four rows."""
    monkeypatch.setattr(feature_files, "FILE_BYTES", 4 * 4 * sum(DIMS.values()))
    return tmp_path / "cache"


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)])
def test_what_comes_back_is_what_was_encoded(cache, precision, dtype):
    loaded = table(cache, Encoded(dtype=dtype), KEY | {"precision": precision}).features
    assert list(loaded) == list(READABLE_FEATURES)
    for name, rows in features(dtype).items():
        torch.testing.assert_close(loaded[name][:], rows, rtol=0, atol=0)
        assert loaded[name][:].dtype == dtype


def test_face_and_pose_together_are_made_of_the_two_and_not_kept(cache):
    loaded = table(cache, Encoded()).features
    together, expected = loaded["face+pose"], torch.cat([loaded["face"][:], loaded["pose"][:]], dim=1)
    assert together.shape == expected.shape
    assert len(together) == ROWS
    rows = torch.tensor([7, 0, 7])
    assert torch.equal(together[rows], expected[rows])
    assert torch.equal(together[2:5], expected[2:5])
    assert together[rows].dtype == torch.bfloat16


def test_a_second_probe_encodes_nothing(cache):
    table(cache, Encoded())
    again = Encoded()
    loaded = table(cache, again)
    assert again.starts == []
    assert torch.equal(loaded.features["face"][:], features()["face"])


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"corpus": "other"}, {"image_size": 100}, {"precision": "float32"}]
)
def test_another_model_corpus_size_or_precision_is_encoded_anew(cache, change):
    table(cache, Encoded())
    other = Encoded()
    table(cache, other, KEY | change)
    assert other.starts == [0]


def test_a_stopped_extraction_goes_on_where_it_was(cache):
    with pytest.raises(OSError, match="No space"):
        table(cache, Encoded(fails_at=8))
    second = Encoded()
    loaded = table(cache, second)
    assert second.starts == [8]
    for name, rows in features().items():
        assert torch.equal(loaded.features[name][:], rows)


def test_broken_rows_are_remembered_even_over_a_stop(cache):
    with pytest.raises(OSError, match="No space"):
        table(cache, Encoded(fails_at=4, broken={2: "row 2: cut short", 9: "row 9: no image"}))
    resumed = Encoded(broken={2: "row 2: cut short", 9: "row 9: no image"})
    assert table(cache, resumed).broken == {2: "row 2: cut short", 9: "row 9: no image"}
    assert table(cache, Encoded()).broken == {2: "row 2: cut short", 9: "row 9: no image"}


def flip_a_bit(path: Path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["features-00001.safetensors", "rows-00001.parquet", "hashes.json"])
@pytest.mark.parametrize(
    "damage",
    [lambda path: os.truncate(path, 0), lambda path: os.truncate(path, path.stat().st_size - 9), flip_a_bit],
    ids=["empty", "truncated", "flipped"],
)
def test_what_is_damaged_is_encoded_again_from_there_on(cache, file, damage, caplog):
    table(cache, Encoded(broken={5: "row 5: no image"}))
    (folder,) = cache.iterdir()
    damage(folder / file)
    again = Encoded(broken={5: "row 5: no image"})
    loaded = table(cache, again)
    assert again.starts == [0 if file == "hashes.json" else 4]
    assert loaded.broken == {5: "row 5: no image"}
    for name, rows in features().items():
        assert torch.equal(loaded.features[name][:], rows)
    assert "is damaged, or was not finished" in caplog.text
    third = Encoded()
    table(cache, third)
    assert third.starts == []


def test_the_files_open_as_safetensors_and_say_what_they_are(cache):
    table(cache, Encoded())
    (folder,) = cache.iterdir()
    shards = [load_file(folder / f"features-0000{number}.safetensors") for number in range(3)]
    assert torch.equal(torch.cat([shard["trunk"] for shard in shards]), features()["trunk"])
    assert json.loads((folder / "key.json").read_text()) == KEY
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("rows", [torch.tensor([9, 0, 4, 3, 9]), slice(2, 7), slice(None)])
def test_rows_of_several_files_are_taken_as_of_one(cache, rows):
    encoded = table(cache, Encoded()).features["pose"]
    assert encoded.shape == (ROWS, DIMS["pose"])
    assert torch.equal(encoded[rows], features()["pose"][rows])


def test_two_probes_at_once_encode_once(cache):
    inside, release = threading.Event(), threading.Event()

    class Slow(Encoded):
        def __call__(self, start: int):
            inside.set()
            release.wait(10)
            yield from super().__call__(start)

    first, second, loaded = Slow(), Encoded(), {}
    threads = [
        threading.Thread(target=lambda: loaded.update(first=table(cache, first))),
        threading.Thread(target=lambda: loaded.update(second=table(cache, second))),
    ]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    release.set()
    for thread in threads:
        thread.join(30)
    assert second.starts == []
    for name, rows in features().items():
        assert torch.equal(loaded["first"].features[name][:], rows)
        assert torch.equal(loaded["second"].features[name][:], rows)
