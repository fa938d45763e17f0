"""A transformers Llama written as GGUF in one of several types, as llama.cpp's converter lays it out."""

import gguf
import numpy as np
import torch

TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"]

LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    name = name.removesuffix(".weight")
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    if name in outer:
        return f"{outer[name]}.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest]}.weight"


def permute(w, n_heads):
    """Hugging Face's half rotation -> llama.cpp's interleaved pairs."""
    return w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, n_heads):
    return w.reshape(n_heads, w.shape[0] // n_heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(model, kind, path):
    """Writes `model`; its weights become the rounded ones. Returns layer 1's rounded gate matrix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    config, qtype = model.config, gguf.GGMLQuantizationType[kind.upper()]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("llama-tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[{"f32": "ALL_F32"}.get(kind, f"MOSTLY_{kind.upper()}")])
    add_tokenizer(writer, config.vocab_size)
    for name, parameter in model.named_parameters():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        w = parameter.detach().numpy()
        w = permute(w, heads) if heads else w
        # Gains stay f32, as in every converted file.
        if w.ndim == 1 or kind == "f32":
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(w))
            continue
        packed = gguf.quants.quantize(np.ascontiguousarray(w), qtype)
        writer.add_tensor(gguf_name(name), packed, raw_dtype=qtype)
        rounded = gguf.quants.dequantize(packed, qtype).reshape(w.shape)
        rounded = unpermute(rounded, heads) if heads else rounded
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(rounded)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model.model.layers[1].mlp.gate_proj.weight.detach().clone()


def add_tokenizer(writer, vocab):
    """Three control tokens, then single characters and a few merges: a byte-level vocabulary in small."""
    merges = ["t h", "th e", "a n", "an d", "Ġ the"]
    characters = "Ġabcdefghijklmnopqrstuvwxyz0123456789.,!?'-;:()\"ABCD"
    tokens = ["<unk>", "<s>", "</s>", *characters, *(merge.replace(" ", "") for merge in merges)]
    tokens = tokens[:vocab] + [f"<extra_{i}>" for i in range(vocab - len(tokens))]
    types = [gguf.TokenType.CONTROL if t.startswith("<") else gguf.TokenType.NORMAL for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
