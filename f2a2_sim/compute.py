"""Where arithmetic is done: torch's device, threads and memory, as asked for on the command line."""

from __future__ import annotations

import ctypes
import sys

import torch

from f2a2_sim.errors import UsageError


def prepare_torch(device: str, threads: int | None) -> torch.device:
    """Set torch up for ``device`` (cpu or cuda) and that many threads; UsageError for what is not there."""
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: torch finds no CUDA device here. Use --device cpu, or install torch with CUDA"
        )
    if threads is not None:
        if threads < 1:
            raise UsageError(f"--threads {threads}: expected at least 1")
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    return torch.device(device)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next array of up to 32 MiB, instead of returning it.

    Learning frees and asks for the same few megabytes thousands of times, and the first write to a page that
    the system has just handed out costs far more than the arithmetic on it. Elsewhere than with glibc nothing
    is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
