//! A run with its model and dictionary, and a judge: what `explain` and `score` begin with.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use exegete_base::settings::TextSettings;
use exegete_explain::examples::{Against, Source};
use exegete_explain::judge::Judge;
use exegete_explain::judge::local::{Arrangement, LocalJudge};
use exegete_explain::judge::memory::Memory;
use exegete_explain::judge::server::{ServerJudge, ServerSettings};
use exegete_explain::pool::Pool;
use exegete_explain::subject::Subject;
use exegete_harvest::windows;
use exegete_model::{Model, site_named};
use exegete_sae::{Dictionary, Sae};
use exegete_store::harvested::{self, Harvested, LATENTS};
use exegete_store::{ExampleReader, LatentRow, Run, TokenReader, read_latents};

use crate::args::Common;
use crate::args_explain::{AgainstArg, ArrangementArg, ExcerptArgs, JudgeArgs, Of};
use crate::printer::Printer;
use crate::{open_model, run_dictionary};

/// A run, opened to write, with what it was made of.
pub(crate) struct Opened {
    pub(crate) run: Run,
    pub(crate) of: Harvested,
    pub(crate) model: Model,
    /// What the model was opened by.
    pub(crate) model_path: String,
    pub(crate) dictionary: Arc<Sae>,
}

impl Opened {
    /// Opens a run, its model and its dictionary's weights.
    ///
    /// # Errors
    /// A run that another writes, that names no model, files that are gone or damaged.
    pub(crate) fn new(of: &Of, common: &Common, printer: &Printer) -> Result<Self> {
        let run = Run::open_to_write(&of.run)?;
        let recorded = run.manifest().settings["model"].as_str().map(str::to_owned);
        let model_path = of.model.clone().or(recorded).context("the run names no model; give --model")?;
        let of = harvested::dictionary(&run, of.dictionary.as_deref())?;
        let dictionary = Arc::new(run_dictionary::weights(&run, &of, printer)?);
        let model = open_model::open_plain(&model_path, common, printer)?;
        Ok(Self { run, of, model, model_path, dictionary })
    }

    /// Checks that latents exist.
    ///
    /// # Errors
    /// One that does not.
    pub(crate) fn check(&self, latents: &[u32]) -> Result<()> {
        match latents.iter().find(|l| **l as usize >= self.dictionary.n_latents()) {
            Some(latent) => {
                bail!(
                    "latent {latent} does not exist; the dictionary has latents 0..={}",
                    self.dictionary.n_latents() - 1
                )
            }
            None => Ok(()),
        }
    }

    /// The model and the dictionary as what explanations are about.
    ///
    /// # Errors
    /// A run that does not say which site its dictionary reads, a model that lacks it.
    pub(crate) fn subject(&self) -> Result<Subject<'_>> {
        let site = site_named(&self.model.spec, &run_dictionary::site(&self.run, &self.of)?)?;
        let width = self.model.spec.site_width(site, 0);
        if self.dictionary.d_in() != width {
            let d = self.dictionary.d_in();
            bail!(
                "--model: the dictionary reads {d} values, and {site} of this model has {width}; give the run's own model"
            );
        }
        let windows = self.run.manifest().settings.get("windows");
        let text = windows.map_or_else(|| Ok(TextSettings::default()), |w| serde_json::from_value(w.clone()))?;
        let (bos, _) = windows::bos_and_room(&self.model, &text)?;
        Ok(Subject { model: &self.model, dictionary: self.dictionary.clone(), site, bos })
    }

    /// What a run knows of its latents.
    ///
    /// # Errors
    /// Damaged parts.
    pub(crate) fn rows(&self) -> Result<Vec<LatentRow>> {
        Ok(read_latents(&self.run.path(&self.of.part(LATENTS)))?)
    }

    /// The name of the model's file, as scores keep it.
    fn model_name(path: &str) -> String {
        let name =
            Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned());
        name.strip_suffix(".gguf").map_or(name.clone(), str::to_owned)
    }
}

/// The texts of a run, and what is kept of them.
pub(crate) struct Texts {
    tokens: TokenReader,
    examples: ExampleReader,
    pub(crate) pool: Pool,
}

impl Texts {
    /// Opens the run's tokens and examples, and computes the codes of some of its windows.
    ///
    /// # Errors
    /// Damaged parts, the model's.
    pub(crate) fn new(opened: &Opened, subject: &Subject, args: &ExcerptArgs, seed: u64) -> Result<Self> {
        if args.excerpt_tokens < 4 {
            bail!("--excerpt-tokens must be at least 4");
        }
        let tokens = TokenReader::open(&opened.run.parts_under("tokens/part-"))?;
        let examples = ExampleReader::open(&opened.run.parts_under(&opened.of.part("examples/part-")))?;
        let pool = Pool::draw(subject, &tokens, args.pool_tokens, seed)?;
        Ok(Self { tokens, examples, pool })
    }

    /// Where excerpts come from.
    pub(crate) fn source(&self, subject: &Subject, args: &ExcerptArgs, seed: u64) -> Source<'_> {
        let n_bos = usize::from(subject.bos.is_some());
        let (tokens, examples, pool) = (&self.tokens, &self.examples, &self.pool);
        Source { tokens, examples, pool, len: args.excerpt_tokens, n_bos, seed }
    }
}

/// A local model to judge by, where it is another than the run's.
pub(crate) fn other_model(
    args: &JudgeArgs,
    opened: &Opened,
    common: &Common,
    printer: &Printer,
) -> Result<Option<Model>> {
    match &args.judge {
        Some(judge) if !is_address(judge) && *judge != opened.model_path => {
            Ok(Some(open_model::open_plain(judge, common, printer).context("--judge")?))
        }
        _ => Ok(None),
    }
}

/// Whether a judge is a server.
pub(crate) fn is_address(judge: &str) -> bool {
    judge.contains("://")
}

/// The judge that was asked for; `dry` sends nothing.
///
/// # Errors
/// An address that is none, prices that are no numbers, a model that cannot judge.
pub(crate) fn judge<'m>(
    args: &JudgeArgs,
    opened: &'m Opened,
    other: Option<&'m Model>,
    dry: bool,
) -> Result<Box<dyn Judge + 'm>> {
    let asked = args.judge.as_deref().unwrap_or(&opened.model_path);
    if !is_address(asked) {
        let arrangement = match args.judge_arrangement {
            ArrangementArg::Shared => Arrangement::Shared,
            ArrangementArg::Apart => Arrangement::Apart,
            ArrangementArg::Naive => Arrangement::Naive,
        };
        let local = LocalJudge::new(other.unwrap_or(&opened.model), Opened::model_name(asked))?;
        return Ok(Box::new(local.arranged(arrangement)));
    }
    let prices =
        args.judge_prices.split_once(',').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    let prices: (f64, f64) = prices.context("--judge-prices wants two numbers, as 0.15,0.60")?;
    if args.judge_money > 0.0 && prices == (0.0, 0.0) {
        bail!("--judge-money needs --judge-prices: without them nothing is known to cost anything");
    }
    let settings = ServerSettings {
        url: asked.to_owned(),
        model: args.judge_model.clone(),
        key: std::env::var(&args.judge_key).ok().filter(|key| !key.is_empty()),
        at_once: args.judge_at_once.clamp(1, 256),
        a_minute: args.judge_a_minute,
        retries: args.judge_retries,
        timeout_secs: args.judge_timeout,
        examples_a_prompt: args.judge_examples,
        most_tokens: args.judge_tokens,
        most_money: args.judge_money,
        prices,
    };
    let memory = args.judge_memory.clone().unwrap_or_else(|| opened.run.path("judge"));
    let server = ServerJudge::new(settings, Some(Memory::new(memory)))?;
    Ok(Box::new(if dry { server.dry() } else { server }))
}

/// The comparison that a flag names.
pub(crate) fn against(arg: AgainstArg) -> Against {
    match arg {
        AgainstArg::Random => Against::Random,
        AgainstArg::CoFiring => Against::Cofiring,
        AgainstArg::Decoder => Against::Decoder,
        AgainstArg::SameToken => Against::SameToken,
    }
}
