//! `exegete model parity`: our run beside another program's, site by site.

use anyhow::{Context, Result, bail};
use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, Hooks, Logits, Model, site_named};
use exegete_tensor::{Tape, f32s};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::args::{Common, Parity};
use crate::open_model;
use crate::printer::Printer;

/// Below this a masked score counts as masked.
const MASKED: f32 = -1e29;

pub(crate) fn run(settings: &Parity, common: &Common, printer: &Printer) -> Result<()> {
    let model = open_model::open(&settings.model, common, printer)?;
    let dump = Dump::open(settings)?;
    let tokens = dump.numbers("tokens")?;
    let [n_rows, len] = tokens.shape[..] else { bail!("tokens in the dump must have two axes, [rows, positions]") };
    let ids: Vec<u32> = tokens.values.iter().map(|x| *x as u32).collect();
    if let Some(id) = ids.iter().find(|id| **id as usize >= model.spec.vocab_size) {
        bail!("the dump has token {id}, but the model's vocabulary has {} rows", model.spec.vocab_size);
    }
    let (sites, unknown) = dump.sites(&model);
    if sites.is_empty() {
        bail!("{} holds no site of this model; a dump has hook_logits at least", settings.dump.display());
    }
    let mut hooks = sites.iter().fold(Hooks::none(), |h, s| h.tap(*s));
    let logits = model.run(&Tape::new(), &Batch::uniform(ids, n_rows), None, &mut hooks, Logits::All)?;
    let logits = logits.context("no logits")?;
    let (mut rows, mut first): (Vec<Value>, Option<String>) = (Vec::new(), None);
    for site in sites {
        let value = hooks.value(site).unwrap_or(&logits);
        let name = site.to_string();
        let theirs = dump.numbers(&name)?;
        let ours = f32s(value.tensor())?;
        let (ours, shape) = last_only(&ours, value.tensor().dims(), &theirs.shape, len);
        if shape != theirs.shape {
            bail!("{name} has shape {:?} in the dump and {shape:?} here", theirs.shape);
        }
        let seen = |x: f32| site.kind != SiteKind::AttnScores || x > MASKED;
        let pairs = ours.iter().zip(&theirs.values).filter(|(_, b)| seen(**b));
        let (mut worst, mut largest) = (0f32, 1f32);
        for (a, b) in pairs {
            worst = if (a - b).is_nan() { f32::INFINITY } else { worst.max((a - b).abs()) };
            largest = largest.max(b.abs());
        }
        let agrees = worst <= settings.tolerance * largest;
        if !agrees && first.is_none() {
            first = Some(name.clone());
        }
        printer.line(format!(
            "{} {name:<36} largest difference {worst:.2e}, allowed {:.2e}, of values up to {largest:.3}",
            if agrees { "ok  " } else { "DIFF" },
            settings.tolerance * largest
        ));
        rows.push(
            json!({"site": name, "difference": worst, "allowed": settings.tolerance * largest, "agrees": agrees}),
        );
    }
    for name in &unknown {
        printer.line(format!("not compared: {name} is no site of this model"));
    }
    printer.json(
        &json!({"sites": rows, "not_compared": unknown, "first_divergence": first, "tolerance": settings.tolerance}),
    );
    match first {
        Some(name) => bail!("{name} is the first of {} sites that diverges", rows.len()),
        None => {
            printer.line(format!("parity: {} sites agree over {n_rows} x {len} tokens", rows.len()));
            Ok(())
        }
    }
}

/// Our values at the last position alone, where that is all that the dump has.
fn last_only(ours: &[f32], dims: &[usize], theirs: &[usize], len: usize) -> (Vec<f32>, Vec<usize>) {
    if theirs.get(1) != Some(&1) || len == 1 || dims.len() != theirs.len() {
        return (ours.to_vec(), dims.to_vec());
    }
    let width: usize = dims[2..].iter().product();
    let last = ours.chunks_exact(len * width).flat_map(|row| row[(len - 1) * width..].iter().copied()).collect();
    (last, theirs.to_vec())
}

/// Numbers of a dump, whole ones as floats.
struct Numbers {
    shape: Vec<usize>,
    values: Vec<f32>,
}

struct Dump {
    path: std::path::PathBuf,
    bytes: Vec<u8>,
}

impl Dump {
    fn open(settings: &Parity) -> Result<Self> {
        let path = settings.dump.clone();
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let this = Self { path, bytes };
        this.file()?;
        Ok(this)
    }

    fn file(&self) -> Result<SafeTensors<'_>> {
        let hint = || format!("{}: not a whole safetensors file; refs/dump.py writes one", self.path.display());
        SafeTensors::deserialize(&self.bytes).with_context(hint)
    }

    fn numbers(&self, name: &str) -> Result<Numbers> {
        let file = self.file()?;
        let view = file.tensor(name).with_context(|| format!("{}: no tensor {name:?}", self.path.display()))?;
        let words = view.data().as_chunks::<4>().0.iter();
        let values = match view.dtype() {
            Dtype::F32 => words.map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I32 => words.map(|b| i32::from_le_bytes(*b) as f32).collect(),
            Dtype::I64 => {
                let words = view.data().as_chunks::<8>().0.iter();
                words.map(|b| i64::from_le_bytes(*b) as f32).collect()
            }
            other => bail!("{}: {name} is {other:?}; a dump holds F32, I32 and I64", self.path.display()),
        };
        Ok(Numbers { shape: view.shape().to_vec(), values })
    }

    /// The model's sites that the dump has, in the order of computation, and its other names but the tokens.
    fn sites(&self, model: &Model) -> (Vec<Site>, Vec<String>) {
        let mut names: Vec<String> =
            self.file().map(|f| f.names().into_iter().map(str::to_owned).collect()).unwrap_or_default();
        names.sort();
        let is_site = |name: &String| site_named(&model.spec, name).is_ok_and(|s| s.to_string() == *name);
        let (known, unknown): (Vec<String>, Vec<String>) =
            names.into_iter().filter(|n| n != "tokens" && !n.contains('/')).partition(is_site);
        let sites = model.spec.sites().into_iter().filter(|s| known.contains(&s.to_string())).collect();
        (sites, unknown)
    }
}
