"""Where arithmetic is done: torch's device and threads, as asked for on the command line."""

from __future__ import annotations

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
    return torch.device(device)
