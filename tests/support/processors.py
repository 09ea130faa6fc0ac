"""Processors for which kernels choose differently, as far as they look at them."""

from seqba.nn.kernels.processor import Processor

INTEL_WITH_AMX = Processor("GenuineIntel", frozenset(["avx512f", "avx512_bf16", "amx_bf16"]))
INTEL_WITHOUT_AMX = Processor("GenuineIntel", frozenset(["avx512f", "avx512_bf16"]))
AMD = Processor("AuthenticAMD", frozenset(["avx512f", "avx512_bf16"]))
"""Zen 4 and later."""
OLD_AMD = Processor("AuthenticAMD", frozenset(["avx2"]))
