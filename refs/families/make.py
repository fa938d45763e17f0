"""Tiny random models of every family in their hub layout, and what transformers computes for them.

To regenerate: cargo xtask golden families
"""

import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

import dump
from common import save
from configs import BRIEF, CASES

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

BRIEF_SITES = ("attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_attn_scores", "hook_resid_post")
PROMPT, NEW = 5, 16
# Tokens that no config uses as a special token: a padding row of the embedding gets no gradient.
TOKENS = torch.randint(5, 61, (2, 12), generator=torch.Generator().manual_seed(5))


def write_model(folder, config, seed):
    """config.json as it is given, and random weights under the names that the hub's files have."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    randomize(model, seed)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        tensors = load_file(Path(scratch) / "model.safetensors")
    tensors = hub_layout(folder.name, tensors)
    tensors = {name: tensors[name].contiguous() for name in sorted(tensors)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    return model


@torch.no_grad()
def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    gains = {
        f"{name}.weight": 0.0 if type(module).__name__.startswith("Gemma") else 1.0
        for name, module in model.named_modules() if "Norm" in type(module).__name__
    }
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name in gains:
            parameter.copy_(gains[name] + 0.2 * noise)
        elif name.endswith(("wte.weight", "wpe.weight", "embed_tokens.weight", "embed_in.weight")):
            # Gemma's scale would drown the layers.
            parameter.copy_((0.3 if hasattr(model.get_input_embeddings(), "embed_scale") else 0.5) * noise)
        elif ".experts." in name:
            parameter.copy_(0.35 * noise)
        else:
            parameter.copy_(0.2 * noise)


def hub_layout(case, tensors):
    """What the published files hold beyond, or instead of, what save_pretrained writes today."""
    if case == "gpt2":
        tensors = {name.removeprefix("transformer."): x for name, x in tensors.items()}
        for layer in range(3):
            tensors[f"h.{layer}.attn.bias"] = torch.ones(64, 64).tril()[None, None]
    if case == "gpt_neox":
        for layer in range(3):
            attention = f"gpt_neox.layers.{layer}.attention"
            tensors[f"{attention}.bias"] = torch.ones(64, 64, dtype=torch.uint8).tril()[None, None]
            tensors[f"{attention}.masked_bias"] = torch.tensor(-1e9)
            tensors[f"{attention}.rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(0, 4, 2) / 4)
    if case == "llama2":
        for layer in range(3):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(0, 8, 2) / 8)
    return tensors


def load(folder, written):
    """The model as transformers reads it from `folder`; fails if a weight is not the one that was written."""
    model = dump.load(folder)
    weights = dict(model.named_parameters())
    for name, parameter in written.named_parameters():
        assert torch.equal(parameter, weights[name]), f"{folder.name}: {name} was not read back"
    return model


def golden(case, model):
    """Sites, loss, gradients and greedy texts; returns also all sites, for the check."""
    model.zero_grad()
    with dump.Recorder(model) as seen:
        logits = seen.run(TOKENS)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten())
        loss.backward()
    sites = seen.values()
    out = {"tokens": TOKENS, "loss": loss.reshape(1), **sites}
    wanted = ["hook_embed", *(f"blocks.{i}.hook_resid_pre" for i in range(len(seen.layers)))]
    wanted += [f"blocks.1.{site}" for site in ["attn.hook_q", "attn.hook_z", "attn.hook_pattern", "mlp.hook_post"]]
    out |= {f"grad/{name}": seen.gradient(name) for name in wanted if name in seen.kept}
    out |= {f"wgrad/{name}": x for name, x in weight_gradients(model, seen).items()}
    if case in BRIEF:
        out = {name: x for name, x in out.items() if brief(name)}
    return out | greedy(model), sites


def brief(name):
    return "blocks" not in name and "/" not in name or name == "grad/hook_embed" or name.endswith(BRIEF_SITES)


def weight_gradients(model, seen):
    """Gradients of weights under neutral names, as [out, in]."""
    layer = seen.layers[1]
    attn, mlp, norm = dump.attention(layer), layer.mlp, dump.norms(layer)

    def of(module, kind="weight"):
        parameter = getattr(module, kind, None)
        if parameter is None:
            return None
        # GPT-2's Conv1D keeps its matrices as [in, out].
        return parameter.grad.T if type(module).__name__ == "Conv1D" and kind == "weight" else parameter.grad

    out = {
        "embed": model.get_input_embeddings().weight.grad,
        "norm_final": dump.first(seen.base, "ln_f", "norm", "final_layer_norm").weight.grad,
        "blocks.1.o": of(dump.first(attn, "o_proj", "c_proj", "dense")),
        "blocks.1.norm1": of(norm["ln1"]),
        "blocks.1.norm1_post": of(norm["post1"]),
        "blocks.1.q_norm": of(getattr(attn, "q_norm", None)),
    }
    if not model.config.tie_word_embeddings:
        out["unembed"] = model.get_output_embeddings().weight.grad
    fused = dump.first(attn, "c_attn", "qkv_proj", "query_key_value")
    for i, kind in enumerate("qkv"):
        for name, source in [(kind, "weight"), (f"{kind}_bias", "bias")]:
            if fused is None:
                out[f"blocks.1.{name}"] = of(getattr(attn, f"{kind}_proj"), source)
            elif of(fused, source) is not None:
                out[f"blocks.1.{name}"] = dump.split_qkv(attn, of(fused, source), dim=0)[i].flatten(0, 1)
    if hasattr(mlp, "experts"):
        expert = seen.values()["blocks.1.mlp.hook_expert_indices"].flatten()[0]
        gate, up = mlp.experts.gate_up_proj.grad[expert].chunk(2)
        down = mlp.experts.down_proj.grad[expert]
        out["blocks.1.router"] = mlp.gate.weight.grad
        out |= {f"blocks.1.experts.{expert}.{kind}": x for kind, x in [("gate", gate), ("up", up), ("down", down)]}
    elif hasattr(mlp, "gate_up_proj"):
        out["blocks.1.gate"], out["blocks.1.up"] = mlp.gate_up_proj.weight.grad.chunk(2)
        out["blocks.1.down"] = of(mlp.down_proj)
    else:
        out["blocks.1.gate"] = of(getattr(mlp, "gate_proj", None))
        out["blocks.1.up"] = of(dump.first(mlp, "up_proj", "c_fc", "dense_h_to_4h"))
        out["blocks.1.down"] = of(dump.first(mlp, "down_proj", "c_proj", "dense_4h_to_h"))
    return {name: x for name, x in out.items() if x is not None}


@torch.no_grad()
def greedy(model):
    """The NEW most likely tokens of each row, from the whole text at each step and from a cache."""
    dump.settle(model)
    text, margin = TOKENS[:, :PROMPT], []
    for _ in range(NEW):
        last = model(text, use_cache=False).logits[:, -1]
        top = last.topk(2)
        margin.append(top.values[:, 0] - top.values[:, 1])
        text = torch.cat([text, top.indices[:, :1]], dim=1)
    whole = text[:, PROMPT:]
    out = {"greedy": whole, "greedy_margin": torch.stack(margin, dim=1), "logits_last": last}

    dump.settle(model)
    step, cache, cached, margin = TOKENS[:, :PROMPT], None, [], []
    for _ in range(NEW):
        result = model(step, past_key_values=cache, use_cache=True)
        top, cache = result.logits[:, -1].topk(2), result.past_key_values
        margin.append(top.values[:, 0] - top.values[:, 1])
        step = top.indices[:, :1]
        cached.append(step)
    cached = torch.cat(cached, dim=1)
    rope = str(getattr(getattr(model.base_model, "rotary_emb", None), "rope_type", ""))
    if rope in ["dynamic", "longrope"]:
        out |= {"greedy_cached": cached, "greedy_cached_margin": torch.stack(margin, dim=1)}
        out["logits_last_cached"] = result.logits[:, -1]
    else:
        assert torch.equal(whole, cached), "the cache changes the text"
        assert (result.logits[:, -1] - last).abs().max() < 1e-4
    return out


def check(model, out):
    """How far the goldens are from what they must add up to, and how many keys the last position of each layer sees."""
    faults, keys = [], []

    def same(a, b):
        faults.append((a - b).abs().max().item())

    for i, layer in enumerate(dump.first(model.base_model, "h", "layers")):
        at = {name.removeprefix(f"blocks.{i}."): x for name, x in out.items() if name.startswith(f"blocks.{i}.")}
        pre, attn = at["hook_resid_pre"], at["hook_attn_out"]
        same(at["hook_resid_post"], pre + attn + at["hook_mlp_out"])
        if "hook_resid_mid" in at:
            same(at["hook_resid_mid"], pre + attn)

        scores, pattern = at["attn.hook_attn_scores"], at["attn.hook_pattern"]
        same(pattern.sum(-1), torch.ones(()))
        same(pattern, torch.softmax(scores, dim=-1))
        groups = pattern.shape[2] // at["attn.hook_v"].shape[2]
        v = at["attn.hook_v"].repeat_interleave(groups, dim=2)
        same(at["attn.hook_z"], torch.einsum("bthk,bkhc->bthc", pattern, v))

        q, k = (at.get(f"attn.hook_rot_{kind}", at[f"attn.hook_{kind}"]) for kind in "qk")
        raw = torch.einsum("bthc,bkhc->bthk", q, k.repeat_interleave(groups, dim=2)) * dump.attention(layer).scaling
        cap = getattr(model.config, "attn_logit_softcapping", None)
        raw = cap * torch.tanh(raw / cap) if cap else raw
        seen = scores > dump.MASKED
        same(scores[seen], raw[seen])
        keys.append(int(seen[:, -1].sum(-1).unique()))
    return max(faults), keys


if __name__ == "__main__":
    for case, (config, seed) in CASES.items():
        written = write_model(HERE / case, config, seed)
        model = load(HERE / case, written)
        out, sites = golden(case, model)
        save(__file__, f"{case}/golden.safetensors", out)
        worst, keys = check(model, sites)
        assert worst < 1e-5, f"{case}: {worst}"
        margin = out["greedy_margin"].min()
        print(f"  worst sum {worst:.1e}, keys {keys}, loss {out['loss'].item():.2f}, margin {margin:.4f}")
        if "greedy_cached" in out:
            same = torch.equal(out["greedy"], out["greedy_cached"])
            print(f"  cached: the same text {same}, margin {out['greedy_cached_margin'].min():.4f}")
