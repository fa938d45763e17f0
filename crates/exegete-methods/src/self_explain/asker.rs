//! A template with vectors in its placeholders: what the model then holds, and what it goes on to say.

use std::sync::{Arc, Mutex};

use exegete_base::settings::Insertion;
use exegete_base::{Site, SiteKind};
use exegete_model::edits::{Add, AddAtNorm, Replace, Vectors};
use exegete_model::{Batch, Edit, GenerateOptions, Hooks, KvCache, Logits, Model, Positions, Prefix, Sampling, Steps};
use exegete_tensor::{Place, SiteFn, Tape, Tensor, f32s};

use super::prompt::Prompt;
use crate::{MethodError, Result};

/// What stands at the placeholders of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Inserted {
    /// A vector of the residual stream, `[D]`.
    pub vector: Vec<f32>,
    /// What is done with it.
    pub how: Insertion,
    /// Its factor under [`Insertion::AddAtNorm`], where the vector's own length does not count.
    pub factor: f32,
}

/// How answers are written.
#[derive(Debug, Clone)]
pub(crate) struct Writing {
    /// Most tokens.
    pub(crate) tokens: usize,
    /// How tokens are drawn.
    pub(crate) sampling: Sampling,
    /// How far answers are led away from what is said with another insertion.
    pub(crate) guidance: Option<(f32, Inserted)>,
}

/// What the model holds at the prompt's last token.
pub(crate) struct Reading {
    /// Logits of the answer's first token, `[B, V]`.
    pub(crate) logits_BV: Vec<f32>,
    /// The residual after each layer from the one of the insertion on, `[B, D]` each.
    pub(crate) resid_LBD: Vec<Vec<f32>>,
}

/// One template in one model; the part before the first placeholder is run once.
pub(crate) struct Asker<'m> {
    pub(crate) model: &'m Model,
    pub(crate) prompt: Prompt,
    pub(crate) layer: usize,
    prefix: Prefix,
}

/// Keeps the rows that it is shown, and changes nothing.
#[derive(Default)]
struct Keep(Mutex<Vec<f32>>);

impl SiteFn for Keep {
    fn forward(&self, x_ND: &Tensor, _: &[Place]) -> exegete_tensor::Result<Tensor> {
        // A poisoned lock holds whole values still: rows are put in at once.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(&f32s(x_ND)?);
        Ok(x_ND.clone())
    }

    fn backward(&self, _: &Tensor, _: &[Place], grad_ND: &Tensor) -> exegete_tensor::Result<Tensor> {
        Ok(grad_ND.clone())
    }
}

impl<'m> Asker<'m> {
    /// Prepares the template and runs what stands before its first placeholder. Vectors go in before `layer`.
    ///
    /// # Errors
    /// A template that does not fit the vocabulary, a layer that does not exist.
    pub(crate) fn new(model: &'m Model, template: &str, layer: usize) -> Result<Self> {
        if layer >= model.spec.n_layers {
            let detail = format!("--insert-layer {layer}: the model has layers 0..={}", model.spec.n_layers - 1);
            return Err(MethodError::Request(detail));
        }
        let prompt = Prompt::new(model, template)?;
        let first = prompt.placeholders[0];
        let mut prefix = KvCache::new(&model.spec, 1, first.max(1))?;
        if first > 0 {
            let batch = Batch::one(&prompt.ids[..first]);
            model.run(&Tape::new(), &batch, Some(&mut prefix), &mut Hooks::none(), Logits::None)?;
        }
        Ok(Self { model, prompt, layer, prefix: prefix.freeze() })
    }

    /// The edits that put vectors into rows, in the rows' order.
    pub(crate) fn hooks(&self, rows: &[Inserted]) -> Hooks {
        let edit = |rows: Vec<usize>, f: Arc<dyn SiteFn>| Edit {
            site: Site::at(SiteKind::ResidPre, self.layer),
            rows: Some(rows),
            positions: Positions::At(self.prompt.placeholders.clone()),
            steps: Steps::All,
            f,
        };
        let of = |how: Insertion| (0..rows.len()).filter(move |row| rows[*row].how == how).collect::<Vec<usize>>();
        let vectors = || Vectors::PerRow(rows.iter().map(|row| row.vector.clone()).collect());
        let mut hooks = Hooks::none();
        if let replaced @ [_, ..] = of(Insertion::Replace).as_slice() {
            hooks = hooks.edit(edit(replaced.to_vec(), Arc::new(Replace(vectors()))));
        }
        if let added @ [_, ..] = of(Insertion::Add).as_slice() {
            hooks = hooks.edit(edit(added.to_vec(), Arc::new(Add { vectors: vectors(), scale: 1.0 })));
        }
        for row in of(Insertion::AddAtNorm) {
            let (vectors, scale) = (Vectors::One(rows[row].vector.clone()), rows[row].factor);
            hooks = hooks.edit(edit(vec![row], Arc::new(AddAtNorm { vectors, scale })));
        }
        hooks
    }

    /// What the model holds at the prompt's last token, a batch row for each insertion.
    pub(crate) fn read(&self, rows: &[Inserted]) -> Result<Reading> {
        let batch = self.suffix(rows.len());
        let mut cache = self.prefix.fork(&vec![0; rows.len()], batch.ids.len() / rows.len().max(1))?;
        let mut hooks = self.hooks(rows);
        let kept: Vec<Arc<Keep>> = (self.layer..self.model.spec.n_layers).map(|_| Arc::default()).collect();
        for (layer, keep) in (self.layer..).zip(&kept) {
            let site = Site::at(SiteKind::ResidPost, layer);
            hooks = hooks.edit(Edit::everywhere(site, keep.clone()).at(Positions::FromEnd(vec![1])));
        }
        let batch = Batch { prompts_B: vec![self.prompt.ids.len(); rows.len()], ..batch };
        let logits = self.model.run(&Tape::new(), &batch, Some(&mut cache), &mut hooks, Logits::Last)?;
        let logits = logits.ok_or_else(|| MethodError::Request("the model gave no logits".into()))?;
        drop(hooks);
        let held =
            |keep: Arc<Keep>| std::mem::take(&mut *keep.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(Reading { logits_BV: f32s(logits.tensor())?.to_vec(), resid_LBD: kept.into_iter().map(held).collect() })
    }

    /// What the model says, a batch row for each insertion.
    pub(crate) fn write(&self, rows: &[Inserted], how: &Writing) -> Result<Vec<String>> {
        let mut rows = rows.to_vec();
        if let Some((_, baseline)) = &how.guidance {
            rows.extend(std::iter::repeat_n(baseline.clone(), rows.len()));
        }
        let suffix = self.suffix(rows.len());
        let room = suffix.ids.len() / rows.len().max(1) + how.tokens;
        let mut cache = self.prefix.fork(&vec![0; rows.len()], room)?;
        let options = GenerateOptions {
            sampling: how.sampling.clone(),
            guidance: how.guidance.as_ref().map(|(factor, _)| *factor),
            ..GenerateOptions::greedy(how.tokens, self.model.spec.eos_ids.clone())
        };
        let new = self.model.generate_behind(&mut cache, suffix, &options, &mut self.hooks(&rows))?;
        let tokenizer = self.model.tokenizer()?;
        new.ids.iter().map(|ids| Ok(self.prompt.answer(&tokenizer.decode(ids)?))).collect()
    }

    fn suffix(&self, n_rows: usize) -> Batch {
        let ids = &self.prompt.ids[self.prompt.placeholders[0]..];
        Batch::uniform(ids.repeat(n_rows), n_rows)
    }
}
