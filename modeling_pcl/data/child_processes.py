"""Child processes that end when their parent ends, even if it is killed."""

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
# A new Python runs this code first, in 20 ms, before imports that take seconds. It does what `end_with_parent` does,
# without importing this package, and keeps the collection at exit from looking at all that was imported. The parent's
# process id is an argument, because `os.getppid()` already returns another id if the parent was killed before this code
# runs.
_GUARD = f"""
import atexit, ctypes, gc, os, sys
atexit.register(gc.freeze)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, 9)
    if os.getppid() != int(sys.argv.pop(1)):
        sys.exit(1)
else:
    del sys.argv[1]
"""


def python_command(code: str, *arguments: str, isolated: bool = False) -> list[str]:
    """Build the command of a Python process that the kernel kills when the thread that started it ends.

    On other systems than Linux nothing kills it: the code must call `end_with_parent`.

    Args:
        code: Code to run; `sys.argv[1:]` are the `arguments`.
        arguments: Arguments of the code.
        isolated: Run it as `python -I`, without the current folder and the user's settings.

    Returns:
        The words of the command, for `subprocess`.
    """
    flags = ["-I"] if isolated else []
    return [sys.executable, *flags, "-c", _GUARD + code, str(os.getpid()), *arguments]


def end_with_parent(parent: int):
    """End this process when its parent ends.

    On Linux the kernel kills this process when the thread that started it ends. On other systems a thread of this
    process checks twice a second whether the parent still runs.

    Args:
        parent: Process id of the parent. This process ends at once if the parent has ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def ignore_stop_signals():
    """Ignore SIGINT, and every SIGTERM that the parent of this process did not send.

    On other systems than Linux only SIGINT is ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # Other systems do not tell which process sent a signal.
        # SIGTERM is blocked, so that the thread below receives it and no handler does. This must happen before other
        # threads start: they inherit the block.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_on_signal_of_parent, daemon=True).start()


def _end_on_signal_of_parent():
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def _watch_parent(parent: int):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def available_cpus() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(work: Callable[[Item], Result], items: Sequence[Item], count: int) -> Iterator[Result]:
    """Apply a function to items in several processes that share the memory of imported modules.

    A server process imports what `work` needs and forks the workers. Without sharing, every worker would need half a
    gigabyte for its imports. This process cannot fork the workers itself, because the threads of torch and Arrow do not
    survive a fork. `forkserver` of the standard library works the same way, but if its parent is killed, it keeps
    running until its imports end, and leaves a folder in /tmp.

    Args:
        work: Function to apply; picklable.
        items: Arguments of `work`; picklable.
        count: Number of worker processes.

    Yields:
        The results, in the order of the items.

    Raises:
        ChildProcessError: If a process died.
        Exception: Any error that `work` raised.
    """
    command = python_command(f"from {__name__} import _serve; _serve()", "--without-models")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # The server gets its own session, so that Ctrl-C reaches only this process, which then ends the server.
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
                "a process died, perhaps because memory ran out: lower `num_proc`. The same command continues."
            ) from error
        finally:
            server.kill()  # The workers end with the server.


def _serve():
    """Run the workers, and write results and errors as pickles to the standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Output that `work` prints must not mix with the pickles.
    work, items, count = pickle.load(sys.stdin.buffer)
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(count, context, end_with_parent, (os.getpid(),)) as pool:
        for future in [pool.submit(work, item) for item in items]:
            error = future.exception()
            pickle.dump((None if error else future.result(), error), answers)
            answers.flush()
