//! Adapters learn what was put into their pairs, on stories260K.

use exegete_methods::adapter::{Adapter, AdapterExplainer, Form, Pair, TrainSettings, train};
use exegete_model::Model;

const TEMPLATE: &str = "selfie";
const WORDS: [&str; 12] = ["dog", "cat", "girl", "boy", "ball", "tree", "house", "bird", "car", "sun", "water", "mom"];

macro_rules! stories {
    () => {
        match exegete_testkit::data_dir() {
            Some(dir) => Model::open(&dir.join("models/stories260K/stories260K.bin")).unwrap(),
            None => return exegete_testkit::not_run("EXEGETE_DATA is not set: stories260K is not here"),
        }
    };
}

/// Each word's direction is drawn at random about the embeddings of its tokens; two of each word are held out.
fn pairs(model: &Model) -> Vec<Pair> {
    let d = model.spec.d_model;
    let tokenizer = model.tokenizer().unwrap();
    let mut pairs = Vec::new();
    for (i, word) in WORDS.iter().enumerate() {
        let mut direction = vec![0f32; d];
        let mut row = vec![0f32; d];
        for id in tokenizer.encode_prompt(word).unwrap() {
            model.weights.embed.row(id as usize, &mut row);
            direction.iter_mut().zip(&row).for_each(|(sum, x)| *sum += x);
        }
        let norm = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
        for copy in 0..8 {
            let noise = exegete_methods::direction::random(d, 5, (i * 8 + copy) as u64);
            let by = 0.3 * norm / (d as f32).sqrt();
            let direction = direction.iter().zip(noise).map(|(x, n)| x + by * n).collect();
            pairs.push(Pair { direction, text: (*word).to_owned(), held_out: Some(copy >= 6), latent: Some(i as u32) });
        }
    }
    pairs
}

#[test]
fn an_adapter_learns_to_say_what_directions_mean() {
    let model = stories!();
    let pairs = pairs(&model);
    let settings = TrainSettings { form: Form::FullRank, epochs: 60, batch: 24, lr: 0.05, ..TrainSettings::default() };
    let mut losses = Vec::new();
    let mut at = |of: exegete_methods::adapter::Progressed| {
        losses.push(of.loss);
        true
    };
    let trained = train(&model, TEMPLATE, &pairs, &settings, 1, &mut at).unwrap();
    assert_eq!(trained.pairs, [72, 24]);
    assert_eq!(losses.len(), 180);
    let told = (trained.loss_before, trained.loss, trained.loss_shuffled);
    assert!(trained.loss < 0.7 * trained.loss_before, "{told:?}");
    assert!(trained.loss_shuffled > trained.loss + 0.3, "{told:?}");
    assert_eq!(trained.adapter.best_loss, Some(trained.loss));

    // What was written and read back says the same, and knows from which direction a text comes.
    let read = Adapter::from_bytes(&trained.adapter.to_bytes().unwrap()).unwrap();
    assert_eq!((read.template(), read.trained_on.as_slice()), (TEMPLATE, (0..12).collect::<Vec<u32>>().as_slice()));
    let explainer = AdapterExplainer::new(&model, TEMPLATE, read).unwrap();
    let held: Vec<&Pair> = pairs.iter().filter(|p| p.held_out == Some(true)).step_by(2).collect();
    let directions: Vec<&[f32]> = held.iter().map(|p| p.direction.as_slice()).collect();
    let mut found = 0;
    for (i, pair) in held.iter().enumerate() {
        let all = explainer.log_likelihoods(&directions, &pair.text).unwrap();
        let best = (0..all.len()).max_by(|a, b| all[*a].total_cmp(&all[*b])).unwrap();
        found += usize::from(best == i);
    }
    assert!(found >= 8, "{found} of {} texts are likeliest from their own direction", held.len());
    let texts = explainer.texts(directions[0], 4, 8, 0).unwrap();
    assert!(!texts.is_empty() && texts == explainer.texts(directions[0], 4, 8, 0).unwrap());
}

#[test]
fn bad_pairs_and_settings_are_refused() {
    let model = stories!();
    let all = pairs(&model);
    let refused = |pairs: &[Pair], settings: TrainSettings| {
        train(&model, TEMPLATE, pairs, &settings, 1, &mut |_| true).unwrap_err().to_string()
    };
    assert!(refused(&all[..4], TrainSettings::default()).contains("too few"));
    assert!(refused(&all, TrainSettings { lr: 0.0, ..TrainSettings::default() }).contains("--lr"));
    let mut short = all.clone();
    short[0].direction.pop();
    assert!(refused(&short, TrainSettings::default()).contains("63"));
    let mut empty = all.clone();
    empty[3].text = "  ".into();
    assert!(refused(&empty, TrainSettings::default()).contains("without any words"));
    let stopped = train(&model, TEMPLATE, &all, &TrainSettings::default(), 1, &mut |_| false).unwrap_err().to_string();
    assert!(stopped.contains("nothing was written"));
}
