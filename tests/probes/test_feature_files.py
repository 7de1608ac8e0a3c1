from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Features, Value, load_dataset
from safetensors.torch import load_file

from modeling_pcl.probes import feature_files
from modeling_pcl.probes.feature_files import FeatureFiles

COLUMNS = Features({"row": Value("int64"), "label": ClassLabel(names=["calm", "glad"])})
FORMATS = ["parquet", "safetensors"]


def rows(count: int, first: int = 0) -> list[dict]:
    return [{"row": row, "label": row % 2, "not a column": 0} for row in range(first, first + count)]


def features(count: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    return {
        name: torch.randn(count, dim, generator=generator).to(dtype) for name, dim in {"face": 6, "pose": 4}.items()
    }


@pytest.fixture(params=FORMATS)
def files(request, tmp_path) -> FeatureFiles:
    return FeatureFiles(tmp_path / "features", request.param, COLUMNS)


def test_parquet_has_the_rows_columns_beside_their_features_over_all_shards(tmp_path):
    files = FeatureFiles(tmp_path, "parquet", COLUMNS)
    files.write(0, rows(5), features(5), {})
    files.write(1, rows(3, first=7), features(3), {})
    loaded = load_dataset("parquet", data_files=str(tmp_path / "features-*.parquet"), split="train")
    assert loaded.features["label"].names == ["calm", "glad"]
    table = loaded.with_format("torch")[:]
    assert table["row"].tolist() == [0, 1, 2, 3, 4, 7, 8, 9]
    assert table["label"].tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    for name in ("face", "pose"):
        assert torch.equal(table[name], torch.cat([features(5)[name], features(3)[name]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_safetensors_keep_the_dtype_and_have_their_rows_beside_them(dtype, tmp_path):
    files = FeatureFiles(tmp_path, "safetensors", COLUMNS)
    files.write(0, rows(5), features(5, dtype), {})
    loaded = load_file(tmp_path / "features-00000.safetensors")
    assert list(loaded) == ["face", "pose"]
    for name, tensor in loaded.items():
        assert torch.equal(tensor, features(5, dtype)[name])
    row_columns = pq.read_table(tmp_path / "rows-00000.parquet")
    assert row_columns.column_names == ["row", "label"]
    assert row_columns["row"].to_pylist() == [0, 1, 2, 3, 4]


def test_half_precision_takes_half_the_disk_in_parquet_too(tmp_path):
    sizes = []
    for dtype in (torch.float32, torch.bfloat16):
        files = FeatureFiles(tmp_path / str(dtype), "parquet", COLUMNS)
        wide = {"face": torch.randn(100, 2000, generator=torch.Generator().manual_seed(0)).to(dtype)}
        files.write(0, rows(100), wide, {})
        sizes.append(files.shard_path(0).stat().st_size)
    assert sizes[0] > 100 * 2000 * 4 * 0.8
    assert sizes[1] < 0.5 * sizes[0]


def test_what_is_noted_and_the_last_row_are_found_again(files):
    for number, count in enumerate((5, 2, 0)):
        files.write(number, rows(count, first=10 * number), features(count), {"end": number, "broken": [{"row": "ä"}]})
    assert files.count_shards() == 3
    assert files.count_rows() == 7
    assert [files.read_notes(number)["end"] for number in range(3)] == [0, 1, 2]
    assert files.read_notes(2)["broken"] == [{"row": "ä"}]
    assert [files.read_last_row(number) for number in range(3)] == [
        {"row": 4, "label": 0},
        {"row": 11, "label": 1},
        None,
    ]


def test_what_stands_behind_a_gap_or_lacks_its_rows_does_not_count(files):
    assert files.count_shards() == 0
    for number in range(3):
        files.write(number, rows(2), features(2), {})
    files.shard_path(1).unlink()
    assert (files.count_shards(), files.count_rows()) == (1, 2)
    files._rows_path(0).unlink()
    assert files.count_shards() == 0


def test_a_full_disk_leaves_no_half_a_shard(files, monkeypatch):
    def full(path: Path, content: bytes):
        with open(path, "wb") as opened:
            opened.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(feature_files.pq, "write_table", lambda table, path, **options: full(path, b"PAR1" * 100))
    with pytest.raises(OSError, match="No space left"):
        files.write(0, rows(5), features(5), {})
    assert files.count_shards() == 0
    assert list(files.folder.iterdir()) == []
