//! The output side on stories260K, with a dictionary whose decoder rows are directions of the unembedding.

use std::cell::Cell;
use std::sync::Arc;

use exegete_base::stats::Estimate;
use exegete_base::{LatentId, Site, SiteKind};
use exegete_explain::amplify::{Amplifier, Reached, TOLERANCE};
use exegete_explain::completions::{Completions, SHOWN};
use exegete_explain::explainers::{self, EXPLAINERS, Given};
use exegete_explain::judge::local::LocalJudge;
use exegete_explain::judge::{Cost, Judge, Verdict, Writing};
use exegete_explain::question::Question;
use exegete_explain::scorers::{self, Outcome, Task};
use exegete_explain::subject::Subject;
use exegete_explain::{ExplainError, Result};
use exegete_model::{Batch, Bos, Edit, Hooks, Logits, Model, Positions};
use exegete_sae::kinds::{Relu, Rule};
use exegete_sae::{Clamp, Sae};
use exegete_store::LatentRow;
use exegete_store::SHUFFLED;
use exegete_tensor::cpu::loss::log_sum_exp;
use exegete_tensor::{Tape, f32s};

/// Words whose unembedding directions are planted, one a latent.
const PLANTED: [&str; 8] = ["happy", "friend", "play", "big", "mom", "named", "little", "Timmy"];

macro_rules! stories {
    () => {
        match exegete_testkit::data_dir() {
            Some(dir) => Model::open(&dir.join("models/stories260K/stories260K.bin")).unwrap(),
            None => return exegete_testkit::not_run("EXEGETE_DATA is not set: stories260K is not here"),
        }
    };
}

/// A word's only token.
fn token(model: &Model, word: &str) -> u32 {
    let ids = model.tokenizer().unwrap().encode_text(word).unwrap();
    assert_eq!(ids.len(), 1, "{word}");
    ids[0]
}

/// A dictionary that never fires of itself, whose rows are the planted tokens' rows of the unembedding, less what they share with the
/// tokens that are likely anyway and with all others: in so narrow a stream these would become likelier with them.
fn planted(model: &Model, tokens: &[u32]) -> Sae {
    let (d, v, f) = (model.spec.d_model, model.spec.vocab_size, tokens.len());
    let gain = f32s(model.weights.norm_final.gain.tensor()).unwrap();
    let story = "Once upon a time there was a little girl. She liked to play with her friend. They were happy. One day";
    let ids = model.tokenizer().unwrap().encode_text(story).unwrap();
    let run = model.run(&Tape::new(), &Batch::one(&ids), None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
    let mut p = vec![0.5 / v as f64; v];
    for row in f32s(run.tensor()).unwrap().chunks_exact(v) {
        let total = log_sum_exp(row);
        p.iter_mut().zip(row).for_each(|(p, x)| *p += 0.5 * f64::from(x - total).exp() / ids.len() as f64);
    }
    let of = |id: usize| {
        let mut row = vec![0f32; d];
        model.weights.unembed.w.row(id, &mut row);
        row.iter().zip(gain.iter()).map(|(x, g)| f64::from(x * g)).collect::<Vec<f64>>()
    };
    let rows: Vec<Vec<f64>> = (0..v).map(of).collect();
    let mean: Vec<f64> = (0..d).map(|i| rows.iter().zip(&p).map(|(row, p)| row[i] * p).sum()).collect();
    let rows: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().zip(&mean).map(|(x, m)| x - m).collect()).collect();
    let mut covariance = vec![vec![0f64; d]; d];
    for (row, p) in rows.iter().zip(&p) {
        for i in 0..d {
            (0..d).for_each(|j| covariance[i][j] += p * row[i] * row[j]);
        }
    }
    (0..d).for_each(|i| covariance[i][i] += 1e-3);
    let mut w_dec_FD = Vec::with_capacity(f * d);
    for id in tokens {
        let row = solved(covariance.clone(), rows[*id as usize].clone());
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        w_dec_FD.extend(row.iter().map(|x| (x / norm) as f32));
    }
    Sae { w_dec_FD, ..Sae::zeros(d, d, f, Rule::Relu(Relu)) }
}

/// `A x = b` by elimination; `A` is positive definite.
fn solved(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        for j in i + 1..n {
            let by = a[j][i] / a[i][i];
            (i..n).for_each(|k| a[j][k] -= by * a[i][k]);
            b[j] -= by * b[i];
        }
    }
    for i in (0..n).rev() {
        b[i] = (b[i] - (i + 1..n).map(|k| a[i][k] * b[k]).sum::<f64>()) / a[i][i];
    }
    b
}

fn subject(model: &Model, dictionary: Sae) -> Subject<'_> {
    let site = Site::at(SiteKind::ResidPost, model.spec.n_layers - 1);
    let bos = model.tokenizer().unwrap().bos(Bos::Auto).unwrap();
    Subject { model, dictionary: Arc::new(dictionary), site, bos }
}

fn tokens(model: &Model) -> Vec<u32> {
    PLANTED.iter().map(|word| token(model, word)).collect()
}

/// The divergence behind the published prompts, computed one prompt after the other.
fn divergence(subject: &Subject, latent: usize, value: f32) -> f64 {
    let prompts = ["The explanation is simple:", "I think", "We"];
    let logs = |ids: &[u32], mut hooks: Hooks| -> Vec<f64> {
        let run = subject.model.run(&Tape::new(), &Batch::one(ids), None, &mut hooks, Logits::Last);
        let logits = run.unwrap().unwrap();
        let logits = f32s(logits.tensor()).unwrap();
        logits.iter().map(|x| f64::from(x - log_sum_exp(&logits))).collect()
    };
    let of = |prompt: &&str| {
        let ids = subject.tokens(prompt).unwrap();
        let clamp = Clamp::new(subject.dictionary.clone(), vec![(latent, value)], subject.model.spec.d_model).unwrap();
        let edit = Edit::everywhere(subject.site, Arc::new(clamp)).at(Positions::At((1..ids.len()).collect()));
        let (steered, clean) = (logs(&ids, Hooks::none().edit(edit)), logs(&ids, Hooks::none()));
        steered.iter().zip(clean).map(|(s, c)| s.exp() * (s - c)).sum::<f64>()
    };
    prompts.iter().map(of).sum::<f64>() / prompts.len() as f64
}

#[test]
fn a_value_that_is_found_moves_the_model_as_far_as_asked() {
    let model = stories!();
    let subject = subject(&model, planted(&model, &tokens(&model)));
    let amplifier = Amplifier::new(&subject);
    for latent in 0..3 {
        let reached = amplifier.reach(latent, &[0.25, 0.5, -0.25, -0.5]).unwrap();
        for Reached { target, value, kl } in &reached {
            let want = divergence(&subject, latent as usize, *value);
            assert!((kl - want).abs() < 1e-4, "{kl}, one prompt after the other {want}");
            assert_eq!(value.signum(), target.signum() as f32);
        }
        for hit in &reached[..2] {
            assert!(hit.is_hit() && (hit.kl - hit.target).abs() <= TOLERANCE, "{reached:?}");
        }
        assert!(reached[0].value < reached[1].value, "{reached:?}");
    }
}

#[test]
fn what_cannot_be_reached_or_clamped_is_said() {
    let model = stories!();
    let mut nothing = planted(&model, &tokens(&model));
    nothing.w_dec_FD[..model.spec.d_model].fill(0.0);
    let idle = subject(&model, nothing.clone());
    let amplifier = Amplifier::new(&idle);
    let reached = amplifier.reach(0, &[0.25]).unwrap();
    assert!(!reached[0].is_hit() && reached[0].kl.abs() < 1e-6 && reached[0].value == 1000.0, "{reached:?}");
    let error = amplifier.change(0).unwrap_err();
    assert!(matches!(error, ExplainError::Request(_)) && error.to_string().contains("0.25 is asked for"), "{error}");
    let outcomes = scored(&idle, "output", 0, &says(&[], |_, _| Some(0)));
    assert!(outcomes.iter().all(|o| o.value.value.is_nan() && o.measures["why"].is_string()), "{outcomes:?}");

    let transcoder = subject(&model, Sae { transcodes: true, ..nothing });
    let error = Amplifier::new(&transcoder).reach(1, &[0.25]).unwrap_err();
    assert!(matches!(error, ExplainError::Request(_)) && error.to_string().contains("transcoder"), "{error}");
}

#[test]
fn the_token_that_is_planted_changes_most() {
    let model = stories!();
    let ids = tokens(&model);
    let subject = subject(&model, planted(&model, &ids));
    let amplifier = Amplifier::new(&subject);
    for (latent, id) in ids.iter().enumerate() {
        let change = amplifier.change(latent as u32).unwrap();
        assert!(change.at.is_hit());
        assert_eq!(change.promoted[0].0, *id, "{:?}", change.promoted);
        assert!(change.suppressed.iter().all(|(_, by)| *by < 0.0) && !change.suppressed.is_empty());
    }
    // The judge is shown the words as those of a decoder row.
    let explainer = EXPLAINERS.iter().find(|e| e.name == "token-change").unwrap();
    let row = LatentRow::new(LatentId(0), exegete_store::LatentStats::default(), 1);
    let given = Given { row: &row, firing: &[], silent: &[], amplifier: &amplifier };
    let judge = says(&[], |_, _| None);
    let said = explainers::explain(explainer, &subject, &judge, &given, (1, 0)).unwrap();
    assert!(said.texts[0].contains("likelier as the next word: \"happy\""), "{said:?}");
    assert!(said.amplified.unwrap().is_hit());
}

/// A judge that is told the groups of a round, and which word is described, and points at one of them.
struct Says<F> {
    words: Vec<String>,
    point: F,
}

fn says<F: Fn(&[&str], &str) -> Option<usize>>(words: &[&str], point: F) -> Says<F> {
    Says { words: words.iter().map(|word| (*word).to_owned()).collect(), point }
}

impl<F: Fn(&[&str], &str) -> Option<usize>> Judge for Says<F> {
    fn name(&self) -> String {
        "stub".into()
    }

    fn verdicts(&self, _: &Question, _: &[String], _: &[String]) -> Result<Vec<Vec<Verdict>>> {
        unreachable!()
    }

    /// The request itself.
    fn write(&self, request: &str, _: &str, n: usize, _: &Writing) -> Result<Vec<Option<String>>> {
        Ok(vec![Some(request.trim().to_owned()); n])
    }

    /// How often the described word stands in the beginning's last group.
    fn log_probabilities(&self, beginnings: &[String], texts: &[String]) -> Result<Vec<Vec<f64>>> {
        let group = |beginning: &String| beginning.rsplit("\n\n").next().unwrap_or_default().to_owned();
        let of = |beginning| texts.iter().map(|text| group(beginning).matches(text.trim()).count() as f64).collect();
        Ok(beginnings.iter().map(of).collect())
    }

    fn choose(&self, prompts: &[(String, String)], choices: &[String]) -> Result<Vec<Vec<f64>>> {
        assert_eq!(choices, [" 1", " 2", " 3"]);
        let of = |(request, _): &(String, String)| {
            let (groups, question) = request.split_once("\nDescription of the part: ").unwrap();
            let groups: Vec<&str> = groups.split("\nGroup ").skip(1).collect();
            assert_eq!(groups.len(), SHOWN);
            let word = self.words.iter().find(|word| question.starts_with(word.as_str())).map_or("", String::as_str);
            let at = (self.point)(&groups, word);
            (0..SHOWN).map(|i| at.map_or(f64::NAN, |at| f64::from(u8::from(i == at)))).collect()
        };
        Ok(prompts.iter().map(of).collect())
    }

    fn follow(&self, _: &str, _: &[String], _: (&str, &str), _: &[String]) -> Result<Vec<Vec<f64>>> {
        unreachable!()
    }

    fn embed(&self, _: &[String]) -> Result<Vec<Vec<f32>>> {
        unreachable!()
    }

    fn cost(&self) -> Cost {
        Cost::default()
    }
}

/// Scores the planted word, with another's as the control.
fn scored(subject: &Subject, scorer: &str, latent: usize, judge: &dyn Judge) -> Vec<Outcome> {
    let completions = Completions::new(subject, 0..PLANTED.len() as u32, 7);
    let texts = [PLANTED[latent].to_owned()];
    let controls = [(SHUFFLED, PLANTED[(latent + 1) % PLANTED.len()].to_owned())];
    let task = Task {
        latent: latent as u32,
        texts: &texts,
        controls: &controls,
        firing: &[],
        silent: &[],
        base_rate: f64::NAN,
        subject,
        completions: &completions,
        adapter: None,
        judge,
        seed: 7,
    };
    let outcomes = (scorers::named(scorer).unwrap().score)(&task).unwrap();
    assert_eq!(outcomes.iter().map(|o| o.text).collect::<Vec<_>>(), [Some(0), None]);
    assert_eq!(exegete_store::control_of(&outcomes[1].against), Some((SHUFFLED, "itself")));
    assert!(outcomes.iter().all(|o| (o.chance - 1.0 / 3.0).abs() < 1e-12));
    outcomes
}

fn holds(e: Estimate, value: f64) -> bool {
    e.low <= value && value <= e.high
}

#[test]
fn one_who_knows_finds_every_group_and_one_who_does_not_is_at_chance() {
    let model = stories!();
    let subject = subject(&model, planted(&model, &tokens(&model)));
    // Points where the word comes most often.
    let most = |groups: &[&str], word: &str| (0..SHOWN).max_by_key(|i| groups[*i].matches(word).count());
    let outcomes = scored(&subject, "output", 0, &says(&PLANTED, most));
    assert_eq!((outcomes[0].value.value, outcomes[0].value.n, outcomes[0].failed), (1.0, 18, 0), "{outcomes:?}");
    assert!(outcomes[1].value.value < 0.7, "what is said of another is no help: {outcomes:?}");
    assert_eq!(outcomes[0].measures["places_said"], serde_json::json!([6, 6, 6]));

    for place in 0..SHOWN {
        let outcomes = scored(&subject, "output", 1, &says(&PLANTED, |_, _| Some(place)));
        assert_eq!(outcomes[0].value.value, 1.0 / 3.0, "places are right equally often");
    }
    let state = Cell::new(1u64);
    let random = says(&PLANTED, |_, _| {
        state.set(exegete_base::sampling::pair_hash(state.get(), 5, 6));
        Some((state.get() % SHOWN as u64) as usize)
    });
    let outcomes: Vec<Outcome> = (0..PLANTED.len()).flat_map(|l| scored(&subject, "output", l, &random)).collect();
    let held = outcomes.iter().filter(|o| holds(o.value, 1.0 / 3.0)).count();
    assert!(held >= 14, "{held} of 16");
    let silent = scored(&subject, "output", 0, &says(&PLANTED, |_, _| None));
    assert!(silent.iter().all(|o| o.failed == 18 && o.value.n == 0), "{silent:?}");
}

#[test]
fn surprisal_finds_the_group_that_makes_what_is_said_likeliest() {
    let model = stories!();
    let subject = subject(&model, planted(&model, &tokens(&model)));
    let outcomes = scored(&subject, "output-surprisal", 0, &says(&PLANTED, |_, _| None));
    assert_eq!((outcomes[0].value.value, outcomes[0].value.n), (1.0, 18), "{outcomes:?}");
    assert_eq!(outcomes[0].measures["share_corrected"][0], 1.0);
    let gained = |i: usize, key: &str| outcomes[i].measures[key].as_f64().unwrap();
    assert!(gained(0, "nats_gained") > gained(0, "nats_gained_others") + 1.0, "{outcomes:?}");
    assert!(outcomes[1].value.value < 0.5, "{outcomes:?}");
    // A model that judges: numbers, and no failures.
    let judge = LocalJudge::new(&model, "stories").unwrap();
    let outcomes = scored(&subject, "output-surprisal", 0, &judge);
    assert!(outcomes.iter().all(|o| o.failed == 0 && o.value.n == 18), "{outcomes:?}");
}
