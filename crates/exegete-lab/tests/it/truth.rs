//! The truth report, on features whose truth is made up here.

use exegete_lab::language::Language;
use exegete_lab::organism::{OrganismSettings, Trainer};
use exegete_lab::truth::{Half, LabelledTokens, Source, TruthSettings, match_concepts, report};
use exegete_model::Residence;

/// Features with given firings.
struct Planted(Vec<Vec<(u32, f32)>>);

impl Source for Planted {
    fn n(&self) -> usize {
        self.0.len()
    }

    fn each(&self, wanted: &[usize], f: &mut dyn FnMut(&[usize], &[Vec<(u32, f32)>])) {
        for some in wanted.chunks(3) {
            f(some, &some.iter().map(|i| self.0[*i].clone()).collect::<Vec<_>>());
        }
    }
}

fn tokens(language: &Language) -> LabelledTokens {
    let dir = tempfile::tempdir().unwrap();
    let settings = OrganismSettings {
        layers: 1,
        width: 16,
        heads: 1,
        neurons: 16,
        vocabulary: 1500,
        ..OrganismSettings::default()
    };
    let trainer = Trainer::open(dir.path(), &settings, 2, Residence::F32, None).unwrap();
    LabelledTokens::new(language, trainer.model().tokenizer().unwrap(), 8, 8000, 512).unwrap()
}

fn hash(a: usize, b: usize) -> f32 {
    exegete_base::sampling::pair_hash(3, a as u64, b as u64) as u32 as f32 / u32::MAX as f32
}

#[test]
fn planted_features_are_found_and_controls_are_not() {
    let language = Language::new();
    let tokens = tokens(&language);
    let concepts = language.concepts();
    let id = |name: &str| concepts.find(name).unwrap();
    let has = |t: usize, c: u32| tokens.of(t).contains(&c);
    let all = 0..tokens.n_tokens();
    assert!(tokens.half(Half::Choose).len() >= 8000 && tokens.half(Half::Score).len() >= 8000);
    let fires = |f: &dyn Fn(usize) -> f32| all.clone().map(|t| (t as u32, f(t))).filter(|(_, v)| *v > 0.0).collect();
    let (lumi, question, past) = (id("language:lumi"), id("phrase:question"), id("form:past"));
    let planted = Planted(vec![
        // One feature that is weakly on everywhere and strongly on its concept.
        fires(&|t| if has(t, lumi) { 2.0 + hash(t, 1) } else { hash(t, 2) }),
        // A concept in two halves.
        fires(&|t| f32::from(u8::from(has(t, question) && t % 2 == 0))),
        fires(&|t| f32::from(u8::from(has(t, question) && t % 2 == 1))),
        fires(&|t| hash(t, 3)),
        // Four firings in five.
        fires(&|t| f32::from(u8::from(has(t, past) && hash(t, 4) < 0.8))),
    ]);
    let noise = Planted((0..5).map(|i| fires(&|t| hash(t, 10 + i))).collect());
    let n = concepts.all().len();
    let settings = TruthSettings { truth_tokens: 8000, least_tokens: 20, resamplings: 100 };
    let [own, none] = [&planted, &noise].map(|source| match_concepts(source, &tokens, n, 20));
    let truth = report(&[("own", 5, own), ("noise", 5, none)], &tokens, concepts, &settings, 1);
    let of = |name: &str| truth.by_concept.iter().find(|c| c.concept == name).unwrap();
    let found = of("language:lumi");
    assert!(
        found.f1.value > 0.99 && found.latent == Some(0) && found.auroc.value > 0.999 && found.split == 1,
        "{found:?}"
    );
    let halved = of("phrase:question");
    assert!((halved.f1.value - 2.0 / 3.0).abs() < 0.05 && halved.split == 2, "{halved:?}");
    let partial = of("form:past");
    assert!((partial.recall - 0.8).abs() < 0.07 && partial.precision > 0.999, "{partial:?}");
    assert!(partial.f1.low < partial.f1.value && partial.f1.value < partial.f1.high, "{partial:?}");
    assert!((partial.auroc.value - 0.9).abs() < 0.04, "{partial:?}");
    // Four in five of n independent tokens, each of which moves the area by half of its share.
    let width = 1.96 * 0.5 * (0.8 * 0.2 / partial.tokens as f64).sqrt();
    let found = (partial.auroc.high - partial.auroc.low) / 2.0;
    assert!((0.6..1.6).contains(&(found / width)), "{found} against {width}");
    assert_eq!(truth.counts[0].by, truth.counts[0].recovered, "each concept has a feature of its own");
    assert_eq!(truth.counts[1].by, 0);
    assert!(truth.counts[0].recovered >= 2 && truth.counts[0].difference.is_none());
    assert_eq!(truth.counts[1].recovered, 0, "noise recovers nothing");
    let difference = truth.counts[1].difference.unwrap();
    assert!(difference.low > 0.0 && difference.value == truth.counts[0].recovered as f64, "{difference:?}");
    assert!(truth.not_surpassed().is_empty());
    assert_eq!(truth.concepts as usize + truth.not_measured.len(), n);
    assert_eq!(truth.missing.len() as u64 + truth.counts[0].recovered, truth.concepts);
    assert!(truth.missing[0].f1 >= truth.missing[1].f1);
}

#[test]
fn scores_are_read_where_latents_were_not_chosen() {
    let language = Language::new();
    let tokens = tokens(&language);
    let end = tokens.half(Half::Choose).end;
    // Perfect where it is chosen, noise where it is scored.
    let cheat = |concept: u32| -> Vec<(u32, f32)> {
        let on = |t: usize| if t < end { tokens.of(t).contains(&concept) } else { hash(t, 5) < 0.01 };
        (0..tokens.n_tokens()).filter(|t| on(*t)).map(|t| (t as u32, 1.0)).collect()
    };
    let concept = language.concepts().find("form:plural").unwrap();
    let n = language.concepts().all().len();
    let matched = match_concepts(&Planted(vec![cheat(concept)]), &tokens, n, 20);
    assert!(matched[concept as usize].best[0].chosen_f1 > 0.999);
    let settings = TruthSettings { resamplings: 20, ..TruthSettings::default() };
    let truth = report(&[("cheat", 1, matched)], &tokens, language.concepts(), &settings, 1);
    let found = truth.by_concept.iter().find(|c| c.concept == "form:plural").unwrap();
    assert!(found.f1.value < 0.1, "{found:?}");
    // So it recovers no more than another that recovers nothing.
    let twice =
        ["cheat", "again"].map(|name| (name, 1, match_concepts(&Planted(vec![cheat(concept)]), &tokens, n, 20)));
    let truth = report(&twice, &tokens, language.concepts(), &settings, 1);
    assert_eq!(truth.not_surpassed().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["again"]);
}

#[test]
fn a_part_that_its_whole_leaves_out_is_absorbed() {
    let language = Language::new();
    let tokens = tokens(&language);
    let concepts = language.concepts();
    let id = |name: &str| concepts.find(name).unwrap();
    let counts = tokens.counts(Half::Score, concepts.all().len());
    let chosen = tokens.counts(Half::Choose, concepts.all().len());
    // The commonest kind of food.
    let (food, kind) = (id("group:food"), ["kind:fruit", "kind:vegetable", "kind:dish"].map(id));
    let part = kind.into_iter().max_by_key(|k| counts[*k as usize].min(chosen[*k as usize])).unwrap();
    let has = |t: usize, c: u32| tokens.of(t).contains(&c);
    let fires = |f: &dyn Fn(usize) -> bool| (0..tokens.n_tokens()).filter(|t| f(*t)).map(|t| (t as u32, 1.0)).collect();
    let source = Planted(vec![fires(&|t| has(t, food) && !has(t, part)), fires(&|t| has(t, part))]);
    let matched = match_concepts(&source, &tokens, concepts.all().len(), 20);
    let settings = TruthSettings { resamplings: 20, ..TruthSettings::default() };
    let truth = report(&[("own", 2, matched)], &tokens, concepts, &settings, 1);
    let names: Vec<(&str, &str)> = truth.absorbed.iter().map(|a| (a.concept.as_str(), a.parent.as_str())).collect();
    let absorbed = (concepts.all()[part as usize].name.as_str(), "group:food");
    assert!(names.contains(&absorbed), "{names:?}");
    // Where there is no latent of the whole, the best one is that of a part, and other parts are not left out by it.
    let other = kind.into_iter().find(|k| *k != part).unwrap();
    let parts = [part, other].map(|p| fires(&|t| has(t, p)));
    let matched = match_concepts(&Planted(parts.into()), &tokens, concepts.all().len(), 20);
    let truth = report(&[("own", 2, matched)], &tokens, concepts, &settings, 1);
    assert!(truth.absorbed.iter().all(|a| a.parent != "group:food"), "{:?}", truth.absorbed);
    // A part that has a latent of its own takes nothing from a whole that fires there too.
    let source = Planted(vec![fires(&|t| has(t, food)), fires(&|t| has(t, part))]);
    let matched = match_concepts(&source, &tokens, concepts.all().len(), 20);
    let truth = report(&[("own", 2, matched)], &tokens, concepts, &settings, 1);
    assert!(
        !truth.absorbed.iter().any(|a| (a.concept.as_str(), a.parent.as_str()) == absorbed),
        "{:?}",
        truth.absorbed
    );
}

#[test]
fn concepts_that_share_a_latent_are_counted_by_it() {
    let language = Language::new();
    let tokens = tokens(&language);
    let concepts = language.concepts();
    let n = concepts.all().len();
    let with = |c: usize, half: Half| tokens.half(half).filter(|t| tokens.of(*t).contains(&(c as u32))).count() as f64;
    // A concept whose tokens are nearly all that the one above it has: precision alone is lost, and little of it.
    let is_most =
        |c: usize, parent: usize, half: Half| with(c, half) >= 10.0 && with(c, half) > 0.8 * with(parent, half);
    let pair = |c: usize| Some((c, concepts.all()[c].parent? as usize));
    let both = |(c, parent): &(usize, usize)| is_most(*c, *parent, Half::Choose) && is_most(*c, *parent, Half::Score);
    let (_, parent) = (0..n).filter_map(pair).find(both).unwrap();
    let fires: Vec<(u32, f32)> =
        (0..tokens.n_tokens()).filter(|t| tokens.of(*t).contains(&(parent as u32))).map(|t| (t as u32, 1.0)).collect();
    let matched = match_concepts(&Planted(vec![fires]), &tokens, n, 10);
    let settings = TruthSettings { least_tokens: 10, resamplings: 20, ..TruthSettings::default() };
    let truth = report(&[("own", 1, matched)], &tokens, concepts, &settings, 1);
    assert!(truth.counts[0].recovered >= 2 && truth.counts[0].by == 1, "{:?}", truth.counts[0]);
}
