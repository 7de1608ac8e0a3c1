"""Coordination of the processes of a run: decisions of the main process, and a stop at the same step."""

import signal
import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

Decision = TypeVar("Decision")


def decide_for_all(accelerator: Accelerator, decide: Callable[[], Decision]) -> Decision:
    """Call a function in the main process, and return its result in all processes. All processes must call this.

    Raises:
        ValueError: In all processes, if the function raises a ValueError or an OSError. If only the main process raised
            it, the others would wait forever.
    """
    decision, message = None, None
    if accelerator.is_main_process:
        try:
            decision = decide()
        except (ValueError, OSError) as error:
            message = str(error)
    if accelerator.num_processes > 1:
        decision, message = broadcast_object_list([decision, message])
    if message is not None:
        raise ValueError(message)
    return decision


class StopRequest:
    """Record SIGTERM and SIGINT while the block runs, instead of ending the process. All processes must create one.

    A second signal has no effect, because `timeout` and launchers send theirs twice. A step that hangs can be ended
    with SIGKILL.

    Attributes:
        number: Number of a signal that some process had received at the last call of `is_made`; 0 if none had.
    """

    def __init__(self, accelerator: Accelerator):
        self.number = self._received = 0
        # A gloo group, for tensors on the CPU: reading a flag on a GPU would wait for the whole step.
        self._group = torch.distributed.new_group(backend="gloo") if accelerator.num_processes > 1 else None

    def __enter__(self) -> "StopRequest":
        is_main_thread = threading.current_thread() is threading.main_thread()  # Only it may set signal handlers.
        numbers = (signal.SIGINT, signal.SIGTERM) if is_main_thread else ()
        self._previous_handlers = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame):
        self._received = number

    def is_made(self) -> bool:
        """Return whether any process has received a signal. All processes get the same answer."""
        received = torch.tensor(self._received)
        if self._group is not None:
            torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX, self._group)
        self.number = int(received)
        return self.number > 0
