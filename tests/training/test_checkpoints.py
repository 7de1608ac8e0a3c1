import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modeling_pcl.training.checkpoints import CheckpointFolder, find_damage, read_state


def save(folder: CheckpointFolder, step: int):
    (folder.begin(step) / "model").mkdir(exist_ok=True)
    (folder.begin(step) / "model" / "weights.bin").write_bytes(bytes([step]) * 1000)
    (folder.begin(step) / "optimizer.pt").write_bytes(bytes([step]) * 100)
    return folder.finish(step, {"step": step})


def test_a_new_folder_has_no_newest_checkpoint(tmp_path):
    assert CheckpointFolder(tmp_path / "none").newest() is None


def test_newest_is_the_one_with_the_most_steps_by_its_state_and_not_by_its_name(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=3)
    for step in (5, 200):
        save(folder, step)
    folder.newest().rename(tmp_path / "a-copy")
    assert read_state(folder.newest())["step"] == 200


def test_a_checkpoint_that_was_not_finished_does_not_count(tmp_path):
    folder = CheckpointFolder(tmp_path)
    save(folder, 1)
    (folder.begin(2) / "state.json").write_text('{"step": 2}')
    assert read_state(folder.newest())["step"] == 1
    folder.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_are_kept(tmp_path, keep):
    folder = CheckpointFolder(tmp_path, keep=keep)
    for step in (1, 2, 3):
        save(folder, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-0000000{step}" for step in range(4 - keep, 4)]


def test_saving_a_step_again_replaces_it(tmp_path):
    folder = CheckpointFolder(tmp_path)
    save(folder, 7)
    (folder.begin(7) / "weights.bin").write_bytes(b"new")
    assert (folder.finish(7, {"step": 7}) / "weights.bin").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]


def flip_a_bit(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip_a_bit,
    "missing": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "no JSON": lambda path: path.write_text("{"),
    "a list": lambda path: path.write_text("[1]"),
}


@pytest.mark.parametrize("file", ["model/weights.bin", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_older_one_taken(tmp_path, caplog, file, damage: Callable):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        save(folder, step)
    damage(tmp_path / "step-00000002" / file)
    assert folder.newest() == tmp_path / "step-00000001"
    (record,) = caplog.records
    assert "step-00000002 is damaged" in record.getMessage()
    assert file in record.getMessage()
    save(folder, 1)  # As the run that goes on from there: what is newer is not removed before there is a whole one.
    assert (tmp_path / "step-00000002").exists()
    save(folder, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]
    assert "step-00000002 is damaged" in caplog.text


def test_a_flipped_bit_anywhere_in_the_state_is_seen(tmp_path):
    path = save(CheckpointFolder(tmp_path), 1) / "state.json"
    content = path.read_bytes()
    unseen = []
    for bit in range(0, 8 * len(content), 13):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        if find_damage(path.parent) is None:
            unseen.append(bit)
    assert unseen == []


def test_where_every_checkpoint_is_damaged_one_error_names_them(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for path in [save(folder, step) for step in (1, 2)]:
        flip_a_bit(path / "optimizer.pt")
    message = r"Every checkpoint .* is damaged \(step-00000002: optimizer.pt does not have its hash; step-00000001: "
    with pytest.raises(ValueError, match=message):
        folder.newest()


def test_a_damaged_checkpoint_does_not_count_among_those_kept(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (1, 2):
        save(folder, step)
    flip_a_bit(tmp_path / "step-00000002" / "optimizer.pt")
    save(folder, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_a_checkpoint_from_before_there_were_hashes_opens(tmp_path):
    path = save(CheckpointFolder(tmp_path), 1)
    (path / "state.json").write_text(json.dumps({"step": 1}))
    assert CheckpointFolder(tmp_path).newest() == path
    shutil.rmtree(path / "model")
    assert CheckpointFolder(tmp_path).newest() == path


KILLED_WHILE_SAVING = """
import itertools, sys
from modeling_pcl.training.checkpoints import CheckpointFolder
folder = CheckpointFolder(sys.argv[1], keep=1)
for step in itertools.count(1):
    for part in range(20):
        (folder.begin(step) / f"part-{part}").write_bytes(step.to_bytes(4, "big") * 5000)
    folder.finish(step, {"step": step})
    print(step, flush=True)
"""


def test_a_kill_at_any_instant_leaves_a_complete_newest_checkpoint(tmp_path):
    command = [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path), "--without-models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reported = [int(process.stdout.readline()) for _ in range(5)][-1]
        os.kill(process.pid, signal.SIGKILL)
    newest = CheckpointFolder(tmp_path).newest()
    step = read_state(newest)["step"]
    assert step >= reported
    for part in range(20):
        assert (newest / f"part-{part}").read_bytes() == step.to_bytes(4, "big") * 5000
