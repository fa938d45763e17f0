"""Tiny random dictionaries of several layers or sites, by circuit-tracer's and Llamascopium's own code, with what each
makes of an input.

To regenerate: cargo xtask golden sae_layers

Files are written by the projects' own `to_safetensors` and `save_pretrained`, read again by their own loaders, and run by
their own `encode` and `decode`. Two are not:
- Gemma Scope 2's cross-layer transcoders have no writer; circuit-tracer's loader reads what is written here.
- The crosscoder of Kissane et al. has no package. It is PyTorch from the published description (`W_enc [2, D, F]`,
  `W_dec [F, 2, D]`, `acts = relu(sum over models of x W_enc + b_enc)`), and our reader was not seen when it was written.

Inputs, activations and reconstructions hold the values of layers or sites behind each other: `x [N, L * D]`,
`acts [N, L * F]`, `recon [N, L * D]`; a crosscoder's activations are those of each site for Llamascopium, which gates every
site by the length of its own decoder row, and `[N, F]` for Kissane's, which has one gate. In every case with thresholds
latent 0 of each layer lies on its threshold exactly; no other value lies within MARGIN of where it would start or stop.
"""

import importlib.util
import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from common import save

warnings.filterwarnings("ignore")


def bare(name):
    """A package whose `__init__` is not run: those of both projects import servers and trainers."""
    module = types.ModuleType(name)
    module.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = module


def stub(name, **content):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)


bare("circuit_tracer")
stub("circuit_tracer.utils", get_default_device=lambda: torch.device("cpu"))
bare("llamascopium")
stub("llamascopium.backend.language_model", LanguageModelConfig=object)

from circuit_tracer.transcoder.activation_functions import JumpReLU, TopK
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder, load_clt, load_gemma_scope_2_clt
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, load_relu_transcoder
from llamascopium.models.crosscoder import Crosscoder, CrosscoderConfig
from llamascopium.models.sae import SAEConfig, SparseAutoEncoder

L, D, F, K, ROWS, MARGIN = 3, 6, 10, 4, 9, 1e-3
F32 = {"device": torch.device("cpu"), "dtype": torch.float32}


def draw(generator, module):
    """Random parameters: rows of different lengths, no matrix symmetric, thresholds between 0.4 and 1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if "threshold" in name:
                values = 0.4 + 0.6 * torch.rand(parameter.shape, generator=generator)
                values = values.log() if "log" in name else values
            elif name.startswith("b_enc") or name.startswith("b_E"):
                values = 0.3 * values
            elif name.startswith("W_"):
                values = 0.5 * values
            parameter.copy_(values)


class Unsuited(Exception):
    """A draw with a value too near to where it would start or stop firing, or with too few or too many active."""


def suits(holds):
    if not bool(holds):
        raise Unsuited


def clear(above):
    """Distances from a threshold: none is small but those of latent 0, which are 0."""
    suits(((above.abs() > MARGIN) | (above == 0)).all())


def clear_topk(h):
    ranked = h.sort(-1, descending=True).values
    suits((ranked[..., K - 1] > MARGIN).all() and (ranked[..., K - 1] - ranked[..., K] > MARGIN).all())


def case(name, make):
    """Calls `make(folder, x, generator)` until a draw suits, and keeps what it returns: x, acts, recon."""
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    for attempt in range(3000):
        generator = torch.Generator().manual_seed(1000 * sum(map(ord, name)) + attempt)
        try:
            with torch.no_grad():
                x, acts, recon = make(folder, generator)
            fired = (acts > 0).sum(1)
            suits(fired.min() >= 2 and (acts > 0).float().mean() < 0.75)
            break
        except Unsuited:
            continue
    else:
        raise SystemExit(f"{name}: no draw suits")
    for file in folder.iterdir():
        file.chmod(0o644)
    save(__file__, f"{name}/golden.safetensors", {"x": x, "acts": acts, "recon": recon})


def flat(x_LND):
    """[L, N, D] to [N, L * D]."""
    return x_LND.permute(1, 0, 2).reshape(x_LND.shape[1], -1)


def config_yaml(folder, kind, **more):
    """The configuration that circuit-tracer's published repositories have."""
    keys = {"model_name": "tiny", "model_kind": kind, "feature_input_hook": "hook_resid_mid",
            "feature_output_hook": "hook_mlp_out", "scan": "tiny", **more}
    (folder / "config.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items()))


def on_threshold(w_enc, b_enc, threshold):
    """Makes latent 0 of every layer lie on its threshold, whatever the input."""
    w_enc[..., 0, :], b_enc[..., 0] = 0, threshold[..., 0]


def run_clt(clt, generator):
    x = torch.randn(L, ROWS, D, generator=generator)
    bar = clt.activation_function.threshold if isinstance(clt.activation_function, JumpReLU) else torch.zeros(())
    for layer in range(L):
        bar_F = bar[layer] if bar.ndim else bar
        clear(clt.encode_layer(x[layer], layer, apply_activation_function=False) - bar_F)
    acts = clt.encode(x)
    suits((acts > 0).any(-1).all())  # its decoder counts positions up to the last that has an active latent
    return flat(x), flat(acts), flat(clt.decode(acts, x))


def cross_layer(activation):
    def make(folder, generator):
        clt = CrossLayerTranscoder(L, F, D, activation, lazy_decoder=False, **F32)
        draw(generator, clt)
        if activation == "jump_relu":
            on_threshold(clt.W_enc, clt.b_enc, clt.activation_function.threshold[:, 0])
        clt.to_safetensors(folder)
        config_yaml(folder, "cross_layer_transcoder")
        return run_clt(load_clt(str(folder), lazy_decoder=False, **F32), generator)

    return make


def gemma_scope_2(skip):
    def make(folder, generator):
        normal = lambda *shape: torch.randn(shape, generator=generator)
        paths = {}
        for layer in range(L):
            w = {"w_enc": 0.5 * normal(D, F), "b_enc": 0.3 * normal(F), "w_dec": 0.5 * normal(F, L, D),
                 "b_dec": normal(D), "threshold": 0.4 + 0.6 * torch.rand(F, generator=generator)}
            on_threshold(w["w_enc"].T, w["b_enc"], w["threshold"])
            if skip:
                w["affine_skip_connection"] = 0.5 * normal(D, D)
            paths[layer] = str(folder / f"params_layer_{layer}.safetensors")
            save_file(w, paths[layer])
        # It reads the layers below the largest key, so that one that stands for none lets it read all.
        paths[L] = ""
        return run_clt(load_gemma_scope_2_clt(paths, **F32), generator)

    return make


def per_layer(activation, skip=False):
    def make(folder, generator):
        functions = {"relu": torch.relu, "topk": TopK(K), "jump_relu": JumpReLU(torch.zeros(F))}
        coder = SingleLayerTranscoder(D, F, functions[activation], 4, skip_connection=skip, **F32)
        draw(generator, coder)
        if activation == "jump_relu":
            on_threshold(coder.W_enc, coder.b_enc, coder.activation_function.threshold)
        coder.to_safetensors(folder / "layer_4.safetensors")
        loaded = load_relu_transcoder(
            str(folder / "layer_4.safetensors"), 4, lazy_encoder=False, lazy_decoder=False, **F32
        )
        if activation == "topk":
            # Its loader knows no such files: their users set the function, as published configurations say.
            loaded.activation_function = functions["topk"]
        x = torch.randn(ROWS, D, generator=generator)
        h = loaded.encode(x, apply_activation_function=False)
        clear_topk(h) if activation == "topk" else clear(h - getattr(loaded.activation_function, "threshold", 0))
        acts = loaded.encode(x)
        return x, acts, loaded.decode(acts, x)

    return make


SITES = [f"blocks.{layer}.hook_resid_post" for layer in range(L)]


def save_llamascopium(folder, coder, generator):
    """Saves a model with its configuration and loads it again."""
    norms = {hook: float(2 + torch.rand((), generator=generator)) for hook in coder.cfg.associated_hook_points}
    # Where no norm was measured its file holds whatever lay in memory.
    norms = norms if coder.cfg.norm_activation == "dataset-wise" else dict.fromkeys(norms, float("nan"))
    coder.set_dataset_average_activation_norm(norms)
    coder.save_pretrained(folder)
    coder.cfg.save_hyperparameters(folder)
    return type(coder).from_local(str(folder))


def clear_llamascopium(coder, gated):
    """`gated`: pre-activations times the lengths of decoder rows."""
    if coder.cfg.act_fn == "topk":
        return clear_topk(gated)
    clear(gated - (coder.activation_function.get_jumprelu_threshold() if coder.cfg.act_fn == "jumprelu" else 0))


def crosscoder(act_fn, norm_activation):
    def make(folder, generator):
        config = CrosscoderConfig(
            d_model=D, expansion_factor=F / D, hook_points=SITES, act_fn=act_fn, norm_activation=norm_activation, top_k=K
        )
        coder = Crosscoder(config)
        draw(generator, coder)
        if act_fn == "jumprelu":
            # Lengths of 1, a threshold of 1, and thirds of it as biases would not sum to it: one site has it all.
            coder.activation_function.log_jumprelu_threshold[0] = 0
            coder.W_E[:, :, 0], coder.b_E[:, 0], coder.W_D[:, 0] = 0, torch.eye(L)[0], torch.eye(D)[:L]
        coder = save_llamascopium(folder, coder, generator)
        batch = {site: torch.randn(ROWS, D, generator=generator) for site in SITES}
        normed, factors = coder.normalize_activations(batch, return_scale_factor=True)
        stacked, _, _ = coder.prepare_input(normed)
        acts, hidden = coder.encode(stacked, return_hidden_pre=True)
        clear_llamascopium(coder, hidden * coder.decoder_norm())
        decoded = coder.decode(acts)
        recon = coder.denormalize_activations({site: decoded[:, i] for i, site in enumerate(SITES)}, factors)
        join = lambda parts: torch.cat([parts[site] for site in SITES], -1)
        return join(batch), acts.reshape(ROWS, -1), join(recon)

    return make


def llamascopium_sae(act_fn, norm_activation, decoder_norm, bias, hook_out=SITES[0]):
    def make(folder, generator):
        config = SAEConfig(
            d_model=D, expansion_factor=F / D, hook_point_in=SITES[0], hook_point_out=hook_out, act_fn=act_fn, top_k=K,
            norm_activation=norm_activation, sparsity_include_decoder_norm=decoder_norm, use_decoder_bias=bias,
        )
        coder = SparseAutoEncoder(config)
        draw(generator, coder)
        if act_fn == "jumprelu":
            coder.activation_function.log_jumprelu_threshold[0] = 0
            coder.W_E[:, 0], coder.b_E[0], coder.W_D[0] = 0, 1, torch.eye(D)[2]
        coder = save_llamascopium(folder, coder, generator)
        batch = {hook: torch.randn(ROWS, D, generator=generator) for hook in {SITES[0]: 0, hook_out: 0}}
        normed, factors = coder.normalize_activations(batch, return_scale_factor=True)
        acts, hidden = coder.encode(normed[SITES[0]], return_hidden_pre=True)
        clear_llamascopium(coder, hidden * coder.decoder_norm() if decoder_norm else hidden)
        recon = coder.denormalize_activations({hook_out: coder.decode(acts)}, factors)[hook_out]
        return batch[SITES[0]], acts, recon

    return make


def kissane(folder, generator):
    normal = lambda *shape: torch.randn(shape, generator=generator)
    w = {"W_enc": 0.4 * normal(2, D, F), "W_dec": 0.5 * normal(F, 2, D), "b_enc": 0.3 * normal(F), "b_dec": normal(2, D)}
    # Latent 0's pre-activation is 0 exactly.
    w["W_enc"][:, :, 0], w["b_enc"][0] = 0, 0
    torch.save(w, folder / "cc_weights.pt")
    (folder / "cfg.json").write_text(json.dumps({
        "seed": 49, "batch_size": 4096, "buffer_mult": 128, "lr": 5e-05, "num_tokens": 400000000, "l1_coeff": 2,
        "beta1": 0.9, "beta2": 0.999, "d_in": D, "dict_size": F, "seq_len": 1024, "enc_dtype": "fp32",
        "model_name": "gemma-2-2b", "site": "resid_pre", "device": "cuda:0", "model_batch_size": 4, "log_every": 100,
        "save_every": 30000, "dec_init_norm": 0.08, "hook_point": "blocks.14.hook_resid_pre",
    }, indent=2) + "\n")
    x = torch.randn(ROWS, 2, D, generator=generator)
    h = torch.einsum("nmd,mdf->nf", x, w["W_enc"]) + w["b_enc"]
    clear(h)
    acts = torch.relu(h)
    recon = torch.einsum("nf,fmd->nmd", acts, w["W_dec"]) + w["b_dec"]
    return x.reshape(ROWS, -1), acts, recon.reshape(ROWS, -1)


case("clt_relu", cross_layer("relu"))
case("clt_jump", cross_layer("jump_relu"))
case("gemma_scope_2_clt", gemma_scope_2(skip=False))
case("gemma_scope_2_clt_affine", gemma_scope_2(skip=True))
case("layer_relu", per_layer("relu"))
case("layer_jump", per_layer("jump_relu"))
case("layer_skip", per_layer("relu", skip=True))
case("layer_topk", per_layer("topk"))
case("crosscoder_relu", crosscoder("relu", "dataset-wise"))
case("crosscoder_jump", crosscoder("jumprelu", "inference"))
case("crosscoder_jump_normed", crosscoder("jumprelu", "dataset-wise"))
case("llamascopium_jump", llamascopium_sae("jumprelu", "dataset-wise", decoder_norm=True, bias=True))
case("llamascopium_transcoder", llamascopium_sae("relu", "dataset-wise", True, True, hook_out="blocks.0.hook_mlp_out"))
case("llamascopium_topk", llamascopium_sae("topk", "inference", decoder_norm=False, bias=False))
case("llamascopium_topk_rows", llamascopium_sae("topk", "inference", decoder_norm=True, bias=True))
case("kissane", kissane)
