//! Windows of a run's text with the codes of all their tokens: where excerpts come from on which a latent is silent.

use std::collections::HashMap;

use exegete_base::DocId;
use exegete_base::sampling::pair_hash;
use exegete_sae::Codes;
use exegete_store::TokenReader;

use crate::Result;
use crate::subject::Subject;

/// What sets this draw apart from others of the same seed.
const DRAW: u64 = 0x9001;

/// A window with its codes.
pub struct Coded {
    /// Document.
    pub doc: DocId,
    /// Window of the document.
    pub window: u32,
    /// Tokens.
    pub ids: Vec<u32>,
    /// Codes of all but the first token.
    codes: Codes,
}

impl Coded {
    /// A latent's activation at a position; 0 where it is silent, and at the first.
    pub fn value(&self, position: usize, latent: u32) -> f32 {
        match position.checked_sub(1) {
            Some(at) if at < self.codes.n_tokens() => {
                self.codes.of(at).find(|(l, _)| *l == latent).map_or(0.0, |(_, value)| value)
            }
            _ => 0.0,
        }
    }
}

/// A firing in the pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Firing {
    /// Window of the pool.
    pub window: u32,
    /// Position in it.
    pub position: u32,
    /// Activation.
    pub value: f32,
}

/// Windows drawn by hash.
pub struct Pool {
    /// The windows.
    pub windows: Vec<Coded>,
    firings: HashMap<u32, Vec<Firing>>,
}

impl Pool {
    /// Draws windows of about `n_tokens` tokens in all and computes their codes. The draw depends on the seed and the text alone.
    ///
    /// # Errors
    /// Damaged tokens, the model's.
    pub fn draw(subject: &Subject, tokens: &TokenReader, n_tokens: usize, seed: u64) -> Result<Self> {
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_cached_key(|at| pair_hash(seed ^ DRAW, *at as u64, 0));
        let (mut drawn, mut taken) = (Vec::new(), 0);
        for at in order {
            if taken >= n_tokens {
                break;
            }
            if let Some(window) = tokens.window(at)? {
                taken += window.token_ids.len();
                drawn.push(window);
            }
        }
        let rows: Vec<Vec<u32>> = drawn.iter().map(|window| window.token_ids.clone()).collect();
        let mut windows = Vec::with_capacity(drawn.len());
        let mut firings: HashMap<u32, Vec<Firing>> = HashMap::new();
        for (codes, window) in subject.codes(&rows)?.into_iter().zip(drawn) {
            for at in 0..codes.n_tokens() {
                for (latent, value) in codes.of(at) {
                    let firing = Firing { window: windows.len() as u32, position: at as u32 + 1, value };
                    firings.entry(latent).or_default().push(firing);
                }
            }
            windows.push(Coded { doc: window.doc, window: window.window, ids: window.token_ids, codes });
        }
        Ok(Self { windows, firings })
    }

    /// Where a latent fires.
    pub fn firings(&self, latent: u32) -> &[Firing] {
        self.firings.get(&latent).map_or(&[], Vec::as_slice)
    }

    /// The share of stretches of so many tokens in which a latent fires: what writing anything at all would reach.
    pub fn base_rate(&self, latent: u32, stretch: usize) -> f64 {
        let mut fires: HashMap<u32, Vec<u32>> = HashMap::new();
        for firing in self.firings(latent) {
            fires.entry(firing.window).or_default().push(firing.position);
        }
        let (mut hit, mut n) = (0u64, 0u64);
        for (at, window) in self.windows.iter().enumerate() {
            let positions = fires.get(&(at as u32));
            let stretches = (window.ids.len().saturating_sub(1) / stretch.max(1)).max(1);
            for i in 0..stretches {
                let range = (1 + i * stretch) as u32..(1 + (i + 1) * stretch) as u32;
                hit += u64::from(positions.is_some_and(|all| all.iter().any(|p| range.contains(p))));
                n += 1;
            }
        }
        if n == 0 { f64::NAN } else { hit as f64 / n as f64 }
    }
}
