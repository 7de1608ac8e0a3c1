"""What the processes of one launch do together: one decides for all, and all stop at the same step."""

import signal
import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

Decision = TypeVar("Decision")


def decide_for_all(accelerator: Accelerator, decide: Callable[[], Decision]) -> Decision:
    """Call a function in the main process, and give its result to every process, all of which must call this.

    Raises:
        ValueError: In every process, if the function raised one, or an OSError: processes that went on would wait for
            ever.
    """
    decision, refusal = None, None
    if accelerator.is_main_process:
        try:
            decision = decide()
        except (ValueError, OSError) as error:
            refusal = str(error)
    if accelerator.num_processes > 1:
        decision, refusal = broadcast_object_list([decision, refusal])
    if refusal is not None:
        raise ValueError(refusal)
    return decision


class StopRequest:
    """Notes SIGTERM and SIGINT while the block runs, in place of what they do otherwise. Every process must make one.

    A repeated signal changes nothing: `timeout` and launchers send theirs twice. SIGKILL ends a step that hangs.

    Attributes:
        number: Of the signal that some process got, by the last call of `is_made`; 0 if none did.
    """

    def __init__(self, accelerator: Accelerator):
        self.number = self._noted = 0
        # By gloo, between the CPUs: to read a flag on a GPU would wait for the whole step.
        self._group = torch.distributed.new_group(backend="gloo") if accelerator.num_processes > 1 else None

    def __enter__(self) -> "StopRequest":
        is_main_thread = threading.current_thread() is threading.main_thread()  # Python allows no other to do this.
        numbers = (signal.SIGINT, signal.SIGTERM) if is_main_thread else ()
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame):
        self._noted = number

    def is_made(self) -> bool:
        """Whether any process got a signal: the same answer in all, at the same step."""
        noted = torch.tensor(self._noted)
        if self._group is not None:
            torch.distributed.all_reduce(noted, torch.distributed.ReduceOp.MAX, self._group)
        self.number = int(noted)
        return self.number > 0
