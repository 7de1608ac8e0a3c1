import os
import signal
from collections.abc import Iterator

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from modeling_pcl.training.processes import StopRequest, decide_for_all


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_ends_nothing_even_twice(accelerator, number):
    before = signal.getsignal(number)
    with StopRequest(accelerator) as stop:
        assert not stop.is_made()
        for _ in range(2):
            os.kill(os.getpid(), number)
        assert stop.is_made()
        assert stop.number == number
    assert signal.getsignal(number) == before


def test_what_the_main_process_decides_or_refuses_holds_for_all(accelerator):
    def refuse():
        raise PermissionError("not yours")

    assert decide_for_all(accelerator, lambda: 7) == 7
    with pytest.raises(ValueError, match="not yours"):
        decide_for_all(accelerator, refuse)
