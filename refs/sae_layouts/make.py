"""Tiny random dictionaries in the file layouts of published releases, with what each makes of an input.

To regenerate: cargo xtask golden sae_layouts

The numbers are float64 NumPy from the published descriptions, not by the publishers' own code, and the reader was not
seen when it was written.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import save

D, F, K, ROWS = 12, 40, 6, 9
MARGIN = 1e-4  # no pre-activation lies this close to where it would start or stop firing: f32 and f64 must agree
LLAMA_NORM, LLAMA_THRESHOLD = 5.919, 0.75


def rounded(values, dtype):
    """The values that a file of this dtype keeps, as float64."""
    return torch.from_numpy(np.asarray(values, dtype=np.float64)).to(dtype).double().numpy()


def draw(rng, kind, dtype, threshold):
    """Random weights, W_enc[d, F] and W_dec[F, d]; no matrix is symmetric."""
    w = {
        "W_enc": rng.normal(size=(D, F)) / D**0.5,
        "b_enc": 0.3 * rng.normal(size=F) - (0.7 if kind == "relu" else 0.0),
        "W_dec": 0.4 * rng.normal(size=(F, D)),
        "b_dec": 0.5 * rng.normal(size=D),
        "skip": 0.4 * rng.normal(size=(D, D)),  # always applied as x @ skip
    }
    if kind == "jump":
        w["threshold"] = np.full(F, threshold) if threshold else rng.uniform(0.4, 1.1, size=F)
        # Latent 0's pre-activation is its threshold exactly, so that > and >= differ.
        w["threshold"][0] = threshold or 1.0
        w["W_enc"][:, 0], w["b_enc"][0] = 0.0, w["threshold"][0]
        w["log_threshold"] = rounded(np.log(w["threshold"]), dtype)
    return {name: rounded(value, dtype) for name, value in w.items()}


class Unsuited(Exception):
    """A draw with a value too near a threshold, or with too few or too many active latents."""


def suits(holds):
    if not holds:
        raise Unsuited


def fire(w, h, kind):
    """The activations of pre-activations `h`: ReLU, JumpReLU with a strict threshold, or the K largest."""
    if kind == "topk":
        ranked = np.sort(h, axis=1)[:, ::-1]
        suits((ranked[:, K - 1] > MARGIN).all() and (ranked[:, K - 1] - ranked[:, K] > MARGIN).all())
        return np.where(h >= ranked[:, K - 1 : K], h, 0.0)
    bar = w["threshold"] if kind == "jump" else 0.0
    above = h - bar
    suits(((np.abs(above) > MARGIN) | (above == 0.0)).all())
    return np.where(above > 0.0, h, 0.0)


def evaluate(w, x, kind, centred, scale, layer_norm, decoder_norms, skip):
    """Activations and reconstruction of raw rows `x`, for weights that act on `scale` times those rows."""
    mean, std = x.mean(1, keepdims=True), x.std(1, ddof=1, keepdims=True)
    z = (x - mean) / (std + 1e-5) if layer_norm else x * scale
    norms = np.linalg.norm(w["W_dec"], axis=1) if decoder_norms else 1.0
    h = (z - centred * w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    acts = fire(w, h * norms, kind)
    y = (acts / norms) @ w["W_dec"] + w["b_dec"]
    y = y * std + mean if layer_norm else y / scale
    return acts, y + x @ w["skip"] if skip else y


def write(path, tensors, dtype):
    """Saves arrays as `dtype`, integers as they are; a pickle may hold other plain values too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, value in tensors.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value).contiguous()
            tensors[name] = value.to(dtype) if value.is_floating_point() else value
    if path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in tensors.items()})
    elif path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


def case(
    folder, file, pack, config=None, *, kind, dtype=torch.float32, threshold=None, x_mean=0.0, x_std=1.0,
    centred=False, scale=1.0, layer_norm=False, decoder_norms=False, skip=False,
):
    """Writes a layout under `folder`: the weights at `file`, `config` as {file name: object}, and the golden."""
    for attempt in range(1000):
        rng = np.random.default_rng([attempt, *folder.encode()])
        w = draw(rng, kind, dtype, threshold)
        x = rounded(x_mean + x_std * rng.normal(size=(ROWS, D)), torch.float32)
        try:
            acts, recon = evaluate(w, x, kind, centred, scale, layer_norm, decoder_norms, skip)
            fired = (acts > 0).sum(1)
            suits(5 <= fired.mean() <= 15 and fired.min() >= 2)
            break
        except Unsuited:
            continue
    else:
        raise SystemExit(f"{folder}: no draw suits")
    write(HERE / folder / file, pack(w), dtype)
    for name, value in (config or {}).items():
        (HERE / folder / name).write_text(json.dumps(value, indent=2) + "\n")
    save(__file__, f"{folder}/golden.safetensors", {"x": x, "acts": acts, "recon": recon})


def plain(*extra):
    """W_enc[d, F], W_dec[F, d] and biases under their usual names."""
    return lambda w: {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec", *extra)}


def gemma_scope_2(skip):
    def pack(w):
        tensors = {name.lower(): value for name, value in plain("threshold")(w).items()}
        return tensors | ({"affine_skip_connection": w["skip"]} if skip else {})

    return pack


def linear(encoder, decoder, **renamed):
    """Two nn.Linear modules, weights [out, in]; `renamed` maps further published names to drawn ones."""
    return lambda w: {
        f"{encoder}.weight": w["W_enc"].T, f"{encoder}.bias": w["b_enc"],
        f"{decoder}.weight": w["W_dec"].T, f"{decoder}.bias": w["b_dec"],
    } | {name: w[ours] for name, ours in renamed.items()}


def openai(activation, state):
    return lambda w: {
        "pre_bias": w["b_dec"], "latent_bias": w["b_enc"],
        "stats_last_nonzero": np.zeros(F, dtype=np.int64),
        "latents_activation_frequency": np.ones(F), "latents_mean_square": np.zeros(F),
        "encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T,
        "activation": activation, "activation_state_dict": state,
    }


def circuit_tracer(threshold=False, skip=False, k=None):
    def pack(w):
        tensors = {"W_enc": w["W_enc"].T, "W_dec": w["W_dec"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
        tensors |= {"activation_function.threshold": w["threshold"]} if threshold else {}
        tensors |= {"W_skip": w["skip"].T} if skip else {}
        return tensors | ({"k": np.array(k, dtype=np.int64)} if k else {})

    return pack


def gemma_scope_2_config(point_in, point_out):
    return {"config.json": {
        "architecture": "jump_relu", "model_name": "google/gemma-3-1b-pt",
        "hf_hook_point_in": f"model.layers.9.{point_in}",
        "hf_hook_point_out": f"model.layers.9.{point_out}", "width": F, "l0": 10,
    }}


RES = "gemma-scope-2b-pt-res"
case(f"gemma_scope_1/{RES}/layer_12/width_16k/average_l0_82", "params.npz", plain("threshold"), kind="jump")
# Trained on raw embeddings; x is sqrt(d) times those, so W_enc / sqrt(d), W_dec * sqrt(d), b_dec * sqrt(d).
case(
    f"gemma_scope_embedding/{RES}/embedding/width_4k/average_l0_6", "params.npz", plain("threshold"), kind="jump",
    scale=D**-0.5, x_std=D**0.5,
)
case(
    "gemma_scope_2", "params.safetensors", gemma_scope_2(skip=False), gemma_scope_2_config("output", "output"),
    kind="jump",
)
case(
    "gemma_scope_2_affine", "params.safetensors", gemma_scope_2(skip=True),
    gemma_scope_2_config("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"), kind="jump",
    skip=True,
)
RESID = "blocks.15.hook_resid_post"
case(
    "llama_scope_1", "checkpoints/final.safetensors", linear("encoder", "decoder"), {"hyperparams.json": {
        "d_model": D, "d_sae": F, "hook_point_in": RESID, "hook_point_out": RESID, "act_fn": "jumprelu",
        "jump_relu_threshold": LLAMA_THRESHOLD, "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": LLAMA_NORM, "out": LLAMA_NORM},
    }},
    kind="jump", dtype=torch.bfloat16, threshold=LLAMA_THRESHOLD, scale=D**0.5 / LLAMA_NORM, x_std=LLAMA_NORM / D**0.5,
)
case(
    "llama_scope_r1", "sae_weights.safetensors",
    linear("encoder", "decoder", log_jumprelu_threshold="log_threshold"),
    {"config.json": {"d_model": D, "expansion_factor": F / D, "hook_point_in": RESID}}, kind="jump",
)
case(
    "llamascopium_2", "sae_weights.safetensors",
    lambda w: {"W_E": w["W_enc"], "b_E": w["b_enc"], "W_D": w["W_dec"], "b_D": w["b_dec"]}, {"config.json": {
        "sae_type": "sae", "d_model": D, "expansion_factor": F / D, "use_decoder_bias": True, "act_fn": "topk",
        "top_k": K, "norm_activation": "inference", "sparsity_include_decoder_norm": True, "use_glu_encoder": False,
        "hook_point_in": RESID, "hook_point_out": RESID,
    }},
    kind="topk", decoder_norms=True,
)
case(
    f"qwen_scope/SAE-Res-Qwen3-8B-Base-W64K-L0_{K}", "layer3.sae.pt",
    lambda w: {"W_enc": w["W_enc"].T, "b_enc": w["b_enc"], "W_dec": w["W_dec"].T, "b_dec": w["b_dec"]}, kind="topk",
)
case(
    "openai_topk", "5.pt", openai("TopK", {"k": K, "postact_fn": "ReLU"}), kind="topk", centred=True, layer_norm=True,
    x_mean=1.0, x_std=3.0,
)
case("openai_relu", "5.pt", openai("ReLU", {}), kind="relu", centred=True)
case("circuit_tracer_relu", "layer_4.safetensors", circuit_tracer(), kind="relu")
case("circuit_tracer_jump", "layer_4.safetensors", circuit_tracer(threshold=True), kind="jump")
case("circuit_tracer_skip", "layer_4.safetensors", circuit_tracer(skip=True, k=K), kind="topk", skip=True)
HOOK_Z = "gpt2-small_L1_Hcat_z_ds24576"
case(
    "hook_z", f"{HOOK_Z}.pt", plain(), {f"{HOOK_Z}_cfg.json": {
        "act_size": D, "dict_size": F, "act_name": "blocks.1.attn.hook_z", "model_name": "gpt2-small", "seq_len": 128,
    }},
    kind="relu", centred=True,
)
case("goodfire", "Llama-3.1-8B-Instruct-SAE-l19.pth", linear("encoder_linear", "decoder_linear"), kind="relu")

for path in HERE.rglob("*"):
    if path.is_file():
        path.chmod(0o644)
