//! A local judge computes what a whole prompt would, on stories260K.

use std::sync::Arc;

use exegete_base::{Site, SiteKind};
use exegete_explain::judge::Judge;
use exegete_explain::judge::local::{Arrangement, LocalJudge};
use exegete_explain::question::Question;
use exegete_model::edits::CutEdges;
use exegete_model::{Batch, Bos, Edit, Hooks, Logits, Model, Positions};
use exegete_tensor::cpu::loss::log_sum_exp;
use exegete_tensor::{Tape, f32s};

macro_rules! stories {
    () => {
        match exegete_testkit::data_dir() {
            Some(dir) => Model::open(&dir.join("models/stories260K/stories260K.bin")).unwrap(),
            None => return exegete_testkit::not_run("EXEGETE_DATA is not set: stories260K is not here"),
        }
    };
}

fn question() -> Question {
    Question {
        instructions: "Once upon a time there was a girl.".into(),
        example: " Text: {text}.".into(),
        explanation: " It is about {explanation}. Yes or no?".into(),
        answer: "She said".into(),
        yes: vec!["Y".into()],
        no: vec!["N".into()],
    }
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

/// The verdict of one prompt run whole, in which example and explanation do not see each other.
fn whole(model: &Model, q: &Question, example: &str, explanation: &str) -> f64 {
    let tokenizer = model.tokenizer().unwrap();
    let text = |text: &str| tokenizer.encode_text(text).unwrap();
    let mut head: Vec<u32> = tokenizer.bos(Bos::Auto).unwrap().into_iter().collect();
    head.extend(text(&q.instructions));
    let example = text(&q.example(example));
    let mut rest = text(&q.explanation(explanation));
    rest.extend(tokenizer.encode_prompt("\n").unwrap());
    rest.extend(text(&q.answer));
    // The words for yes and no may begin alike, with a space.
    let words = [text(&q.yes[0]), text(&q.no[0])];
    let alike = words[0].iter().zip(&words[1]).take_while(|(a, b)| a == b).count();
    rest.extend(&words[0][..alike]);
    let ids = [head.clone(), example.clone(), rest].concat();
    let last = ids.len() - 1;
    let keys: Vec<usize> = (head.len()..head.len() + example.len()).collect();
    let after: Vec<usize> = (head.len() + example.len()..last).collect();
    let mut hooks = Hooks::none();
    for layer in 0..model.spec.n_layers {
        let cut = Arc::new(CutEdges { heads: None, n_heads: model.spec.n_heads, keys: keys.clone() });
        let edit = Edit::everywhere(Site::at(SiteKind::AttnScores, layer), cut);
        hooks = hooks.edit(edit.at(Positions::At(after.clone())));
    }
    let logits = model.run(&Tape::new(), &Batch::one(&ids), None, &mut hooks, Logits::Last).unwrap().unwrap();
    let logits = f32s(logits.tensor()).unwrap();
    let [yes, no] = words.map(|ids| f64::from(logits[ids[alike] as usize]));
    1.0 / (1.0 + (no - yes).exp())
}

#[test]
fn a_slot_says_what_a_whole_prompt_says() {
    let model = stories!();
    let judge = LocalJudge::new(&model, "stories").unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let n_tokens = |text: &str| tokenizer.encode_text(&question().example(text)).unwrap().len();
    let wanted = n_tokens("the cat sat");
    let all = ["the cat sat", "the dog sat", "the boy sat", "the sun sat", "the hat ran"];
    let examples: Vec<String> = strings(&all).into_iter().filter(|text| n_tokens(text) == wanted).collect();
    assert!(examples.len() >= 3, "{examples:?}");
    let explanations = strings(&["a cat", "a dog that was big", "happy"]);
    let verdicts = judge.verdicts(&question(), &examples, &explanations).unwrap();
    for (explanation, row) in explanations.iter().zip(&verdicts) {
        for (example, verdict) in examples.iter().zip(row) {
            let want = whole(&model, &question(), example, explanation);
            let got = verdict.unwrap();
            assert!((got - want).abs() < 1e-5, "{example} under {explanation}: {got}, whole {want}");
        }
    }
    let flat: Vec<f64> = verdicts.concat().into_iter().flatten().collect();
    assert!(flat.iter().any(|p| (p - flat[0]).abs() > 1e-6), "all verdicts are one: {flat:?}");
}

#[test]
fn neither_company_nor_order_changes_a_verdict() {
    let model = stories!();
    let judge = LocalJudge::new(&model, "stories").unwrap();
    let examples = strings(&["the cat sat", "the dog ran away from it", "a ball"]);
    let explanations = strings(&["cats", "a dog that was big"]);
    let all = judge.verdicts(&question(), &examples, &explanations).unwrap();
    let turned: Vec<String> = examples.iter().rev().cloned().collect();
    let back = judge.verdicts(&question(), &turned, &explanations[1..]).unwrap();
    for (a, b) in all[1].iter().zip(back[0].iter().rev()) {
        assert!((a.unwrap() - b.unwrap()).abs() < 1e-6);
    }
}

#[test]
fn a_prompt_for_each_pair_is_the_same_with_and_without_sharing() {
    let model = stories!();
    let examples = strings(&["the cat sat", "the dog ran away from it", "a ball"]);
    let explanations = strings(&["cats", "a dog that was big"]);
    let of = |arrangement| {
        let judge = LocalJudge::new(&model, "stories").unwrap().arranged(arrangement);
        let verdicts = judge.verdicts(&question(), &examples, &explanations).unwrap();
        (verdicts, judge.cost())
    };
    let ((apart, less), (naive, more)) = (of(Arrangement::Apart), of(Arrangement::Naive));
    for (a, b) in apart.concat().iter().zip(naive.concat()) {
        assert!((a.unwrap() - b.unwrap()).abs() < 1e-5);
    }
    let (_, shared) = of(Arrangement::Shared);
    assert!(shared.computed < less.computed && less.computed < more.computed, "{shared:?} {less:?} {more:?}");
    assert_eq!(less.computed + less.shared, more.computed + head_once(&model), "what is shared is not computed");
}

/// Tokens of the instructions, which sharing computes once more than it looks at them.
fn head_once(model: &Model) -> u64 {
    model.tokenizer().unwrap().encode_text(&question().instructions).unwrap().len() as u64
        + model.tokenizer().unwrap().bos(Bos::Auto).unwrap().iter().count() as u64
}

#[test]
fn log_probabilities_are_those_of_the_whole_text() {
    let model = stories!();
    let judge = LocalJudge::new(&model, "stories").unwrap();
    let (beginnings, texts) = (strings(&["Once upon a time", "There was"]), strings(&[" a cat", " the big dog ran"]));
    let told = judge.log_probabilities(&beginnings, &texts).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    for (beginning, row) in beginnings.iter().zip(&told) {
        for (text, got) in texts.iter().zip(row) {
            let mut ids: Vec<u32> = tokenizer.bos(Bos::Auto).unwrap().into_iter().collect();
            ids.extend(tokenizer.encode_text(beginning).unwrap());
            let from = ids.len();
            ids.extend(tokenizer.encode_text(text).unwrap());
            let batch = Batch::one(&ids);
            let logits = model.run(&Tape::new(), &batch, None, &mut Hooks::none(), Logits::All).unwrap().unwrap();
            let logits = f32s(logits.tensor()).unwrap();
            let row = |at: usize| &logits[at * model.spec.vocab_size..(at + 1) * model.spec.vocab_size];
            let p = |at: usize| f64::from(row(at - 1)[ids[at] as usize] - log_sum_exp(row(at - 1)));
            let want: f64 = (from..ids.len()).map(p).sum();
            assert!((got - want).abs() < 1e-3, "{beginning}{text}: {got}, whole {want}");
        }
    }
}

#[test]
fn choices_are_the_same_asked_together_and_apart() {
    let model = stories!();
    let judge = LocalJudge::new(&model, "stories").unwrap();
    let prompt = |end: &str| (format!("Once there was a cat and a dog. {end}"), "She saw the".to_owned());
    let prompts = [prompt("The cat ran home."), prompt("A big dog sat in the sun"), prompt("")];
    let choices = strings(&["1", "2"]);
    let together = judge.choose(&prompts, &choices).unwrap();
    let computed = judge.cost().computed;
    for (prompt, together) in prompts.iter().zip(&together) {
        let alone = judge.choose(std::slice::from_ref(prompt), &choices).unwrap();
        assert!(alone[0].iter().zip(together).all(|(a, b)| (a - b).abs() < 1e-5), "{alone:?} {together:?}");
    }
    assert!(judge.cost().computed > computed * 2 - computed / 8, "what prompts begin with is computed once");
}

#[test]
fn what_a_judge_cannot_do_is_said() {
    let model = stories!();
    let judge = LocalJudge::new(&model, "stories").unwrap();
    let same = Question { no: vec!["Y".into()], ..question() };
    let error = judge.verdicts(&same, &strings(&["a"]), &strings(&["b"])).unwrap_err().to_string();
    assert!(error.contains("yes from no"), "{error}");
    let long = strings(&["the cat sat on the mat and ".repeat(200).as_str()]);
    let error = judge.verdicts(&question(), &long, &strings(&["b"])).unwrap_err().to_string();
    assert!(error.contains("context"), "{error}");
    assert_eq!(judge.verdicts(&question(), &[], &strings(&["b"])).unwrap(), vec![Vec::new()]);
    assert!(judge.choose(&[("a".into(), "b".into())], &strings(&["c", "c"])).is_err());
}
