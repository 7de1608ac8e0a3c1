import os
import signal
import subprocess
import sys
import time

import pytest

from modeling_pcl.data.child_processes import map_in_processes, python_command


def number_of(item: int) -> tuple[int, int]:
    """Return the item and the process id, and print to the standard output, as real work may do."""
    print("working")
    if item == 3:
        raise FileNotFoundError("no 3")
    return item, os.getpid()


def test_results_come_in_order_from_other_processes_and_errors_as_they_were_raised():
    results = map_in_processes(number_of, range(6), 2)
    first = [next(results) for _ in range(3)]
    assert [item for item, _ in first] == [0, 1, 2]
    assert os.getpid() not in {process for _, process in first}
    with pytest.raises(FileNotFoundError, match="no 3"):
        next(results)


PARENT = """
import os, subprocess, sys, time
from modeling_pcl.data.child_processes import map_in_processes, python_command
sleeper = subprocess.Popen(python_command("import time; time.sleep(60)"))
print(sleeper.pid, flush=True)
for process in map_in_processes(eval, ["__import__('os').getpid()", "__import__('time').sleep(60)"], 2):
    print(process, flush=True)
"""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children look after their parent twice a second")
def test_no_child_outlives_a_killed_parent():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, "--without-models"], stdout=subprocess.PIPE, text=True
    ) as parent:
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 5
    while any(map(is_alive, children)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(is_alive, children))


def test_a_parent_that_is_gone_already_lets_no_child_begin():
    command = python_command("print('began')")
    command[command.index(str(os.getpid()))] = "1"
    assert subprocess.run(command, capture_output=True, text=True).stdout == ""
