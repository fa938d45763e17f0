//! Activations as training asks for them: rows of sites, from the cache, or from the model as they are needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use exegete_base::Site;
use exegete_model::Model;
use exegete_store::Run;
use rayon::prelude::*;

use crate::cache::SiteParts;
use crate::capture::{BATCH, Capture};
use crate::rows::{WindowRows, n_rows, window_of};
use crate::{HarvestError, Result};

/// Activations of some sites over some windows.
pub struct Activations<'a> {
    sites: Vec<Site>,
    widths: Vec<usize>,
    windows: &'a [WindowRows],
    source: Source<'a>,
}

enum Source<'a> {
    Cache(Vec<SiteParts>),
    Model { capture: Capture<'a>, held: Mutex<HashMap<usize, Held>> },
}

/// A window's activations while some of its rows are still to be taken.
struct Held {
    /// One array a site.
    values: Vec<Vec<f32>>,
    left: usize,
}

impl<'a> Activations<'a> {
    /// Those that a run has cached.
    ///
    /// # Errors
    /// A site that is not cached, parts that are damaged.
    pub fn cached(run: &Run, sites: &[Site], windows: &'a [WindowRows]) -> Result<Self> {
        let parts: Vec<SiteParts> = sites.iter().map(|site| SiteParts::open(run, *site)).collect::<Result<_>>()?;
        let n = n_rows(windows);
        if let Some((site, part)) = sites.iter().zip(&parts).find(|(_, part)| part.n_rows() != n) {
            let detail = format!("{} activations of {site} are kept for {n} tokens", part.n_rows());
            return Err(HarvestError::Request(format!("{detail}; remove the run, or the directory of --activations")));
        }
        let widths = parts.iter().map(SiteParts::d).collect();
        Ok(Self { sites: sites.to_vec(), widths, windows, source: Source::Cache(parts) })
    }

    /// Those that a model gives when they are asked for, over windows of at most `len` tokens. A window is kept until all
    /// of its rows were taken and will not be asked for again.
    ///
    /// # Errors
    /// Sites that the model does not have.
    pub fn streamed(model: &'a Model, sites: &[Site], windows: &'a [WindowRows], len: usize) -> Result<Self> {
        let capture = Capture::new(model, sites, len)?;
        let widths = capture.widths().to_vec();
        Ok(Self { sites: sites.to_vec(), widths, windows, source: Source::Model { capture, held: Mutex::default() } })
    }

    /// Which of the sites one is.
    ///
    /// # Errors
    /// It is none of them.
    pub fn index(&self, site: Site) -> Result<usize> {
        let there = self.sites.iter().position(|s| *s == site);
        there.ok_or_else(|| HarvestError::Request(format!("the activations of {site} were not asked for")))
    }

    /// Width of a site's rows.
    pub fn width(&self, site: usize) -> usize {
        self.widths[site]
    }

    /// Whether the model computes them when they are needed.
    pub fn is_streamed(&self) -> bool {
        matches!(self.source, Source::Model { .. })
    }

    /// Runs the model over the windows that begin with these rows, where it was not. A cache has nothing to do.
    ///
    /// # Errors
    /// The model's; activations that are not finite.
    pub(crate) fn load(&self, firsts: &[u64]) -> Result<()> {
        let Source::Model { capture, held } = &self.source else { return Ok(()) };
        let mut held = lock(held);
        let windows = firsts.iter().map(|first| window_of(self.windows, *first));
        let missing: Vec<usize> = windows.filter(|window| !held.contains_key(window)).collect();
        for batch in missing.chunks(BATCH) {
            let of: Vec<&WindowRows> = batch.iter().map(|i| &self.windows[*i]).collect();
            let mut values = vec![Vec::new(); self.sites.len()];
            capture.append(&of, &mut values)?;
            let mut at = 0;
            for (i, w) in batch.iter().zip(of) {
                let part = |(values, d): (&Vec<f32>, &usize)| values[at * d..(at + w.len()) * d].to_vec();
                held.insert(*i, Held { values: values.iter().zip(&self.widths).map(part).collect(), left: w.len() });
                at += w.len();
            }
        }
        Ok(())
    }

    /// Holds the windows of these rows and no others: those that are still to be taken when a training goes on.
    ///
    /// # Errors
    /// Those of the model.
    pub(crate) fn hold(&self, rows: &[u64]) -> Result<()> {
        let Source::Model { held, .. } = &self.source else { return Ok(()) };
        let mut left: BTreeMap<usize, usize> = BTreeMap::new();
        rows.iter().for_each(|row| *left.entry(window_of(self.windows, *row)).or_default() += 1);
        lock(held).retain(|window, _| left.contains_key(window));
        self.load(&left.keys().map(|window| self.windows[*window].first).collect::<Vec<_>>())?;
        lock(held).iter_mut().for_each(|(window, held)| held.left = left[window]);
        Ok(())
    }

    /// Copies rows of a site, in the order given, into `out` of so many columns from column `at` on.
    pub(crate) fn gather(
        &self,
        site: usize,
        rows: &[u64],
        (columns, at): (usize, usize),
        out: &mut [f32],
    ) -> Result<()> {
        let d = self.widths[site];
        match &self.source {
            Source::Cache(parts) => {
                let read = |(out, row): (&mut [f32], &u64)| parts[site].read(*row, &mut out[at..at + d]);
                out.par_chunks_exact_mut(columns).zip(rows).for_each(read);
            }
            Source::Model { held, .. } => {
                let firsts: BTreeSet<u64> =
                    rows.iter().map(|row| self.windows[window_of(self.windows, *row)].first).collect();
                self.load(&firsts.into_iter().collect::<Vec<_>>())?;
                let held = lock(held);
                for (out, row) in out.chunks_exact_mut(columns).zip(rows) {
                    let i = window_of(self.windows, *row);
                    let from = (row - self.windows[i].first) as usize * d;
                    out[at..at + d].copy_from_slice(&held[&i].values[site][from..from + d]);
                }
            }
        }
        Ok(())
    }

    /// Says that rows will not be asked for again.
    pub(crate) fn forget(&self, rows: &[u64]) {
        let Source::Model { held, .. } = &self.source else { return };
        let mut all = lock(held);
        for row in rows {
            let i = window_of(self.windows, *row);
            if let Some(held) = all.get_mut(&i) {
                held.left = held.left.saturating_sub(1);
                if held.left == 0 {
                    all.remove(&i);
                }
            }
        }
    }

    /// The rows `first..first + n` of a site, which will not be asked for again.
    ///
    /// # Errors
    /// The model's.
    pub fn range(&self, site: usize, first: u64, n: usize) -> Result<Vec<f32>> {
        let (rows, d): (Vec<u64>, usize) = ((first..first + n as u64).collect(), self.widths[site]);
        let mut out = vec![0f32; n * d];
        self.gather(site, &rows, (d, 0), &mut out)?;
        self.forget(&rows);
        Ok(out)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
