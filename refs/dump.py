"""What transformers computes for a model: logits and activations under our site names, as safetensors.

    python dump.py MODEL_DIR OUT.safetensors --text "The cat sat"
    python dump.py MODEL_DIR OUT.safetensors --tokens 1,2,3 --tokens 4,5,6 --sites resid
    python dump.py MODEL_DIR OUT.safetensors --gguf model.Q8_0.gguf --text "The cat sat"

Needs torch, transformers 5 and safetensors (and gguf for --gguf). The model runs in f32 with eager attention, on
the CPU. Families: GPT-2, GPT-NeoX, Llama, Mistral, Qwen 2 and 3, Qwen 3 MoE, Gemma 1 to 3 (text), Phi-3, OLMo 2,
SmolLM 3.
"""

import argparse
import platform
import sys
from importlib import metadata

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

SITES = ["all", "resid", "none"]
MASKED = -1e30


def load(model_dir, gguf=None):
    """The causal language model of a directory, in f32 with eager attention."""
    more = {"gguf_file": gguf} if gguf else {}
    return AutoModelForCausalLM.from_pretrained(
        model_dir, attn_implementation="eager", experts_implementation="eager", dtype=torch.float32, **more
    ).eval()


def record(model, tokens, sites="all"):
    """Logits and activations for `tokens` [B, T] under our names."""
    with torch.no_grad(), Recorder(model, sites) as seen:
        seen.run(tokens)
    return seen.values()


class Recorder:
    """Keeps the tensors that pass the sites of a model while it is open.

    Each site holds the module's own tensor and a view of it in our shape, so that after a backward pass
    `gradient` can read what arrived there (not for the sites whose view computes: hook_normalized and
    hook_expert_weights).
    """

    def __init__(self, model, sites="all"):
        assert sites in SITES, f"sites: one of {', '.join(SITES)}"
        self.model, self.sites, self.kept, self.undo, self.layer = model, sites, {}, [], None
        self.base = model.base_model
        self.layers = first(self.base, "h", "layers")

    def __enter__(self):
        if self.sites != "none":
            self.hook_residuals()
        if self.sites == "all":
            for i, layer in enumerate(self.layers):
                self.hook_layer(f"blocks.{i}", layer)
            final = first(self.base, "ln_f", "norm", "final_layer_norm")
            self.on_input(final, "ln_final.hook_normalized", lambda x: normalized(final, x))
            self.on_output(final, "ln_final.hook_out")
            self.patch_attention()
        return self

    def __exit__(self, *_):
        for undo in reversed(self.undo):
            undo()

    def run(self, tokens):
        """A forward pass without a cache; returns the logits."""
        self.shape = tokens.shape
        settle(self.model)
        self.kept.clear()
        logits = self.model(tokens, use_cache=False).logits
        self.keep("hook_logits", logits)
        return logits

    def values(self):
        return {name: view(tensor.detach()).clone() for name, (tensor, view) in self.kept.items()}

    def gradient(self, name):
        tensor, view = self.kept[name]
        return view(tensor.grad).clone()

    # Hooks

    def keep(self, name, tensor, view=lambda x: x):
        if tensor.requires_grad:
            tensor.retain_grad()
        self.kept[name] = (tensor, view)

    def on_input(self, module, name, view=lambda x: x):
        def hook(_, args, kwargs):
            self.keep(name, args[0] if args else kwargs["hidden_states"], view)
        self.undo.append(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def on_output(self, module, name, view=lambda x: x):
        def hook(_, args, out):
            self.keep(name, out[0] if isinstance(out, tuple) else out, view)
        self.undo.append(module.register_forward_hook(hook).remove)

    def hook_residuals(self):
        if hasattr(self.base, "wpe"):
            self.on_output(self.base.wte, "hook_embed")
            self.on_output(self.base.wpe, "hook_pos_embed", lambda x: x.expand(*self.shape, -1))
        else:
            self.on_input(self.layers[0], "hook_embed")
        for i, layer in enumerate(self.layers):
            self.on_input(layer, f"blocks.{i}.hook_resid_pre")
            self.on_output(layer, f"blocks.{i}.hook_resid_post")
            if getattr(layer, "use_parallel_residual", False):
                continue
            norm2 = norms(layer)["ln2"]
            self.on_input(layer.mlp if norm2 is None else norm2, f"blocks.{i}.hook_resid_mid")

    def hook_layer(self, block, layer):
        attn, mlp, norm = attention(layer), layer.mlp, norms(layer)
        for name in ["ln1", "ln2"]:
            if norm[name] is not None:
                view = lambda x, module=norm[name]: normalized(module, x)
                self.on_input(norm[name], f"{block}.{name}.hook_normalized", view)

        def enter(*_):
            self.layer = block

        def leave(*_):
            self.layer = None

        self.undo.append(attn.register_forward_pre_hook(enter).remove)
        self.undo.append(attn.register_forward_hook(leave).remove)
        self.on_input(attn, f"{block}.attn.hook_in")
        self.hook_qkv(f"{block}.attn", attn)
        self.on_input(first(attn, "o_proj", "c_proj", "dense"), f"{block}.attn.hook_z", by_head(attn))
        if norm["post1"] is not None:
            self.on_output(attn, f"{block}.attn.hook_out")
        self.on_output(attn if norm["post1"] is None else norm["post1"], f"{block}.hook_attn_out")

        self.on_input(mlp, f"{block}.mlp.hook_in")
        self.hook_mlp(f"{block}.mlp", mlp)
        if norm["post2"] is not None:
            self.on_output(mlp, f"{block}.mlp.hook_out")
        self.on_output(mlp if norm["post2"] is None else norm["post2"], f"{block}.hook_mlp_out")

    def hook_qkv(self, name, attn):
        fused = first(attn, "c_attn", "qkv_proj", "query_key_value")
        for i, kind in enumerate("qkv"):
            if fused is None:
                self.on_output(getattr(attn, f"{kind}_proj"), f"{name}.hook_{kind}", by_head(attn))
            else:
                self.on_output(fused, f"{name}.hook_{kind}", lambda x, i=i: split_qkv(attn, x)[i])
            norm = getattr(attn, f"{kind}_norm", None)
            if norm is not None:
                self.on_qk_norm(norm, f"{name}.{kind}_norm.hook_out", f"{name}.hook_{kind}", attn)

    def on_qk_norm(self, norm, name, source, attn):
        """The norm takes [B,T,H*C], [B,T,H,C] or [B,H,T,C], by family: its input tells which."""
        def hook(_, args, out):
            tensor, view = self.kept[source]
            if out.dim() == 3:
                self.keep(name, out, by_head(attn))
            elif torch.equal(args[0], view(tensor)):
                self.keep(name, out)
            else:
                self.keep(name, out, positions_first)
        self.undo.append(norm.register_forward_hook(hook).remove)

    def hook_mlp(self, name, mlp):
        if hasattr(mlp, "experts"):
            self.undo.append(mlp.gate.register_forward_hook(lambda _, args, out: self.keep_router(name, out)).remove)
        elif hasattr(mlp, "gate_up_proj"):
            self.on_output(mlp.gate_up_proj, f"{name}.hook_pre", lambda x: x.chunk(2, dim=-1)[0])
            self.on_output(mlp.gate_up_proj, f"{name}.hook_pre_linear", lambda x: x.chunk(2, dim=-1)[1])
            self.on_input(mlp.down_proj, f"{name}.hook_post")
        elif hasattr(mlp, "gate_proj"):
            self.on_output(mlp.gate_proj, f"{name}.hook_pre")
            self.on_output(mlp.up_proj, f"{name}.hook_pre_linear")
            self.on_input(mlp.down_proj, f"{name}.hook_post")
        else:
            self.on_output(first(mlp, "c_fc", "dense_h_to_4h"), f"{name}.hook_pre")
            self.on_input(first(mlp, "c_proj", "dense_4h_to_h"), f"{name}.hook_post")

    def keep_router(self, name, out):
        logits, _, indices = out
        rows = lambda x: x.unflatten(0, tuple(self.shape))
        self.keep(f"{name}.router_logits", logits, rows)
        self.keep(f"{name}.hook_expert_weights", logits, lambda x: rows(torch.softmax(x.float(), dim=-1)))
        self.keep(f"{name}.hook_expert_indices", indices.int(), rows)

    def patch_attention(self):
        """Catches what has no module: the rotated queries and keys, and both sides of the softmax."""
        softmax = torch.nn.functional.softmax

        def kept_softmax(scores, *args, **kwargs):
            pattern = softmax(scores, *args, **kwargs)
            if self.layer is not None:
                self.keep(f"{self.layer}.attn.hook_attn_scores", scores, lambda x: positions_first(masked(x)))
                self.keep(f"{self.layer}.attn.hook_pattern", pattern, positions_first)
            return pattern

        self.patch(torch.nn.functional, "softmax", kept_softmax)

        family = sys.modules[type(attention(self.layers[0])).__module__]
        rotate = getattr(family, "apply_rotary_pos_emb", None)
        if rotate is None:
            return

        def kept_rotate(*args, **kwargs):
            q, k = rotate(*args, **kwargs)
            self.keep(f"{self.layer}.attn.hook_rot_q", q, positions_first)
            self.keep(f"{self.layer}.attn.hook_rot_k", k, positions_first)
            return q, k

        self.patch(family, "apply_rotary_pos_emb", kept_rotate)

    def patch(self, owner, name, value):
        before = getattr(owner, name)
        setattr(owner, name, value)
        self.undo.append(lambda: setattr(owner, name, before))


def first(owner, *names):
    """The first of these attributes that `owner` has."""
    return next((getattr(owner, name) for name in names if hasattr(owner, name)), None)


def attention(layer):
    return first(layer, "self_attn", "attn", "attention")


def norms(layer):
    """The norms before (ln1, ln2) and after (post1, post2) attention and MLP, None where there is none."""
    if hasattr(layer, "post_feedforward_layernorm"):
        return {
            "ln1": first(layer, "input_layernorm"), "post1": layer.post_attention_layernorm,
            "ln2": first(layer, "pre_feedforward_layernorm"), "post2": layer.post_feedforward_layernorm,
        }
    return {
        "ln1": first(layer, "ln_1", "input_layernorm"), "post1": None,
        "ln2": first(layer, "ln_2", "post_attention_layernorm"), "post2": None,
    }


def normalized(norm, x):
    """`x` after the norm without its gain and bias."""
    x = x.float()
    if isinstance(norm, torch.nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    eps = first(norm, "variance_epsilon", "eps")
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def masked(scores):
    return torch.where(scores < MASKED, MASKED, scores)


def positions_first(x):
    """[B,H,T,C] -> [B,T,H,C]"""
    return x.transpose(1, 2)


def head_dim(attn):
    return first(attn, "head_dim", "head_size")


def by_head(attn):
    """[B,T,H*C] -> [B,T,H,C]"""
    return lambda x: x.unflatten(-1, (-1, head_dim(attn)))


def split_qkv(attn, x, dim=-1):
    """The three parts of a fused projection's rows along `dim`, as [..., H, C, ...]."""
    c = head_dim(attn)
    if hasattr(attn, "query_key_value"):
        # GPT-NeoX: query, key and value of each head in turn.
        return x.unflatten(dim, (-1, 3, c)).unbind(dim - 1 if dim < 0 else dim + 1)
    heads = attn.config.num_attention_heads
    kv = getattr(attn.config, "num_key_value_heads", heads)
    return [part.unflatten(dim, (-1, c)) for part in x.split([heads * c, kv * c, kv * c], dim=dim)]


def settle(model):
    """Dynamic rotary scaling remembers the longest text it has seen; one token makes it forget."""
    rope = getattr(getattr(model.base_model, "rotary_emb", None), "rope_type", "")
    if "dynamic" in str(rope):
        with torch.no_grad():
            model(torch.zeros(1, 1, dtype=torch.long), use_cache=False)


def versions():
    found = {name: metadata.version(name) for name in ["torch", "transformers", "safetensors"]}
    return {"python": platform.python_version(), **found}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", help="a directory as save_pretrained writes it, or that of the GGUF file")
    parser.add_argument("out", help="the safetensors file to write")
    parser.add_argument("--text", action="append", default=[], help="a text; several must have as many tokens each")
    parser.add_argument("--tokens", action="append", default=[], help="token ids, such as 1,2,3; may be repeated")
    parser.add_argument("--sites", choices=SITES, default="all", help="all, the residual stream, or only logits")
    parser.add_argument("--gguf", help="the name of a GGUF file in MODEL_DIR to load instead")
    args = parser.parse_args()

    rows = [[int(token) for token in row.split(",")] for row in args.tokens]
    if args.text:
        tokenizer = AutoTokenizer.from_pretrained(args.model_dir, **({"gguf_file": args.gguf} if args.gguf else {}))
        rows += [tokenizer.encode(text) for text in args.text]
    if not rows:
        parser.error("give --text or --tokens")
    if len({len(row) for row in rows}) != 1:
        parser.error(f"the rows have different lengths: {[len(row) for row in rows]}")

    tokens = torch.tensor(rows)
    tensors = {"tokens": tokens, **record(load(args.model_dir, args.gguf), tokens, args.sites)}
    tensors = {name: (x.float() if x.is_floating_point() else x.int()).contiguous() for name, x in tensors.items()}
    save_file(tensors, args.out, metadata=versions())
    print(f"{args.out}: {len(tensors)} tensors for {tokens.shape[0]} x {tokens.shape[1]} tokens")


if __name__ == "__main__":
    main()
