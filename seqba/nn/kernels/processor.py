"""The processor at hand: its vendor and its instructions, by which kernels choose between torch's libraries."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FEATURES = frozenset(["avx512_bf16", "amx_bf16"])
TORCH_QUESTIONS = {
    "avx512f": "_is_avx512_supported",
    "avx512_bf16": "_is_avx512_bf16_supported",
    "amx_bf16": "_is_amx_tile_supported",
}
"""Features that kernels ask for, and the functions of `torch.cpu` that tell of them without the system."""


@dataclass(frozen=True)
class Processor:
    """Vendor and features of a processor.

    Attributes:
        vendor: "GenuineIntel", "AuthenticAMD", …; empty where the system doesn't tell.
        features: names of its instruction sets as Linux has them, "avx512_bf16", "amx_bf16", …; those of
            `TORCH_QUESTIONS` alone where the system doesn't tell.
    """

    vendor: str = ""
    features: frozenset[str] = frozenset()

    @functools.cached_property
    def is_intel(self) -> bool:
        """Whether Intel made it."""
        return self.vendor == "GenuineIntel"

    @functools.cached_property
    def is_wide_amd(self) -> bool:
        """Whether AMD made it, with AVX-512: Zen 4 and later."""
        return self.vendor == "AuthenticAMD" and "avx512f" in self.features

    @functools.cached_property
    def is_wide(self) -> bool:
        """Whether it is one of theirs with AVX-512, on which kernels were measured."""
        return self.is_wide_amd or (self.is_intel and "avx512f" in self.features)

    @functools.cached_property
    def has_bfloat16(self) -> bool:
        """Whether it has instructions for products of bfloat16, by vectors (avx512_bf16) or by tiles (AMX)."""
        return not self.features.isdisjoint(BFLOAT16_FEATURES)

    @functools.cached_property
    def widens_bfloat16(self) -> bool:
        """Whether float32 products are the faster ones, of bfloat16 numbers too: Intel's without AMX's tiles.

        Their avx512_bf16 multiplies at half of float32's rate; processors without it emulate it.
        """
        return self.is_intel and not self.has_amx

    @functools.cached_property
    def has_amx(self) -> bool:
        """Whether it multiplies tiles of bfloat16 (AMX)."""
        return "amx_bf16" in self.features


@functools.cache
def processor() -> Processor:
    """The processor of this machine, read once; without bfloat16 where oneDNN has to leave it (ONEDNN_MAX_CPU_ISA).

    A system that tells no features (no /proc/cpuinfo, or one that can't be read) leaves them to torch, which asks the
    processor itself.
    """
    try:
        found = parse_cpu_info(CPU_INFO.read_text(encoding="ascii", errors="replace"))
    except OSError:
        found = Processor("GenuineIntel" if "GenuineIntel" in platform.processor() else "")
    features = found.features or features_by_torch()
    return replace(found, features=features if onednn_has_bfloat16() else features - BFLOAT16_FEATURES)


def features_by_torch() -> frozenset[str]:
    """Which of the features that kernels ask for torch finds; none on other processors than x86."""
    questions = {name: getattr(torch.cpu, question, None) for name, question in TORCH_QUESTIONS.items()}
    return frozenset(name for name, question in questions.items() if question is not None and question())


def onednn_has_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 here: not without AVX-512, where torch.mm has products of its own."""
    return hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def parse_cpu_info(text: str) -> Processor:
    """The first processor of /proc/cpuinfo's `text`."""
    first = text.split("\n\n", 1)[0].splitlines()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}
    return Processor(fields.get("vendor_id", ""), frozenset(fields.get("flags", "").split()))
