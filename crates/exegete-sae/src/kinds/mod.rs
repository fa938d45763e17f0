//! Kinds of dictionaries: the rule by which pre-activations become activations, one file each.
//!
//! A kind is a line in the table below, which is all that the encoder, the formats and the commands know of it.

mod batch_topk;
mod gated;
mod jumprelu;
mod kth_largest;
mod matching_pursuit;
mod relu;
mod topk;

pub use batch_topk::BatchTopK;
pub use gated::Gated;
pub use jumprelu::JumpRelu;
pub use kth_largest::KthLargest;
pub(crate) use kth_largest::Search;
pub(crate) use matching_pursuit::Gram;
pub use matching_pursuit::MatchingPursuit;
pub use relu::Relu;
pub use topk::TopK;

use crate::Codes;
use crate::screening::Wanted;

/// Tokens that are encoded together.
pub(crate) struct Block<'a> {
    /// The input as the encoder takes it, `[N, D]`.
    pub(crate) x_ND: &'a [f32],
    /// Pre-activations, `[N, F]`; what is left of them afterwards is nobody's.
    pub(crate) pre_NF: &'a mut [f32],
    /// F.
    pub(crate) n_latents: usize,
    /// The decoder, `[F, D_out]`.
    pub(crate) w_dec_FD: &'a [f32],
    /// Products of the decoder's rows that are kept from block to block.
    pub(crate) gram: &'a mut Gram,
}

/// What a kind does with pre-activations `h = x W_enc^T + b_enc`.
pub(crate) trait Kind {
    /// Its name, as SAELens spells its architecture.
    const NAME: &'static str;

    /// Activations of each token of a block.
    fn select(&self, block: Block, codes: &mut Codes);

    /// Which pre-activations its activations need; none where they need all.
    fn wanted(&self, _n_latents: usize) -> Option<Wanted<'_>> {
        None
    }

    /// Activation of a latent that is [wanted](Self::wanted), where no other latent's matters; not above 0 where it is not
    /// active.
    fn activation(&self, _latent: usize, h: f32) -> f32 {
        h
    }

    /// What is left when all tokens of a call have been selected.
    fn finish(&self, _codes: &mut Codes) {}

    /// The derivative of a latent's activation by its pre-activation, where it is active.
    fn slope(&self, _latent: usize) -> f32 {
        1.0
    }

    /// What is wrong with it for so many latents, as a sentence.
    fn fault(&self, n_latents: usize) -> Option<String>;

    /// Its numbers, in words, for people.
    fn describe(&self) -> String {
        String::new()
    }
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident),* $(,)?) => {
        /// The rule of a dictionary: its kind with the kind's own parameters.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Rule {
            $($(#[$meta])* $kind($kind)),*
        }

        impl Rule {
            /// Name of the kind, as SAELens spells its architecture.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$kind(_) => $kind::NAME),* }
            }

            /// The kind's numbers, in words; empty where there are none.
            pub fn describe(&self) -> String {
                match self { $(Self::$kind(kind) => kind.describe()),* }
            }

            pub(crate) fn select(&self, block: Block, codes: &mut Codes) {
                match self { $(Self::$kind(kind) => kind.select(block, codes)),* }
            }

            pub(crate) fn wanted(&self, n_latents: usize) -> Option<Wanted<'_>> {
                match self { $(Self::$kind(kind) => kind.wanted(n_latents)),* }
            }

            pub(crate) fn activation(&self, latent: usize, h: f32) -> f32 {
                match self { $(Self::$kind(kind) => kind.activation(latent, h)),* }
            }

            pub(crate) fn finish(&self, codes: &mut Codes) {
                match self { $(Self::$kind(kind) => kind.finish(codes)),* }
            }

            pub(crate) fn slope(&self, latent: usize) -> f32 {
                match self { $(Self::$kind(kind) => kind.slope(latent)),* }
            }

            pub(crate) fn fault(&self, n_latents: usize) -> Option<String> {
                match self { $(Self::$kind(kind) => kind.fault(n_latents)),* }
            }
        }
    };
}
kinds! {
    /// `relu(h)`
    Relu,
    /// The k largest of `relu(h)`.
    TopK,
    /// The k largest a token, over all tokens of a call.
    BatchTopK,
    /// `h` where it is above the latent's threshold.
    JumpRelu,
    /// Measured from the k-th largest of each token.
    KthLargest,
    /// A gate's sign and a magnitude of its own.
    Gated,
    /// One latent after the other, each for what the others left.
    MatchingPursuit,
}

/// Activations of each token by a rule for single values; tokens on all threads.
fn select_each(pre_NF: &[f32], n_latents: usize, codes: &mut Codes, rule: &(impl Kind + Sync)) {
    use rayon::prelude::*;
    let one = |pre: &[f32]| -> Vec<(u32, f32)> {
        let each = pre.iter().enumerate().map(|(latent, h)| (latent as u32, rule.activation(latent, *h)));
        each.filter(|(_, value)| *value > 0.0).collect()
    };
    let rows: Vec<Vec<(u32, f32)>> = pre_NF.par_chunks(n_latents).map(one).collect();
    rows.into_iter().for_each(|row| codes.push(row));
}

/// All pre-activations above 0.
fn positive(n_latents: usize) -> Option<Wanted<'static>> {
    Some(Wanted::Above(vec![0.0; n_latents].into()))
}

/// What is wrong with an array of one value a latent.
fn wrong_size(name: &str, found: usize, n_latents: usize) -> Option<String> {
    (found != n_latents).then(|| format!("{name} has {found} values for {n_latents} latents"))
}

/// What is wrong with a number of latents to keep.
fn wrong_k(k: usize, n_latents: usize) -> Option<String> {
    (k == 0 || k > n_latents).then(|| format!("k is {k} for {n_latents} latents"))
}
