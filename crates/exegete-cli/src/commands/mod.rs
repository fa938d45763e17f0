//! Commands, one file each: a function from settings and a printer to a result.

pub(crate) mod edits;
pub(crate) mod estimate;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod harvest;
pub(crate) mod import;
pub(crate) mod lab;
pub(crate) mod measured;
pub(crate) mod merge;
pub(crate) mod model_generate;
pub(crate) mod model_info;
pub(crate) mod model_lens;
pub(crate) mod model_parity;
pub(crate) mod numbers;
pub(crate) mod out_dir;
pub(crate) mod prompt;
pub(crate) mod sae_convert;
pub(crate) mod sae_eval;
pub(crate) mod sae_info;
pub(crate) mod sae_list;
pub(crate) mod sae_train;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod show;
pub(crate) mod tour;
pub(crate) mod training_run;
