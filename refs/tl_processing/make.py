"""What TransformerLens makes of the tiny GPT-2 and Llama 2 of `families`: processed weights, residuals, probabilities.

GPT-2: norms folded, writing weights and unembedding centred, value biases left in place. Llama 2: norms folded and
the unembedding centred (TransformerLens does not centre writing weights before an RMS norm).

To regenerate: cargo xtask golden tl_processing
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torch
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
from transformers.utils import logging

import dump
from common import save

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

SHARED = dict(n_ctx=64, d_vocab=61, device="cpu", dtype=torch.float32, seed=0)
CASES = {
    "gpt2": (convert_gpt2_weights, dict(
        n_layers=3, d_model=24, n_heads=3, d_head=8, d_mlp=96, act_fn="gelu_new", eps=0.01, normalization_type="LN",
        **SHARED,
    )),
    "llama2": (convert_llama_weights, dict(
        n_layers=3, d_model=24, n_heads=3, d_head=8, d_mlp=28, act_fn="silu", eps=0.01, normalization_type="RMS",
        gated_mlp=True, final_rms=True, positional_embedding_type="rotary", rotary_dim=8, rotary_base=10000, **SHARED,
    )),
}

out = {}
for case, (convert, shape) in CASES.items():
    original = dump.load(HERE.parent / "families" / case)
    golden = load_file(HERE.parent / "families" / case / "golden.safetensors")
    tokens = golden["tokens"].long()
    config = HookedTransformerConfig(**shape)
    model = HookedTransformer(config)
    weights = {name: x.detach().clone() for name, x in convert(original, config).items()}
    model.load_and_process_state_dict(
        weights, fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=False,
    )
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    out["tokens"] = tokens
    for name, x in model.named_parameters():
        if not name.startswith("blocks.") or name.startswith("blocks.1."):
            out[f"{case}/{name}"] = x
    out[f"{case}/logits"] = logits
    out[f"{case}/log_probs"] = logits.log_softmax(-1)
    for layer in range(shape["n_layers"]):
        out[f"{case}/blocks.{layer}.hook_resid_post"] = cache[f"blocks.{layer}.hook_resid_post"]

    # Processing changes neither the probabilities nor, but for its mean, the residual stream.
    far = (logits.log_softmax(-1) - golden["hook_logits"].log_softmax(-1)).abs().max()
    resid = golden["blocks.2.hook_resid_post"]
    if case == "gpt2":
        resid = resid - resid.mean(-1, keepdim=True)
    far_resid = (cache["blocks.2.hook_resid_post"] - resid).abs().max()
    assert far < 1e-4 and far_resid < 1e-4, f"{case}: {far}, {far_resid}"
    print(f"{case}: log-probabilities within {far:.1e} of transformers, residual stream within {far_resid:.1e}")
save(__file__, "golden.safetensors", out)
