"""Loads a dictionary directory with SAELens and prints what it makes of an input: used by hand.

    python refs/sae_saelens/load.py DIR [INPUT.safetensors]

INPUT holds `x` [n, d_in]; with `acts` and `recon` beside it, the largest differences are printed too.
"""

import sys

import torch
from safetensors.torch import load_file
from sae_lens import SAE

sae = SAE.load_from_disk(sys.argv[1], device="cpu")
print(sae.cfg)
data = load_file(sys.argv[2]) if len(sys.argv) > 2 else {"x": torch.randn(4, sae.cfg.d_in)}
with torch.no_grad():
    acts = sae.encode(data["x"])
    recon = sae.decode(acts)
for row, (a, r) in enumerate(zip(acts, recon)):
    fired = ", ".join(f"{i}: {a[i]:.6f}" for i in a.nonzero()[:, 0].tolist())
    print(f"row {row}: {{{fired}}} -> {[round(v, 6) for v in r[:4].tolist()]}...")
for name, got in (("acts", acts), ("recon", recon)):
    if name in data:
        print(f"{name}: largest difference {(got - data[name]).abs().max():.2e}")
