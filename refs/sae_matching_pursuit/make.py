"""Tiny random matching pursuit dictionaries written by SAELens, with what SAELens makes of an input.

To regenerate: cargo xtask golden sae_matching_pursuit
"""

import sys
from pathlib import Path

import torch
from sae_lens.saes import MatchingPursuitSAE, MatchingPursuitSAEConfig

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import save

D_IN, D_SAE = 16, 48
# Rows of unit length, but for `again`, whose rows are shorter, so that a latent is chosen again and again. In `short` what is
# left gets shorter than the bound, in `biased_at_the_end` the decoder's bias is neither taken off nor added.
CASES = {
    "few": dict(max_iterations=5),
    "default": dict(max_iterations=None),
    "short": dict(max_iterations=12, residual_threshold=1.5),
    "again": dict(max_iterations=9, stop_on_duplicate_support=False),
    "stopped": dict(max_iterations=40, residual_threshold=0.0),
    "biased_at_the_end": dict(max_iterations=5, apply_b_dec_to_input=False),
}

for seed, (case, options) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    options = {"apply_b_dec_to_input": True, **options}
    sae = MatchingPursuitSAE(MatchingPursuitSAEConfig(d_in=D_IN, d_sae=D_SAE, dtype="float32", device="cpu", **options))
    sae.cfg.metadata.model_name = "tiny"
    sae.cfg.metadata.hook_name = "blocks.1.hook_resid_post"
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
        length = 0.7 if case == "again" else 1.0
        sae.W_dec.copy_(length * sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True))
        x = torch.randn(9, D_IN)
        x[8] = sae.b_dec
        acts = sae.encode(x)
        recon = sae.decode(acts)
    print(case, "active latents of each token:", (acts > 0).sum(1).tolist())
    sae.save_model(HERE / case)
    for file in (HERE / case).iterdir():
        file.chmod(0o644)
    save(__file__, f"{case}/golden.safetensors", {"x": x, "acts": acts, "recon": recon})
