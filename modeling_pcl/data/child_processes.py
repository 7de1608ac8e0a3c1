"""Processes that this one starts, and that end with it however it ends."""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")

_PR_SET_PDEATHSIG = 1
# What a new Python does first, in 20 ms and before any import that takes seconds: as `end_with_parent`, which it does
# not import. The parent's number comes as an argument: who is killed before this has another one already.
_GUARD = f"""
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, 9)
    if os.getppid() != int(sys.argv.pop(1)):
        sys.exit(1)
else:
    del sys.argv[1]
"""


def python_command(code: str, *arguments: str, isolated: bool = False) -> list[str]:
    """The command of a new Python that is killed when the thread that starts it ends, however that is.

    Elsewhere than on Linux it must look after that itself.

    Args:
        code: What it runs; `sys.argv[1:]` are the arguments.
        arguments: Of the code.
        isolated: Run it without this folder and the user's settings, as `python -I`.
    """
    flags = ["-I"] if isolated else []
    return [sys.executable, *flags, "-c", _GUARD + code, str(os.getpid()), *arguments]


def end_with_parent(parent: int):
    """Let the kernel kill this process when the parent's thread that started it ends; elsewhere than on Linux, look.

    Args:
        parent: Its process number, to see that it has not ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def ignore_stops():
    """Let SIGINT and SIGTERM not end this process, but for a SIGTERM that its parent sends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # Elsewhere nothing tells who sent a signal.
        # Blocked, so that the thread gets it and not the handler; here, before there are threads that let it through.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_if_parent_asks, daemon=True).start()


def _end_if_parent_asks():
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def _watch(parent: int):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def available_cpus() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(work: Callable[[Item], Result], items: Sequence[Item], count: int) -> Iterator[Result]:
    """Do work in several processes, which share what they have imported: half a gigabyte of it each otherwise.

    The workers are forked by a server: a new Python, which has imported what `work` needs and nothing else has run in.
    Threads of torch and Arrow, which this process has, would not survive the fork. It is what `forkserver` of the
    standard library does, but that one outlives a killed parent for the seconds of its imports, with a folder in /tmp.

    Args:
        work: Picklable.
        items: Picklable.
        count: Processes.

    Yields:
        Results, in the order of the items.

    Raises:
        ChildProcessError: If a process died.
        Exception: What `work` raised.
    """
    command = python_command(f"from {__name__} import _serve; _serve()")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # In a session of its own: Ctrl-C is for this process, which ends the server.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command, env=environment, **pipes) as server:
        try:
            with server.stdin as requests:
                requests.write(pickle.dumps((work, list(items), count)))
            for _ in items:
                result, error = pickle.load(server.stdout)
                if error is not None:
                    raise error
                yield result
        except (EOFError, BrokenPipeError, pickle.UnpicklingError, BrokenProcessPool) as error:
            raise ChildProcessError(
                "a process died, perhaps for want of memory: a lower `num_proc` needs less. The same command goes on."
            ) from error
        finally:
            server.kill()  # And with it, its workers.


def _serve():
    """The server's part: results and errors as pickles on the standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What `work` prints must not come between.
    work, items, count = pickle.load(sys.stdin.buffer)
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(count, context, end_with_parent, (os.getpid(),)) as pool:
        for future in [pool.submit(work, item) for item in items]:
            error = future.exception()
            pickle.dump((None if error else future.result(), error), answers)
            answers.flush()
