"""Where computing in bfloat16 pays."""

import torch


def has_fast_bfloat16(device_type: str) -> bool:
    """Return whether a kind of device has instructions for bfloat16.

    Without them bfloat16 is emulated. On an x86 processor with AVX2 only, encoding takes six to eight times as long in
    bfloat16 as in float32; with AVX-512 and AMX instructions for bfloat16, less than half as long.

    Args:
        device_type: `cpu`, `cuda` or another of torch's kinds.
    """
    if device_type == "cpu":
        return any(is_there is True for name, is_there in torch.cpu.get_capabilities().items() if "bf16" in name)
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def choose_precision() -> str:
    """Return the precision of autocast in which this machine trains fastest: `bf16` or `no`."""
    device = torch.accelerator.current_accelerator(check_available=True)
    return "bf16" if has_fast_bfloat16(device.type if device else "cpu") else "no"
