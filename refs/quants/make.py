"""Random blocks of GGUF's quantized types and the values that gguf-py reads from them.

To regenerate: cargo xtask golden quants
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gguf
import numpy as np
from common import save

ROWS, BLOCKS = 2, 2
# Where the f16 scales (and minima) lie in a block; all other bytes may be anything.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
}
# The last is subnormal in f16.
SIZES = [0.037, -0.21, 1.5, 2.0**-18]

rng = np.random.default_rng(17)
out = {}
for name, places in SCALES.items():
    kind = gguf.GGMLQuantizationType[name]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (ROWS * BLOCKS, size), dtype=np.uint8)
    blocks[2] = 255
    for block, scale in zip(blocks, SIZES):
        for i, place in enumerate(places):
            block[place:place + 2] = np.array([scale * (1 - 0.4 * i)], dtype="<f2").view(np.uint8)
    raw = blocks.reshape(ROWS, BLOCKS * size)
    out[f"{name}/raw"] = raw
    out[f"{name}/values"] = gguf.quants.dequantize(raw, kind)
    assert np.isfinite(out[f"{name}/values"]).all()
save(__file__, "golden.safetensors", out)
