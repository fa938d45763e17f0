"""Tiny random TopK dictionaries written by SAELens, with what SAELens makes of an input.

To regenerate: cargo xtask golden sae_saelens
"""

import sys
from pathlib import Path

import torch
from sae_lens import TopKSAE, TopKSAEConfig

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import save

D_IN, D_SAE, K = 16, 48, 5
# With and without the rescaling by decoder norms; the second needs decoder rows of unequal norm to differ.
CASES = {"topk": dict(rescale_acts_by_decoder_norm=False), "topk_rescaled": dict(rescale_acts_by_decoder_norm=True)}

for seed, (case, options) in enumerate(CASES.items()):
    torch.manual_seed(seed)
    config = TopKSAEConfig(
        d_in=D_IN, d_sae=D_SAE, k=K, dtype="float32", device="cpu", apply_b_dec_to_input=True,
        normalize_activations="none", **options,
    )
    config.metadata.model_name = "tiny"
    config.metadata.hook_name = "blocks.1.hook_resid_post"
    sae = TopKSAE(config)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
        x = torch.randn(9, D_IN)
        acts = sae.encode(x)
        recon = sae.decode(acts)
    sae.save_model(HERE / case)
    for file in (HERE / case).iterdir():
        file.chmod(0o644)
    save(__file__, f"{case}/golden.safetensors", {"x": x, "acts": acts, "recon": recon})
