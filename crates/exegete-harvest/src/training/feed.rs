//! Batches: rows in a random order, and what jobs read and write at them.

use std::collections::HashMap;

use exegete_base::Site;
use exegete_base::sampling::pair_hash;
use exegete_base::settings::TrainSettings;
use exegete_model::ModelSpec;
use exegete_sae::train::Side;

use super::Subject;
use super::job::{Job, Sites};
use crate::activations::Activations;
use crate::mixer::Mixer;
use crate::rows::{WindowRows, split};
use crate::{HarvestError, Result};

/// Rows on which the scales of sites are measured, where not all are at hand.
const SAMPLE: usize = 1 << 16;

/// Sites of a job with what is known of them: read together, their values lie behind each other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// Places among the activations' sites.
    pub(super) sites: Vec<usize>,
    /// What each site's values are multiplied by, so that all have the mean length of the first; 1 for the first.
    pub(super) factors: Vec<f32>,
    /// The factor that brings the first to a mean length of the root of its width.
    pub(super) scale: f32,
    /// Mean of the values, each site's times its factor.
    pub(super) mean: Vec<f32>,
}

impl Group {
    /// Number of columns.
    pub(super) fn width(&self) -> usize {
        self.mean.len()
    }

    /// As a trainer wants to know it.
    pub(super) fn side(&self) -> Side<'_> {
        Side { scale: self.scale, mean_D: &self.mean }
    }

    /// The rows' values, times the factors.
    pub(super) fn gather(&self, acts: &Activations, rows: &[u64], out: &mut Vec<f32>) -> Result<()> {
        let columns = self.width();
        out.resize(rows.len() * columns, 0.0);
        let mut at = 0;
        for (site, factor) in self.sites.iter().zip(&self.factors) {
            let d = acts.width(*site);
            acts.gather(*site, rows, (columns, at), out)?;
            if *factor != 1.0 {
                for row in out.chunks_exact_mut(columns) {
                    row[at..at + d].iter_mut().for_each(|x| *x *= factor);
                }
            }
            at += d;
        }
        Ok(())
    }
}

/// What a job reads, and what it writes where that is another.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    pub(super) sites: Sites,
    pub(super) reads: Group,
    pub(super) writes: Option<Group>,
}

impl Ends {
    /// What is reconstructed.
    pub(super) fn target(&self) -> &Group {
        self.writes.as_ref().unwrap_or(&self.reads)
    }
}

/// Feeds jobs with batches.
pub(super) struct Feed<'a> {
    acts: &'a Activations<'a>,
    windows: Vec<&'a WindowRows>,
    seed: u64,
    /// Rows that are mixed; 0 mixes all.
    buffer: usize,
    batch: usize,
    steps_per_epoch: u64,
    mixer: Option<(u64, Mixer)>,
    /// Windows of a step, where whole ones are drawn, and their order in a pass.
    windows_a_step: Option<usize>,
    order: Option<(u64, Vec<&'a WindowRows>)>,
    drawn: Vec<&'a WindowRows>,
    rows: Vec<u64>,
    /// Of each site that was asked for: the factor that brings its rows to a mean length of the root of their width, and
    /// their mean.
    known: HashMap<usize, (f32, Vec<f32>)>,
}

impl<'a> Feed<'a> {
    /// Feeds from the training windows, in batches.
    ///
    /// # Errors
    /// There are fewer rows than a batch.
    pub(super) fn new(acts: &'a Activations<'a>, subject: &Subject<'a>, settings: &TrainSettings) -> Result<Self> {
        let steps_per_epoch = steps_per_epoch(subject.windows, subject.seed, settings)?;
        let windows = split(subject.windows, subject.seed).training;
        let (seed, buffer, batch) = (subject.seed, subject.buffer_tokens, settings.batch);
        Ok(Self {
            acts,
            seed,
            buffer,
            batch,
            steps_per_epoch,
            mixer: None,
            windows_a_step: windows_a_step(&windows, settings),
            windows,
            order: None,
            drawn: Vec::new(),
            rows: Vec::new(),
            known: HashMap::new(),
        })
    }

    /// Steps in a pass.
    pub(super) fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Draws the rows of a step. Steps are asked for in their order, from any on.
    ///
    /// # Errors
    /// The model's, where activations are streamed.
    pub(super) fn draw(&mut self, step: u64) -> Result<()> {
        let (epoch, at) = (step / self.steps_per_epoch, step % self.steps_per_epoch);
        if let Some(each) = self.windows_a_step {
            // Whole windows, in an order of their own each pass.
            if self.order.as_ref().is_none_or(|(now, _)| *now != epoch) {
                let key = |w: &&WindowRows| pair_hash(self.seed, epoch, w.first);
                let mut order = self.windows.clone();
                order.sort_unstable_by_key(|w| (key(w), w.first));
                self.order = Some((epoch, order));
            }
            let Some((_, order)) = &self.order else { return Ok(()) };
            self.drawn = order[at as usize * each..][..each].to_vec();
            self.rows = self.drawn.iter().flat_map(|w| w.rows()).collect();
            return Ok(());
        }
        if self.mixer.as_ref().is_none_or(|(now, _)| *now != epoch) {
            let mut mixer = Mixer::new(&self.windows, self.seed, epoch, self.buffer);
            (0..at).for_each(|_| mixer.draw(self.batch, &mut self.rows));
            self.acts.hold(mixer.held())?;
            self.mixer = Some((epoch, mixer));
        }
        if let Some((_, mixer)) = &mut self.mixer {
            mixer.draw(self.batch, &mut self.rows);
            self.acts.load(mixer.entered())?;
        }
        Ok(())
    }

    /// The rows that were drawn last.
    pub(super) fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// The windows whose rows they are, where whole windows are drawn.
    pub(super) fn drawn(&self) -> &[&'a WindowRows] {
        &self.drawn
    }

    /// The ends of a job.
    ///
    /// # Errors
    /// Sites that the model does not have.
    pub(super) fn ends(&mut self, job: &Job, spec: &ModelSpec) -> Result<Ends> {
        let sites = job.sites(spec)?;
        let reads = self.group(&sites.reads)?;
        let writes = if sites.writes.is_empty() { None } else { Some(self.group(&sites.writes)?) };
        Ok(Ends { sites, reads, writes })
    }

    fn group(&mut self, sites: &[Site]) -> Result<Group> {
        let sites: Vec<usize> = sites.iter().map(|site| self.acts.index(*site)).collect::<Result<_>>()?;
        let (mut factors, mut mean, mut first) = (Vec::new(), Vec::new(), None);
        for site in &sites {
            if !self.known.contains_key(site) {
                let found = self.scale_and_mean(*site)?;
                self.known.insert(*site, found);
            }
            let (scale, of_site) = &self.known[site];
            let factor = scale / *first.get_or_insert(*scale);
            factors.push(factor);
            mean.extend(of_site.iter().map(|m| m * factor));
        }
        Ok(Group { sites, factors, scale: first.unwrap_or(1.0), mean })
    }

    /// The factor that brings a site's rows to a mean length of the root of their width, and their mean: of all training
    /// rows, or of those that a stream begins with. Sums are in f64, in order.
    fn scale_and_mean(&self, site: usize) -> Result<(f32, Vec<f32>)> {
        let d = self.acts.width(site);
        let (mut sum_D, mut sum_norm, mut n) = (vec![0f64; d], 0f64, 0usize);
        let mut all = Vec::new();
        match self.acts.is_streamed() {
            true => Mixer::new(&self.windows, self.seed, 0, SAMPLE).draw(SAMPLE, &mut all),
            false => all.extend(self.windows.iter().flat_map(|w| w.rows())),
        }
        all.sort_unstable();
        let mut x = Vec::new();
        for rows in all.chunks(4096) {
            x.resize(rows.len() * d, 0.0);
            self.acts.gather(site, rows, (d, 0), &mut x)?;
            for row in x.chunks_exact(d) {
                sum_D.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
                sum_norm += row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            }
            n += rows.len();
        }
        if sum_norm == 0.0 {
            return Err(HarvestError::Request(
                "all activations of the site are 0: look at the text and the site".into(),
            ));
        }
        let mean_D: Vec<f32> = sum_D.iter().map(|s| (s / n as f64) as f32).collect();
        Ok((((d as f64).sqrt() / (sum_norm / n as f64)) as f32, mean_D))
    }

    /// Training rows at random, at most `n`: of all, or of those that a stream begins with.
    pub(super) fn sample(&self, n: usize) -> Vec<u64> {
        let buffer = if self.acts.is_streamed() { self.buffer } else { 0 };
        let mut rows = Vec::new();
        Mixer::new(&self.windows, self.seed, u64::MAX, buffer).draw(n, &mut rows);
        rows
    }
}

/// Windows whose rows are about a batch, where the model judges whole ones.
fn windows_a_step(windows: &[&WindowRows], settings: &TrainSettings) -> Option<usize> {
    let longest = windows.iter().map(|w| w.len()).max().unwrap_or(1).max(1);
    settings.reconstruction.is_end_to_end().then(|| (settings.batch / longest).clamp(1, windows.len().max(1)))
}

/// Steps in a pass over the training documents.
///
/// # Errors
/// There are fewer activations than a batch.
pub fn steps_per_epoch(windows: &[WindowRows], seed: u64, settings: &TrainSettings) -> Result<u64> {
    let training = split(windows, seed).training;
    if let Some(each) = windows_a_step(&training, settings) {
        return Ok((training.len() / each) as u64);
    }
    let n_rows: usize = training.iter().map(|w| w.len()).sum();
    match n_rows / settings.batch {
        0 => {
            let detail = format!("{n_rows} activations to train on are fewer than one batch of {}", settings.batch);
            Err(HarvestError::Request(format!("{detail}; give more text or lower --batch")))
        }
        steps => Ok(steps as u64),
    }
}
