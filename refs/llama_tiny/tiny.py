"""The tiny random Llama models and what is recorded of them."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB = 61
LAYERS = 3


def build(d_model, d_mlp, n_heads, n_kv, tied, seed):
    """A random model whose activations are of order one."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=d_model, intermediate_size=d_mlp, num_hidden_layers=LAYERS,
        num_attention_heads=n_heads, num_key_value_heads=n_kv, head_dim=d_model // n_heads,
        max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=tied, initializer_range=0.2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=1, eos_token_id=2, pad_token_id=None, attn_implementation="eager", dtype=torch.float32,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif "embed" in name:
                parameter.copy_(0.5 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.2 * torch.randn_like(parameter))
        model.tie_weights()
    return model


def record(model):
    """Activations at every site under our names, loss, gradient at the embeddings, greedy texts."""
    seen, handles = {}, []

    def on_input(module, name):
        handles.append(module.register_forward_pre_hook(lambda _, args, kw: keep(name, args[0] if args else kw["hidden_states"]), with_kwargs=True))

    def on_output(module, name):
        handles.append(module.register_forward_hook(lambda _, args, out: keep(name, out[0] if isinstance(out, tuple) else out)))

    def keep(name, value):
        seen[name] = value.detach().clone()

    for i, layer in enumerate(model.model.layers):
        block, attn, mlp = f"blocks.{i}", layer.self_attn, layer.mlp
        on_input(layer, f"{block}.hook_resid_pre")
        on_output(attn.q_proj, f"{block}.attn.hook_q")
        on_output(attn.k_proj, f"{block}.attn.hook_k")
        on_output(attn.v_proj, f"{block}.attn.hook_v")
        on_input(attn.o_proj, f"{block}.attn.hook_z")
        on_output(attn.o_proj, f"{block}.hook_attn_out")
        on_input(layer.post_attention_layernorm, f"{block}.hook_resid_mid")
        on_output(mlp.gate_proj, f"{block}.mlp.hook_pre")
        on_output(mlp.up_proj, f"{block}.mlp.hook_pre_linear")
        on_input(mlp.down_proj, f"{block}.mlp.hook_post")
        on_output(mlp, f"{block}.hook_mlp_out")
        on_output(layer, f"{block}.hook_resid_post")
    on_output(model.model.norm, "ln_final.hook_out")
    on_output(model.lm_head, "hook_logits")

    tokens = torch.randint(0, VOCAB, (2, 12), generator=torch.Generator().manual_seed(5))
    embeds = model.model.embed_tokens(tokens).detach().requires_grad_(True)
    seen["hook_embed"] = embeds.detach().clone()
    logits = model(inputs_embeds=embeds, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))
    loss.backward()
    for handle in handles:
        handle.remove()

    head_dim = model.config.head_dim
    for name in seen:
        if ".attn.hook_" in name:
            seen[name] = seen[name].unflatten(-1, (-1, head_dim))
    return {"tokens": tokens, "loss": loss.reshape(1), "grad_embed": embeds.grad, "greedy": greedy(model, tokens[:, :5], 16), **seen}


@torch.no_grad()
def greedy(model, tokens, n_new):
    """The `n_new` most likely tokens of each row, without a cache and without stopping."""
    prompt = tokens.shape[1]
    for _ in range(n_new):
        tokens = torch.cat([tokens, model(tokens, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return tokens[:, prompt:]
