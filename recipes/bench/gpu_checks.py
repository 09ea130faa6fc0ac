"""What recipes/bench/gpu.py looks at beside times: that draws and plans agree, waits, launches, memory, decoding."""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from gpu_sides import Setting, seqba_update
from searches import Ending, Sentences, random_sentences, read_model, their_search
from torch.profiler import ProfilerActivity, profile
from workload import SIZES, build_ours, fused_loss

from seqba import merged_gradient
from seqba.data.pairs import PairBatch
from seqba.decoding.beam import SearchOptions, beam_search
from seqba.random import philox
from seqba.random.masks import LEVELS
from seqba.random.philox import Draw

GOALS = {"kernels": {1: 600, 4: 700}, "waits": 1}
SEED = 7


def check_gpu(setting: Setting) -> list[dict[str, Any]]:
    """A row for each thing that holds or doesn't; each is looked at whatever became of the others."""
    checks: dict[str, Callable[[], str]] = {
        "Triton's draws are torch's": lambda: draws_agree(setting.device),
        "stacked = looped, float32": lambda: plans_differ_by(Setting(setting.device, None, setting.toy)),
        "stacked = looped, bfloat16": lambda: plans_differ_by(setting),
        "waits of an update": lambda: f"{count_waits(setting)} (goal: at most {GOALS['waits']})",
        **{
            f"kernels of an update, M={copies}": lambda copies=copies: count_kernels(setting, copies)  # type: ignore[misc]
            for copies in (1, 4)
        },
    }
    rows = []
    for name, check in checks.items():
        try:
            rows.append({"what": name, "found": check()})
        except Exception as error:
            rows.append({"what": name, "found": f"FAILED: {type(error).__name__}: {str(error)[:300]}"})
    return rows


def draws_agree(device: torch.device) -> str:
    """Masks, uniform numbers and dropped values, by the kernels and by torch's operations."""
    draw = Draw.of(0xFEDCBA9876543210, range(3, 7))
    other = torch.device("cpu")
    equal = [
        torch.equal(draw.keep_mask((148, 13), 6554, device).cpu(), draw.keep_mask((148, 13), 6554, other)),
        torch.equal(draw.uniform((148, 13), device).cpu(), draw.uniform((148, 13), other)),
    ]
    x, added = torch.randn(2, 148, 1000)
    for dtype in (torch.float32, torch.bfloat16):
        here, there = (draw.drop(x.to(where, dtype), added.to(where), 6554) for where in (device, other))
        equal.append(torch.allclose(here.cpu(), there, rtol=1e-6, atol=1e-6))
    drawn = draw.keep_mask((1000, 1000), 6554, device).float().mean().item()
    spread = abs(drawn - (1 - 6554 / LEVELS)) / (0.09**0.5 / 1000)
    kernels = "Triton" if device.type == "cuda" and philox._kernels() is not None else "torch's operations"
    return f"{'yes' if all(equal) else f'NO: {equal}'}, by {kernels}; share kept {spread:.1f} standard deviations off"


def plans_differ_by(setting: Setting) -> str:
    """The relative difference of the gradients that two plans come to."""
    batch = setting.batches()[0]
    found = []
    for plan in ("stacked", "looped"):
        torch.manual_seed(1)
        model = build_ours(SIZES["tiny" if setting.toy else "small"]).to(setting.device).train()

        def loss(model: torch.nn.Module, batch: PairBatch) -> Any:
            with setting.autocast():
                return fused_loss(model, batch)

        merged_gradient(model, batch, loss, copies=4, plan=plan, update=SEED)
        found.append(torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None]).double())
    return f"to {float((found[0] - found[1]).norm() / found[0].norm()):.1e} of the gradient"


def count_waits(setting: Setting) -> str:
    """How often the host waits for the GPU in an update, as torch's own debug mode sees it."""
    if setting.device.type != "cuda":
        return "not on a CPU"
    update = seqba_update(setting, 4, "stacked")
    for number in range(2):
        update(number)
    seen: Counter[str] = Counter()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number in range(4):
                update(number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchroniz" in str(warning.message):
            seen[f"{warning.filename.rpartition('/')[2]}:{warning.lineno}"] += 1
    return f"{sum(seen.values()) / 4:g}: {', '.join(f'{place} × {times}' for place, times in seen.items())}"


def count_kernels(setting: Setting, copies: int) -> str:
    """Kernels that an update launches, and how long they take on the device."""
    if setting.device.type != "cuda":
        return "not on a CPU"
    update = seqba_update(setting, copies, "stacked")
    for number in range(8):
        update(number)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        update(8)
        torch.cuda.synchronize()
    kernels = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    real = [event for event in kernels if not event.name.startswith(("Optimizer", "Mem", "ProfilerStep"))]
    busy: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for event in real:
        busy[event.name[:60]] += event.time_range.elapsed_us()
        times[event.name[:60]] += 1
    for name, spent in busy.most_common(20):
        print(f"    {spent / 1e3:8.3f} ms {times[name]:5d} × {name}")
    goal = GOALS["kernels"][copies]  # type: ignore[index]
    return f"{len(real)}, {sum(busy.values()) / 1e3:.1f} ms (operations of torch: at most {goal})"


def memory_rows(setting: Setting) -> list[dict[str, Any]]:
    """What holds memory in an update of M = 4 stacked copies with a vocabulary of 32,000."""
    device, copies, vocabulary = setting.device, 4, 500 if setting.toy else 32_000
    torch.manual_seed(1)
    model = build_ours(SIZES[setting.size], vocabulary=vocabulary).to(device).train()
    weights = sum(one.numel() * one.element_size() for one in model.parameters())
    batch = setting.batches(vocabulary)[0]
    saved: dict[int, tuple[int, torch.dtype]] = {}
    own = {one.untyped_storage().data_ptr() for one in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = (storage.nbytes(), tensor.dtype)
        return tensor

    def loss(model: torch.nn.Module, batch: PairBatch) -> Any:
        with setting.autocast(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            return fused_loss(model, batch)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    merged_gradient(model, batch, loss, copies=copies, plan="stacked", update=1)
    peak = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    kept: Counter[str] = Counter()
    for size, dtype in saved.values():
        kept["masks" if dtype == torch.int8 else "activations"] += size
    gradients = sum(one.grad.numel() * one.grad.element_size() for one in model.parameters() if one.grad is not None)
    table = {
        "weights": weights,
        "gradients": gradients,
        "optimizer (Adam)": 2 * weights,
        "weights in 16 bits": weights // 2 if setting.dtype is not None and device.type != "cpu" else 0,
        "activations that the backward needs": kept["activations"],
        "masks that the backward needs": kept["masks"],
        "peak of the gradient's computation, above the weights": peak,
    }
    return [{"what": name, "MB": round(size / 1e6)} for name, size in table.items()]


def decoding_rows(setting: Setting) -> list[dict[str, Any]]:
    """Sentences a second of beam search and of Hugging Face's generate, with the same weights and lengths."""
    device, count = setting.device, 16 if setting.toy else 400
    torch.manual_seed(1)
    ours = read_model("", "tiny" if setting.toy else "small")
    theirs = their_search(ours, device)
    ours.to(device)
    sentences = random_sentences(count)
    options = SearchOptions(beam=4, max_len_a=1.2, max_len_b=10)

    def search(source: torch.Tensor, words: torch.Tensor) -> list[list[int]]:
        return [list(found[0].tokens[:-1]) for found in beam_search(Ending(ours, words), source, options)]

    sides = {"seqba": search, "Hugging Face, sorted by length": theirs}
    times: dict[str, list[float]] = {name: [] for name in sides}
    said: dict[str, list[list[int]]] = {}
    for _ in range(3):
        for name, side in sides.items():
            begin = time.perf_counter()
            said[name] = _translate(side, sentences, device)
            times[name].append(time.perf_counter() - begin)
    agree = sum(a == b for a, b in zip(*said.values(), strict=True)) / count
    base = statistics.median(times["Hugging Face, sorted by length"][1:])
    return [
        {
            "side": name,
            "sentences/s": round(count / statistics.median(measured[1:]), 1),
            "× Hugging Face": round(base / statistics.median(measured[1:]), 2),
            "same translations": round(agree, 3),
        }
        for name, measured in times.items()
    ]


def _translate(search: Callable[..., Any], sentences: Sentences, device: torch.device) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for places, source, words in sentences.batches(128, by_length=True):
        assert words is not None
        found.update(zip(places, search(source.to(device), words.to(device)), strict=True))
    return [found[place] for place in range(len(found))]
