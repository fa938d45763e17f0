"""The cases: each config.json has every key of the published model it is named after, in the spelling of its hub files.

Only sizes, token ids, and what must act on 12 tokens differ: windows, scalings, soft caps, and epsilons large enough
that a misplaced one shows.
"""

# Shared by the Llama-like families: 4 query heads of 6, 2 key-value heads.
SIZES = dict(
    hidden_size=24, intermediate_size=28, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, vocab_size=61, bos_token_id=1, eos_token_id=2,
)
# Two layers are enough where all are alike.
SMALL = {**SIZES, "num_hidden_layers": 2}
# Multi-head: 3 heads of 8.
MHA = {**SIZES, "num_attention_heads": 3, "num_key_value_heads": 3}

GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 2,
    "embd_pdrop": 0.1,
    "eos_token_id": 2,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 0.01,
    "model_type": "gpt2",
    "n_ctx": 64,
    "n_embd": 24,
    "n_head": 3,
    "n_layer": 3,
    "n_positions": 64,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 61,
}

# As Stanford's Mistral GPT-2 models have it.
GPT2_LAYER_SCALED = {
    **GPT2,
    "gradient_checkpointing": False,
    "n_inner": 28,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": True,
    "scale_attn_weights": True,
    "torch_dtype": "float32",
    "transformers_version": "4.12.0.dev0",
    "use_cache": False,
}

# Pythia 70m. A quarter of 16 dimensions is rotated.
GPT_NEOX = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 28,
    "layer_norm_eps": 0.01,
    "max_position_embeddings": 64,
    "model_type": "gpt_neox",
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.24.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 61,
}

# The later spelling of transformers 4, as in models of 2024.
GPT_NEOX_SEQUENTIAL = {
    **GPT_NEOX,
    "attention_bias": True,
    "attention_dropout": 0.0,
    "classifier_dropout": 0.1,
    "hidden_dropout": 0.0,
    "num_hidden_layers": 2,
    "partial_rotary_factor": 0.5,
    "rope_scaling": None,
    "rope_theta": 10000,
    "rotary_pct": 0.5,
    "transformers_version": "4.48.0",
    "use_parallel_residual": False,
}

# Llama 2 7B, which has no rope_theta.
LLAMA2 = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rms_norm_eps": 0.01,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    **MHA,
}

# Llama 3.2 1B. Of the eight frequencies of a head of 16, one is kept, one blended, six divided by the factor.
LLAMA3 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "mlp_bias": False,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rms_norm_eps": 0.01,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 48,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    **SMALL,
    "eos_token_id": [2, 3, 4],
    "head_dim": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}

# The same as transformers 5 writes it.
LLAMA3_V5 = {key: value for key, value in LLAMA3.items() if key not in ["rope_scaling", "rope_theta", "torch_dtype"]} | {
    "dtype": "float32",
    "pad_token_id": None,
    "rope_parameters": {**LLAMA3["rope_scaling"], "rope_theta": 500000.0},
    "transformers_version": "5.0.0",
    "tie_word_embeddings": False,
}


def llama(**changes):
    """Llama 3's keys without its scaling, with two layers."""
    base = {**LLAMA3, "rope_scaling": None, "rope_theta": 10000.0, "head_dim": 8, "tie_word_embeddings": False}
    return {**base, **SMALL, **changes}


LLAMA_LINEAR = llama(rope_scaling={"factor": 4.0, "type": "linear"})
# Acts as soon as the text is longer than max_position_embeddings.
LLAMA_DYNAMIC = llama(rope_scaling={"factor": 2.0, "type": "dynamic"}, max_position_embeddings=8)
# Heads of 16 and a small theta, so that of the eight frequencies some are kept, some blended, some divided.
LLAMA_YARN = llama(
    rope_scaling={"factor": 4.0, "original_max_position_embeddings": 512, "rope_type": "yarn"},
    rope_theta=100.0, head_dim=16, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=2048,
)
LLAMA_YARN_FULL = llama(
    rope_scaling={
        "attention_factor": 1.25, "beta_fast": 2.0, "beta_slow": 0.5, "factor": 2.0,
        "original_max_position_embeddings": 32, "rope_type": "yarn", "truncate": False,
    },
    rope_theta=100.0, head_dim=16, num_attention_heads=2, num_key_value_heads=1,
)
LLAMA_LONGROPE = llama(rope_scaling={
    "factor": 8.0, "long_factor": [1.0, 1.5, 3.0, 9.0], "original_max_position_embeddings": 8, "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.4],
})
LLAMA_BIASED = llama(attention_bias=True, mlp_bias=True)

# Mistral 7B v0.1.
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "mistral",
    "rms_norm_eps": 0.01,
    "rope_theta": 10000.0,
    "sliding_window": 5,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0",
    "use_cache": True,
    **SMALL,
}

# Mistral Nemo: no window, and heads whose widths do not add up to hidden_size.
MISTRAL_NEMO = {
    **MISTRAL,
    "attention_dropout": 0.0,
    "head_dim": 8,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "transformers_version": "4.43.0.dev0",
}

# Qwen2 0.5B: a sliding_window that use_sliding_window turns off.
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_window_layers": 1,
    "model_type": "qwen2",
    "rms_norm_eps": 0.01,
    "rope_theta": 1000000.0,
    "sliding_window": 4,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    "use_sliding_window": False,
    **SMALL,
}

# Qwen2.5: the first layer sees everything, the others 4 keys.
QWEN2_WINDOW = {
    **QWEN2,
    "num_hidden_layers": 3,
    "tie_word_embeddings": False,
    "transformers_version": "4.43.1",
    "use_mrope": False,
    "use_sliding_window": True,
}

# Qwen3 0.6B.
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_window_layers": 2,
    "model_type": "qwen3",
    "rms_norm_eps": 0.01,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    **SMALL,
    "head_dim": 8,
}

# Qwen3 30B A3B. The first layer is dense.
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "decoder_sparse_step": 1,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_window_layers": 3,
    "mlp_only_layers": [0],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 10,
    "norm_topk_prob": True,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "rms_norm_eps": 0.01,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    **SIZES,
    "head_dim": 8,
}

# Layers 1 and 3 would be sparse; 3 is made dense.
QWEN3_MOE_RAW = {
    **QWEN3_MOE, "decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": False, "num_experts_per_tok": 3,
    "num_hidden_layers": 4,
}

# Gemma 2B: "gelu" there means the tanh approximation.
GEMMA = {
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_activation": None,
    "initializer_range": 0.02,
    "model_type": "gemma",
    "rms_norm_eps": 0.01,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.38.0.dev0",
    "use_cache": True,
    **SMALL,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 8,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}

# Gemma 2 2B: window on even layers, soft caps small enough to act.
GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 2.0,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": 3.0,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "model_type": "gemma2",
    "query_pre_attn_scalar": 5,
    "rms_norm_eps": 0.01,
    "rope_theta": 10000.0,
    "sliding_window": 4,
    "torch_dtype": "float32",
    "transformers_version": "4.42.4",
    "use_cache": True,
    **SIZES,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}

# Gemma 3 1B, with the scaling of the global layers that 4B has; every third layer is global.
GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "model_type": "gemma3_text",
    "query_pre_attn_scalar": 5,
    "rms_norm_eps": 0.01,
    "rope_local_base_freq": 10000,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "rope_theta": 1000000,
    "sliding_window": 4,
    "sliding_window_pattern": 3,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    **SIZES,
    "bos_token_id": 2,
    "eos_token_id": [1, 4],
    "head_dim": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}

# As transformers 5 writes it, with a pattern that no interval gives.
GEMMA3_V5 = {key: value for key, value in GEMMA3.items() if key not in [
    "cache_implementation", "rope_local_base_freq", "rope_scaling", "rope_theta", "sliding_window_pattern", "torch_dtype",
]} | {
    "dtype": "float32",
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "num_hidden_layers": 3,
    "rope_parameters": {
        "full_attention": {"factor": 8.0, "rope_theta": 1000000, "rope_type": "linear"},
        "sliding_attention": {"rope_theta": 10000, "rope_type": "default"},
    },
    "tie_word_embeddings": True,
    "transformers_version": "5.0.0",
    "use_bidirectional_attention": False,
}

# Phi-3 mini 4k.
PHI3 = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
    "embd_pdrop": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "phi3",
    "original_max_position_embeddings": 64,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 0.01,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 7,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.2",
    "use_cache": True,
    **MHA,
    "num_hidden_layers": 2,
    "pad_token_id": 2,
}

# Phi-4 mini: grouped queries, three quarters of each head rotated, tied; within the original length.
PHI3_SHORT = {
    **PHI3,
    **SMALL,
    "hidden_size": 32,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "original_max_position_embeddings": 32,
    "partial_rotary_factor": 0.75,
    "rope_scaling": {"long_factor": [1.0, 2.0, 7.0], "short_factor": [1.0, 1.2, 1.5], "type": "longrope"},
    "sliding_window": 64,
    "tie_word_embeddings": True,
    "transformers_version": "4.45.0",
}

# Phi-3 mini 128k, beyond the original length.
PHI3_LONG = {
    **PHI3,
    "original_max_position_embeddings": 8,
    "rope_scaling": {"long_factor": [1.1, 1.8, 4.0, 12.0], "short_factor": [1.0, 1.1, 1.3, 1.6], "type": "longrope"},
    "sliding_window": 64,
}

# OLMo 2 7B.
OLMO2 = {
    "architectures": ["Olmo2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "olmo2",
    "rms_norm_eps": 0.01,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "use_cache": False,
    **{key: value for key, value in SMALL.items() if key != "bos_token_id"},
    "pad_token_id": 0,
}

# SmolLM2 135M.
SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.041666666666666664,
    "is_llama_config": True,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rms_norm_eps": 0.01,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
    **SMALL,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
}

# SmolLM3 3B: 0 marks the layers without rotation.
SMOLLM3 = {
    "architectures": ["SmolLM3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "layer_types": ["full_attention"] * 4,
    "max_window_layers": 28,
    "mlp_bias": False,
    "model_type": "smollm3",
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0],
    "pretraining_tp": 2,
    "rms_norm_eps": 0.01,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.54.0.dev0",
    "use_cache": False,
    "use_sliding_window": False,
    **SIZES,
    "num_hidden_layers": 4,
    "pad_token_id": 0,
}

# These differ from another case in little but the rotation: fewer sites are recorded, and no gradients of weights.
BRIEF = [
    "llama3_v5", "llama_linear", "llama_dynamic", "llama_yarn", "llama_yarn_full", "llama_longrope", "mistral_nemo",
    "gemma3_v5", "phi3", "smollm2",
]

# case: (config, seed of its weights). The seeds keep the two likeliest tokens apart in the greedy texts.
CASES = {
    "gpt2": (GPT2, 101),
    "gpt2_layer_scaled": (GPT2_LAYER_SCALED, 3902),
    "gpt_neox": (GPT_NEOX, 603),
    "gpt_neox_sequential": (GPT_NEOX_SEQUENTIAL, 204),
    "llama2": (LLAMA2, 805),
    "llama3": (LLAMA3, 2106),
    "llama3_v5": (LLAMA3_V5, 1707),
    "llama_linear": (LLAMA_LINEAR, 108),
    "llama_dynamic": (LLAMA_DYNAMIC, 2009),
    "llama_yarn": (LLAMA_YARN, 1710),
    "llama_yarn_full": (LLAMA_YARN_FULL, 2811),
    "llama_longrope": (LLAMA_LONGROPE, 412),
    "llama_biased": (LLAMA_BIASED, 313),
    "mistral": (MISTRAL, 414),
    "mistral_nemo": (MISTRAL_NEMO, 115),
    "qwen2": (QWEN2, 2316),
    "qwen2_window": (QWEN2_WINDOW, 417),
    "qwen3": (QWEN3, 518),
    "qwen3_moe": (QWEN3_MOE, 1119),
    "qwen3_moe_raw": (QWEN3_MOE_RAW, 420),
    "gemma": (GEMMA, 2221),
    "gemma2": (GEMMA2, 3522),
    "gemma3": (GEMMA3, 3423),
    "gemma3_v5": (GEMMA3_V5, 3524),
    "phi3": (PHI3, 225),
    "phi3_short": (PHI3_SHORT, 526),
    "phi3_long": (PHI3_LONG, 1127),
    "olmo2": (OLMO2, 228),
    "smollm2": (SMOLLM2, 129),
    "smollm3": (SMOLLM3, 730),
}
