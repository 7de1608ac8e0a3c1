import os
import signal
import subprocess
import sys

import pytest

from modeling_pcl.training.checkpoints import CheckpointFolder, read_state


def save(folder: CheckpointFolder, step: int):
    (folder.begin(step) / "weights.bin").write_bytes(bytes([step]))
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
    for trial in (0, 2, 4):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path / str(trial))], stdout=subprocess.PIPE, text=True
        ) as process:
            reported = [int(process.stdout.readline()) for _ in range(3 + trial)][-1]
            os.kill(process.pid, signal.SIGKILL)
        newest = CheckpointFolder(tmp_path / str(trial)).newest()
        step = read_state(newest)["step"]
        assert step >= reported
        for part in range(20):
            assert (newest / f"part-{part}").read_bytes() == step.to_bytes(4, "big") * 5000
