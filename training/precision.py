"""Which arithmetic to train in, and by how many threads."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import torch
import transformers

Precision = Literal["fp32", "bf16", "fp16"]
_log = logging.getLogger(__name__)
_BF16_WORTH_IT: Final = 1.15


def choose_precision(wanted: Literal["auto"] | Precision, model: transformers.PreTrainedModel) -> Precision:
    """The arithmetic to train in. `auto`: bf16 or fp16 on a GPU; on a CPU whichever of fp32 and bf16 is faster here."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if torch.accelerator.is_available() or not cpu_has_bf16():
        return "fp32"
    plain, reduced = (_seconds_per_step(model, bf16=bf16) for bf16 in (False, True))
    _log.info("one training step: fp32 %.3f s, bf16 %.3f s", plain, reduced)
    return "bf16" if reduced * _BF16_WORTH_IT < plain else "fp32"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with so many threads, 0 for as many as now: what sums come to depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively. Emulated bf16 is slower than fp32."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def _seconds_per_step(model: transformers.PreTrainedModel, *, bf16: bool) -> float:
    """The faster of two forward and backward passes, after one to warm up; no weight changes."""
    tokens = torch.ones((16, 32), dtype=torch.long)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.float().sum()
        loss.backward()
        seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    return min(seconds[1:])
