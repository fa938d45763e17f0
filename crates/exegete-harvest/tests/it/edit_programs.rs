//! Ten thousand random programs of edits on tiny models of every family: generation with a cache equals running the
//! whole text again without one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use exegete_base::{Site, SiteKind};
use exegete_model::edits::{Add, AddAtNorm, CutEdges, ProjectOut, Replace, Scale, ScaleHeads, SetComponent, Vectors};
use exegete_model::{Batch, Edit, Hooks, KvCache, Logits, Model, Positions, Steps};
use exegete_sae::Clamp;
use exegete_tensor::{SiteFn, Tape, f32s};
use exegete_testkit::refs_dir;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

const PROGRAMS: u32 = 10_000;
const THREADS: u32 = 2;
/// The seed of all programs; change it to see others.
const SEED: u64 = 20_261_124;

const CASES: [&str; 14] = [
    "gpt2",
    "gpt_neox",
    "llama3",
    "llama_dynamic",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3_long",
    "olmo2",
    "smollm3",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Replace,
    Add,
    AddAtNorm,
    SetComponent,
    ProjectOut,
    Scale,
    AblateHeads,
    CutEdges,
    Clamp,
}

const KINDS: [Kind; 9] = [
    Kind::Replace,
    Kind::Add,
    Kind::AddAtNorm,
    Kind::SetComponent,
    Kind::ProjectOut,
    Kind::Scale,
    Kind::AblateHeads,
    Kind::CutEdges,
    Kind::Clamp,
];

/// An edit, with everything chosen but what depends on the model.
#[derive(Debug, Clone)]
struct Plan {
    kind: Kind,
    layer: usize,
    site: usize,
    positions: usize,
    rows: usize,
    steps: usize,
    number: usize,
    strength: f32,
}

#[derive(Debug, Clone)]
struct Program {
    case: usize,
    lens: Vec<usize>,
    n_new: usize,
    edits: Vec<Plan>,
}

fn programs() -> impl Strategy<Value = Program> {
    let plan = (0..8usize, 0..16usize, 0..5usize, 0..2usize, 0..4usize, 0..64usize, 0.3f32..1.5);
    let edits = prop::sample::subsequence(KINDS.to_vec(), 2..=4).prop_flat_map(move |kinds| {
        let n = kinds.len();
        prop::collection::vec(plan.clone(), n).prop_map(move |plans| {
            kinds
                .iter()
                .zip(plans)
                .map(|(kind, (layer, site, positions, rows, steps, number, strength))| Plan {
                    kind: *kind,
                    layer,
                    site,
                    positions,
                    rows,
                    steps,
                    number,
                    strength,
                })
                .collect()
        })
    });
    (0..CASES.len(), prop::collection::vec(2..6usize, 1..4), 2..4usize, edits)
        .prop_map(|(case, lens, n_new, edits)| Program { case, lens, n_new, edits })
}

fn wave(n: usize, by: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * (0.31 + by as f32 * 0.017) + by as f32).sin()).collect()
}

impl Plan {
    fn edit(&self, model: &Model, n_rows: usize, len: usize) -> Edit {
        let s = &model.spec;
        let layer = self.layer % s.n_layers;
        let resid = [SiteKind::ResidPre, SiteKind::AttnOut, SiteKind::MlpOut, SiteKind::ResidPost, SiteKind::AttnIn];
        let inner = [SiteKind::AttnQ, SiteKind::AttnK, SiteKind::AttnV, SiteKind::AttnZ];
        let residual = Site::at(resid[self.site % resid.len()], layer);
        let any = if self.site.is_multiple_of(3) { Site::at(inner[self.site % inner.len()], layer) } else { residual };
        let vector = |site: Site| Vectors::One(wave(s.site_width(site, 0), self.number));
        let direction = |site: Site| wave(s.site_width(site, 0), self.number);
        let (site, f): (Site, Arc<dyn SiteFn>) = match self.kind {
            Kind::Replace => (residual, Arc::new(Replace(vector(residual)))),
            Kind::Add => (any, Arc::new(Add { vectors: vector(any), scale: self.strength })),
            Kind::AddAtNorm => (any, Arc::new(AddAtNorm { vectors: vector(any), scale: self.strength })),
            Kind::SetComponent => (any, Arc::new(SetComponent::new(&direction(any), 2.0 * self.strength))),
            Kind::ProjectOut => (any, Arc::new(ProjectOut::new(&direction(any)))),
            Kind::Scale => (any, Arc::new(Scale(1.0 - self.strength))),
            Kind::AblateHeads => {
                let heads = vec![self.number % s.n_heads];
                let f = ScaleHeads { heads, width: s.d_head, factor: 0.0 };
                (Site::at(SiteKind::AttnZ, layer), Arc::new(f))
            }
            Kind::CutEdges => {
                let heads = (!self.number.is_multiple_of(3)).then(|| vec![self.number % s.n_heads]);
                let keys = vec![self.number % len, (self.number / 7) % len];
                (Site::at(SiteKind::AttnScores, layer), Arc::new(CutEdges { heads, n_heads: s.n_heads, keys }))
            }
            Kind::Clamp => {
                let latents = vec![(self.number % (2 * s.d_model), 3.0 * self.strength)];
                let f = Clamp::new(crate::clamp::dictionary(s.d_model), latents, s.d_model).unwrap();
                (residual, Arc::new(f))
            }
        };
        let positions = match self.positions {
            0 => Positions::All,
            1 => Positions::At((0..len).filter(|p| (p + self.number) % 3 < 2).collect()),
            2 => Positions::FromEnd(vec![1, 2 + self.number % 2]),
            3 => Positions::Tokens((0..61).filter(|id| (id + self.number as u32) % 3 < 2).collect()),
            _ => Positions::Where({
                let odd = self.number;
                Arc::new(move |spot| (spot.position + odd).is_multiple_of(2) || spot.id % 2 == 1)
            }),
        };
        let steps = match self.steps {
            0 => Steps::All,
            1 => Steps::Prompt,
            2 => Steps::New,
            _ => Steps::At(vec![0, 2]),
        };
        let rows = (self.rows == 1).then(|| (0..n_rows).filter(|r| n_rows == 1 || r % 2 == self.number % 2).collect());
        Edit { rows, ..Edit { steps, ..Edit::everywhere(site, f).at(positions) } }
    }

    /// What was chosen, to be counted: the kind with each of its scopes.
    fn scopes(&self) -> [(Kind, String); 4] {
        let positions = ["all positions", "absolute positions", "from the end", "by token", "by predicate"];
        let steps = ["all steps", "the prompt", "new tokens", "some steps"];
        [
            (self.kind, positions[self.positions].into()),
            (self.kind, ["all rows", "some rows"][self.rows].into()),
            (self.kind, steps[self.steps].into()),
            (self.kind, format!("layer {}", self.layer % 2)),
        ]
    }
}

/// Whether the program changed the logits, or how cached and recomputed ones differ.
fn run(models: &[Model], program: &Program) -> Result<bool, String> {
    let model = &models[program.case];
    let prompts: Vec<Vec<u32>> = program
        .lens
        .iter()
        .enumerate()
        .map(|(row, n)| (0..*n).map(|i| ((i * 17 + row * 29 + program.edits[0].number) % 56 + 5) as u32).collect())
        .collect();
    let n_rows = prompts.len();
    let longest = program.lens.iter().max().unwrap() + program.n_new;
    let hooks = || {
        let edits = program.edits.iter().map(|p| p.edit(model, n_rows, longest));
        edits.fold(Hooks::none(), Hooks::edit)
    };
    let mut cache = KvCache::new(&model.spec, n_rows, longest).unwrap();
    let (mut texts, mut step) = (prompts.clone(), Batch::rows(&prompts));
    let mut changed = false;
    for i in 0..program.n_new {
        step.prompts_B = program.lens.clone();
        let cached = model.run(&Tape::new(), &step, Some(&mut cache), &mut hooks(), Logits::Last).unwrap().unwrap();
        let cached = f32s(cached.tensor()).unwrap();
        let whole = Batch { prompts_B: program.lens.clone(), context: Some(longest), ..Batch::rows(&texts) };
        let again = |hooks: &mut Hooks| {
            let out = model.run(&Tape::new(), &whole, None, hooks, Logits::Last).unwrap().unwrap();
            f32s(out.tensor()).unwrap().to_vec()
        };
        let recomputed = again(&mut hooks());
        let largest = recomputed.iter().fold(1f32, |m, x| m.max(x.abs()));
        let worst = cached
            .iter()
            .zip(&recomputed)
            .map(|(a, b)| (a - b).abs())
            .fold(0f32, |m, d| if d.is_nan() { f32::NAN } else { m.max(d) });
        if worst.is_nan() || worst > 1e-5 * largest {
            return Err(format!("step {i}: cached and recomputed logits differ by {worst:e} of {largest}"));
        }
        changed |= i + 1 == program.n_new && recomputed != again(&mut Hooks::none());
        let v = model.spec.vocab_size;
        let best = |row: &[f32]| (0..v).fold(0, |b, i| if row[i] > row[b] { i } else { b }) as u32;
        let next: Vec<u32> = cached.chunks(v).map(best).collect();
        texts.iter_mut().zip(&next).for_each(|(text, id)| text.push(*id));
        step = Batch::uniform(next, n_rows);
    }
    Ok(changed)
}

#[test]
fn ten_thousand_programs_of_edits_with_a_cache_equal_recomputation() {
    let counts: Mutex<BTreeMap<(Kind, String), usize>> = Mutex::default();
    let changed = Mutex::new(0u32);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (counts, changed) = (&counts, &changed);
            scope.spawn(move || {
                let models: Vec<Model> =
                    CASES.iter().map(|case| Model::open(&refs_dir().join("families").join(case)).unwrap()).collect();
                let config = Config {
                    cases: PROGRAMS / THREADS,
                    failure_persistence: None,
                    max_shrink_iters: 200,
                    ..Config::default()
                };
                let mut seed = [0u8; 32];
                seed[..8].copy_from_slice(&(SEED + u64::from(thread)).to_le_bytes());
                let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
                let result = TestRunner::new_with_rng(config, rng).run(&programs(), |program| {
                    let differs = run(&models, &program).map_err(TestCaseError::fail)?;
                    *changed.lock().unwrap() += u32::from(differs);
                    let mut counts = counts.lock().unwrap();
                    for scope in program.edits.iter().flat_map(Plan::scopes) {
                        *counts.entry(scope).or_default() += 1;
                    }
                    Ok(())
                });
                if let Err(error) = result {
                    match error {
                        TestError::Fail(why, program) => panic!("seed {SEED}: {why}\n{program:#?}"),
                        TestError::Abort(why) => panic!("seed {SEED}: {why}"),
                    }
                }
            });
        }
    });
    let (counts, changed) = (counts.into_inner().unwrap(), changed.into_inner().unwrap());
    let share = f64::from(changed) / f64::from(PROGRAMS);
    let rarest = counts.iter().min_by_key(|(_, n)| **n).unwrap();
    eprintln!("seed {SEED}: {PROGRAMS} programs, {share:.3} change the logits; rarest {rarest:?} of {}", counts.len());
    assert_eq!(counts.len(), KINDS.len() * 13, "a kind or a scope never came up");
    assert!(*rarest.1 >= 100, "{rarest:?}");
    assert!(share >= 0.95, "only {share} of the programs change the logits");
}
