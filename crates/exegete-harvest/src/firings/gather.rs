//! One dictionary in a pass over the windows.

use std::collections::BTreeSet;

use exegete_base::LatentId;
use exegete_sae::Codes;
use exegete_store::sampled::{Draw, SampledToken, write_sampled};
use exegete_store::{Accumulators, Activation, Run, write_activations};

use super::rules::{Rules, norm};
use super::{Harvested, How, accumulator_settings, draw};
use crate::rows::WindowRows;
use crate::{Activations, Result};

/// What is gathered of one dictionary, since it was last written.
pub(super) struct Gathering<'a> {
    harvested: &'a Harvested<'a>,
    /// Which of the activations it reads, and their widths.
    sites: Vec<(usize, usize)>,
    rules: Rules,
    draw: Draw,
    firings: Accumulators,
    sampled: Vec<SampledToken>,
    x_ND: Vec<f32>,
    triples: Vec<(u32, u32, f32)>,
    /// Every firing, where they are kept.
    kept: Option<Vec<Activation>>,
    /// Windows taken in, those of earlier parts too.
    n_windows: u32,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(harvested: &'a Harvested, acts: &Activations, rules: Rules, how: &How) -> Result<Self> {
        let of = |site: &_| acts.index(*site).map(|i| (i, acts.width(i)));
        let sites: Vec<(usize, usize)> = harvested.sites.reads.iter().map(of).collect::<Result<_>>()?;
        let firings = Accumulators::new(harvested.dictionary.n_latents(), accumulator_settings(how));
        let (sampled, x_ND, triples) = (Vec::new(), Vec::new(), Vec::new());
        let kept = how.keep_activations.then(Vec::new);
        Ok(Self { harvested, sites, rules, draw: draw(how), firings, sampled, x_ND, triples, kept, n_windows: 0 })
    }

    /// Mean number of firings on a token, of those since it was last written.
    pub(super) fn l0(&self) -> f64 {
        self.firings.n_firings() as f64 / self.firings.n_tokens().max(1) as f64
    }

    /// About how many bytes are held.
    pub(super) fn bytes(&self) -> usize {
        let token = |t: &SampledToken| size_of::<SampledToken>() + 4 * t.x_D.len() + 8 * t.active.len();
        let kept = self.kept.as_ref().map_or(0, |kept| kept.capacity() * size_of::<Activation>());
        self.firings.bytes() + self.sampled.iter().map(token).sum::<usize>() + kept
    }

    /// The rules by which it was made.
    pub(super) fn end(self) -> Rules {
        self.rules
    }

    /// Encodes windows and takes in their firings, latent by latent.
    pub(super) fn take(&mut self, acts: &Activations, batch: &[WindowRows]) -> Result<()> {
        let rows: Vec<u64> = batch.iter().flat_map(WindowRows::rows).collect();
        let d: usize = self.sites.iter().map(|(_, width)| width).sum();
        self.x_ND.resize(rows.len() * d, 0.0);
        let mut at = 0;
        for (site, width) in &self.sites {
            acts.gather(*site, &rows, (d, at), &mut self.x_ND)?;
            at += width;
        }
        let codes = self.harvested.dictionary.encode_by(&self.x_ND, self.rules.products)?;
        let mut from = 0;
        for w in batch {
            self.window(&codes, w, from, d);
            from += w.len();
        }
        Ok(())
    }

    /// Takes in the firings of a window, whose first row is `from`.
    fn window(&mut self, codes: &Codes, w: &WindowRows, from: usize, d: usize) {
        self.triples.clear();
        let mut counted = Vec::with_capacity(w.len());
        for row in 0..w.len() {
            let x_D = &self.x_ND[(from + row) * d..(from + row + 1) * d];
            if norm(x_D) > self.rules.longest {
                continue;
            }
            // Position 0 has no row.
            let position = row as u32 + 1;
            counted.push(position);
            self.triples.extend(codes.of(from + row).map(|(latent, value)| (latent, position, value)));
            if self.draw.takes(w.window.doc, w.window.start + u64::from(position)) {
                let (doc, window) = (w.window.doc, w.window.window);
                let active = codes.of(from + row).collect();
                self.sampled.push(SampledToken { doc, window, position, x_D: x_D.to_vec(), active });
            }
        }
        self.triples.sort_unstable_by_key(|t| (t.0, t.1));
        if let Some(kept) = &mut self.kept {
            let row = self.n_windows;
            kept.extend(self.triples.iter().map(|&(latent, position, value)| Activation {
                row,
                position,
                latent,
                value,
            }));
        }
        self.n_windows += 1;
        let (mut positions, mut values) = (Vec::new(), Vec::new());
        for group in self.triples.chunk_by(|a, b| a.0 == b.0) {
            positions.clear();
            values.clear();
            positions.extend(group.iter().map(|t| t.1));
            values.extend(group.iter().map(|t| t.2));
            self.firings.push_group(&w.window, LatentId(group[0].0), &positions, &values);
        }
        self.firings.add_tokens(counted);
    }

    /// Writes what was gathered on the windows `from..to`, and begins anew.
    pub(super) fn write(&mut self, run: &mut Run, from: usize, to: usize) -> Result<()> {
        let empty = Accumulators::new(self.firings.n_latents(), self.firings.settings());
        let (firings, sampled) = (std::mem::replace(&mut self.firings, empty), std::mem::take(&mut self.sampled));
        let [state, drawn, fired] = names(&self.harvested.place(), from, to);
        run.commit_part(&state, firings.n_tokens(), |w| firings.write_state(w))?;
        run.commit_part(&drawn, sampled.len() as u64, |w| write_sampled(w, &sampled))?;
        if let Some(kept) = self.kept.as_mut().map(std::mem::take) {
            run.commit_part(&fired, kept.len() as u64, |w| write_activations(w, &kept))?;
        }
        Ok(())
    }
}

/// The parts of a stretch of windows.
fn names(place: &str, from: usize, to: usize) -> [String; 3] {
    ["state", "sampled", "fired"].map(|kind| format!("{place}/{kind}-{from:08}-{to:08}.parquet"))
}

/// Whether a part is one of these.
pub(super) fn is_state(rel: &str) -> bool {
    rel.starts_with("harvest/")
}

/// How many windows are written of all dictionaries. Stopped in the middle, some may be ahead of others: what they have beyond that
/// is removed.
pub(super) fn written(run: &mut Run, gatherings: &mut [Gathering]) -> Result<usize> {
    let ends = |rel: &String| {
        let stem = rel.strip_suffix(".parquet")?;
        let mut words = stem.rsplit('-');
        let (to, from) = (words.next()?.parse::<usize>().ok()?, words.next()?.parse::<usize>().ok()?);
        Some((from, to))
    };
    let there: BTreeSet<(usize, usize)> =
        run.manifest().parts.keys().filter(|rel| is_state(rel)).filter_map(ends).collect();
    let mut written = 0;
    let mut kept = BTreeSet::new();
    for (from, to) in there {
        let own =
            |g: &Gathering| names(&g.harvested.place(), from, to).into_iter().take(2 + usize::from(g.kept.is_some()));
        let whole: Vec<String> = gatherings.iter().flat_map(own).collect();
        if from == written && whole.iter().all(|rel| run.part_done(rel)) {
            written = to;
            kept.extend(whole);
        }
    }
    let rest: Vec<String> =
        run.manifest().parts.keys().filter(|rel| is_state(rel) && !kept.contains(*rel)).cloned().collect();
    rest.iter().try_for_each(|rel| run.remove_part(rel))?;
    gatherings.iter_mut().for_each(|gathering| gathering.n_windows = written as u32);
    Ok(written)
}
