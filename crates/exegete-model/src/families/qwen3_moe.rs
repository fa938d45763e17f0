//! Qwen3-MoE: Qwen3 whose MLPs are mixtures of experts, but for the layers that say otherwise.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, LLAMA, Rule, Rules, decoder, set_windows};
use super::gguf_keys::GgufKeys;
use super::stored::in_gguf;
use super::{Family, Understood, llama};
use crate::Result;
use crate::spec::{Mixture, QkNorm};
use crate::weights::WeightSource;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "qwen3_moe", from_config, gguf: Some(("qwen3moe", from_gguf)) };

const KEYS: Rules = &[
    ("attention_bias", Rule::Handled),
    ("use_sliding_window", Rule::Handled),
    ("sliding_window", Rule::Handled),
    // This family has no first layer with a window: all have one or none has.
    ("max_window_layers", Rule::Ignored),
    ("decoder_sparse_step", Rule::Handled),
    ("mlp_only_layers", Rule::Handled),
    ("moe_intermediate_size", Rule::Handled),
    ("num_experts", Rule::Handled),
    ("num_local_experts", Rule::Handled),
    ("num_experts_per_tok", Rule::Handled),
    ("norm_topk_prob", Rule::Handled),
    ("output_router_logits", Rule::Ignored),
    ("router_aux_loss_coef", Rule::Ignored),
];

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "qwen3_moe", &LLAMA)?;
    spec.qk_norm = QkNorm::Head;
    let bias = c.flag_or("attention_bias", false)?;
    (spec.biases.qkv, spec.biases.o) = (bias, bias);
    let window = match c.flag_or("use_sliding_window", false)? {
        true => Some(c.size_or("sliding_window", 4096)?),
        false => None,
    };
    set_windows(path, &c, &mut spec, window, |_| true)?;
    let n_experts = match c.maybe_size("num_experts")? {
        Some(n) => n,
        None => c.size_or("num_local_experts", 128)?,
    };
    let mixture = Mixture {
        n_experts,
        n_used: c.size_or("num_experts_per_tok", 8)?,
        d_expert: c.size_or("moe_intermediate_size", 768)?,
        normalise: c.flag_or("norm_topk_prob", false)?,
    };
    let step = c.size_or("decoder_sparse_step", 1)?;
    let dense = c.sizes("mlp_only_layers")?.unwrap_or_default();
    for (l, layer) in spec.layers.iter_mut().enumerate() {
        layer.mixture = n_experts > 0 && step > 0 && (l + 1).is_multiple_of(step) && !dense.contains(&l);
    }
    spec.mixture = spec.layers.iter().any(|l| l.mixture).then_some(mixture);
    Ok(Understood::new(spec, llama::in_hf))
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let own = ["expert_count", "expert_used_count", "expert_feed_forward_length"];
    let keys = GgufKeys::checked(path, file, &own)?;
    let mut spec = keys.decoder("qwen3_moe", &LLAMA)?;
    spec.qk_norm = QkNorm::Head;
    spec.mixture = Some(Mixture {
        n_experts: keys.size("expert_count")?,
        n_used: keys.size("expert_used_count")?,
        d_expert: keys.size("expert_feed_forward_length")?,
        // llama.cpp has no key for this; it always normalises this architecture.
        normalise: true,
    });
    for (l, layer) in spec.layers.iter_mut().enumerate() {
        layer.mixture = file.has(&format!("blk.{l}.ffn_gate_inp.weight"));
    }
    Ok(Understood::new(spec, in_gguf))
}
