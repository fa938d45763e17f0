//! Training: it learns, it goes on where it was stopped, and it refuses what it cannot go on with.

use std::cell::Cell;
use std::path::Path;

use exegete_harvest::Progress;
use exegete_harvest::Silent;
use exegete_lab::LabError;
use exegete_lab::language::{Language, Split};
use exegete_lab::organism::abilities::losses;
use exegete_lab::organism::vocabulary;
use exegete_lab::organism::{OrganismSettings, Trainer, Training, train, untrained};
use exegete_model::{Model, Residence};
use exegete_tensor::Device;
use exegete_tensor::optim::{AdamW, Parameter};

fn tiny() -> OrganismSettings {
    OrganismSettings {
        layers: 2,
        width: 32,
        heads: 2,
        neurons: 48,
        vocabulary: 400,
        tokens: 30_000,
        batch_tokens: 1000,
        lr: 1e-2,
        ..OrganismSettings::default()
    }
}

/// Stops after some steps.
struct StopAfter(Cell<u32>);

impl Progress for StopAfter {
    fn begin(&self, _: &str, _: u64, _: &str, _: u64) {}
    fn at(&self, _: u64, _: &str) {
        self.0.set(self.0.get().saturating_sub(1));
    }
    fn end(&self, _: &str) {}
    fn is_cancelled(&self) -> bool {
        self.0.get() == 0
    }
}

fn open(dir: &Path, settings: &OrganismSettings) -> Result<Trainer, LabError> {
    Trainer::open(dir, settings, 11, Residence::F32, None)
}

#[test]
fn it_learns_and_a_training_that_was_stopped_ends_with_the_same_bytes() {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut trainer = open(whole.path(), &tiny()).unwrap();
    train(&mut trainer, &Silent).unwrap();
    for after in [3, 1, 7] {
        let mut trainer = open(stopped.path(), &tiny()).unwrap();
        let end = train(&mut trainer, &StopAfter(Cell::new(after)));
        assert!(matches!(&end, Err(LabError::Saved { path }) if path == stopped.path()), "{end:?}");
    }
    train(&mut open(stopped.path(), &tiny()).unwrap(), &Silent).unwrap();
    for file in ["state.safetensors", "model/model.safetensors", "model/tokenizer.json", "model/organism.json"] {
        let [a, b] = [&whole, &stopped].map(|dir| std::fs::read(dir.path().join(file)).unwrap());
        assert!(a == b, "{file} differs");
    }
    let record = Training::read(&whole.path().join("model")).unwrap();
    assert_eq!(record.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(record.instructions.as_deref(), Some(exegete_tensor::cpu::packed::instructions()));
    // The files are a model like any other, and it is better than one that knows nothing.
    let dir = whole.path().join("model");
    let (model, blind) = (Model::open(&dir).unwrap(), untrained(&dir, 1, Residence::F32).unwrap());
    let language = Language::new();
    let loss = |model: &Model| losses(model, &language, 100, 1, &Silent).unwrap()[0].model.value;
    let (known, unknown) = (loss(&model), loss(&blind));
    assert!(known < 0.75 * unknown && (unknown - 400f64.ln()).abs() < 0.5, "{known} {unknown}");
}

#[test]
fn documents_longer_than_the_context_are_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), &tiny()).unwrap();
    let config = dir.path().join("model/config.json");
    let narrow = std::fs::read_to_string(&config).unwrap().replace("_embeddings\": 512", "_embeddings\": 60");
    std::fs::write(&config, narrow).unwrap();
    let model = Model::open(&dir.path().join("model")).unwrap();
    let (language, n, seed) = (Language::new(), 80, 1);
    let found = losses(&model, &language, n, seed, &Silent).unwrap();
    let tokens = |i: u64| {
        let text = language.document(!seed, i, Split::Train).text;
        vocabulary::document(model.tokenizer().unwrap(), &text).unwrap().len() - 1
    };
    let (fit, longer): (Vec<usize>, Vec<usize>) = (0..n).map(tokens).partition(|tokens| *tokens <= 60);
    assert!(fit.len() > 5 && longer.len() > 5, "{} {}", fit.len(), longer.len());
    assert_eq!((found[0].left_out, found[0].tokens), (longer.len() as u64, fit.iter().sum::<usize>() as u64));
    assert!(found[1..].iter().map(|l| l.left_out).sum::<u64>() <= found[0].left_out);
}

#[test]
fn what_cannot_go_on_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), &tiny()).unwrap();
    let other = open(dir.path(), &OrganismSettings { lr: 1e-3, ..tiny() }).err().unwrap().to_string();
    assert!(other.contains("training.json") && other.contains("another --out"), "{other}");
    assert!(other.contains("(settings.lr: was 0.01, now 0.001)"), "only what differs is told: {other}");
    let wider = open(dir.path(), &OrganismSettings { width: 64, ..tiny() }).err().unwrap().to_string();
    assert!(wider.contains("training.json"), "{wider}");
    let path = dir.path().join("state.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for bad in [&bytes[..0], &bytes[..100], &bytes[..bytes.len() - 1]] {
        std::fs::write(&path, bad).unwrap();
        let error = open(dir.path(), &tiny()).err().unwrap().to_string();
        assert!(error.contains("state.safetensors"), "{error}");
    }
    for (settings, flag) in [
        (OrganismSettings { heads: 5, ..tiny() }, "--heads"),
        (OrganismSettings { layers: 0, ..tiny() }, "--layers"),
        (OrganismSettings { vocabulary: 200, ..tiny() }, "--vocabulary"),
        (OrganismSettings { lr: f64::NAN, ..tiny() }, "--lr"),
    ] {
        let fresh = tempfile::tempdir().unwrap();
        let error = open(fresh.path(), &settings).err().unwrap().to_string();
        assert!(error.contains(flag), "{error}");
        assert!(std::fs::read_dir(fresh.path()).unwrap().next().is_none(), "something was left behind");
    }
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("model"), "someone's").unwrap();
    let error = open(foreign.path(), &tiny()).err().unwrap().to_string();
    assert!(error.contains("not empty") && std::fs::read_dir(foreign.path()).unwrap().count() == 1, "{error}");
    // Another program's file of that name stays as it is, and so does that of another training.
    std::fs::remove_file(foreign.path().join("model")).unwrap();
    let theirs = foreign.path().join("training.json");
    std::fs::write(&theirs, "{\"epochs\": 3}").unwrap();
    let error = open(foreign.path(), &tiny()).err().unwrap().to_string();
    assert!(error.contains("training.json") && std::fs::read_to_string(&theirs).unwrap().contains("epochs"), "{error}");
    let other = tempfile::tempdir().unwrap();
    drop(open(other.path(), &tiny()).unwrap());
    let begun = std::fs::read(other.path().join("training.json")).unwrap();
    let error = open(other.path(), &OrganismSettings { lr: 0.5, ..tiny() }).err().unwrap().to_string();
    assert!(error.contains("give those settings"), "{error}");
    assert_eq!(std::fs::read(other.path().join("training.json")).unwrap(), begun);
    // What is lost of the model is in the state.
    let weights = other.path().join("model/model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    std::fs::remove_dir_all(other.path().join("model")).unwrap();
    drop(open(other.path(), &tiny()).unwrap());
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    let busy = tempfile::tempdir().unwrap();
    let _running = open(busy.path(), &tiny()).unwrap();
    let error = open(busy.path(), &tiny()).err().unwrap().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    let fresh = tempfile::tempdir().unwrap();
    let error = open(fresh.path(), &OrganismSettings { vocabulary: 60_000, ..tiny() }).err().unwrap().to_string();
    assert!(error.contains("--vocabulary 60000 does not fit"), "{error}");
    // Nothing came of it, so it may begin again with what does fit; also where a writer was killed before.
    drop(open(fresh.path(), &tiny()).unwrap());
    let killed = tempfile::tempdir().unwrap();
    std::fs::write(killed.path().join("training.json.tmp-4000000"), "half").unwrap();
    drop(open(killed.path(), &tiny()).unwrap());
    assert!(!killed.path().join("training.json.tmp-4000000").exists());
    // A trained model whose state is lost is not overwritten.
    let finished = tempfile::tempdir().unwrap();
    let short = OrganismSettings { tokens: 2000, ..tiny() };
    train(&mut open(finished.path(), &short).unwrap(), &Silent).unwrap();
    let weights = finished.path().join("model/model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    std::fs::remove_file(finished.path().join("state.safetensors")).unwrap();
    let error = open(finished.path(), &short).err().unwrap().to_string();
    assert!(error.contains("state.safetensors") && error.contains("missing"), "{error}");
    assert_eq!(std::fs::read(&weights).unwrap(), before);
}

#[test]
fn gradients_in_bf16_and_on_a_device_point_where_those_in_f32_do() {
    let ways = [(Residence::F32, None), (Residence::Bf16, None), (Residence::F32, Some(Device::Cpu))];
    let [exact, rounded, on_device] = ways.map(|(residence, device)| {
        let dir = tempfile::tempdir().unwrap();
        let mut trainer = Trainer::open(dir.path(), &tiny(), 11, residence, device.clone()).unwrap();
        assert_eq!(trainer.model().weights.layers[0].q.w.device().is_some(), device.is_some());
        let rows: Vec<Vec<u32>> = (0..40).map(|r| (0..9).map(|i| (r * 7 + i * 31) % 400).collect()).collect();
        let gradients = trainer.gradients(&rows).unwrap();
        // After a step, whose learning rate is 0, and one that learns, the weights that learned are where they were.
        let losses = [0, 1, 2].map(|_| trainer.step_on(&rows).unwrap().loss);
        assert!(losses[0] == losses[1] && losses[2] < losses[1], "{losses:?}");
        assert_eq!(trainer.model().weights.layers[0].q.w.device().is_some(), device.is_some());
        gradients
    });
    for (i, (a, b)) in exact.1.iter().zip(&on_device.1).enumerate() {
        exegete_testkit::assert_rel_l2(&format!("parameter {i}"), b, a, 1e-5);
    }
    assert!((exact.0 - rounded.0).abs() < 1e-2 && (exact.0 - 400f64.ln()).abs() < 0.5, "{} {}", exact.0, rounded.0);
    for (i, (a, b)) in exact.1.iter().zip(&rounded.1).enumerate() {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        assert!(cosine > 0.98, "parameter {i}: {cosine}");
    }
}

#[test]
fn adamw_is_that_of_the_formula() {
    // More values than a thread takes at a time.
    let n = 40_000;
    let mut parameter = Parameter::new((0..n).map(|i| [1.0, -2.0][i % 2]).collect());
    let adam = AdamW { betas: (0.9, 0.95), eps: 1e-8 };
    let (mut w, mut m, mut v) = ([1.0f64, -2.0], [0f64; 2], [0f64; 2]);
    for t in 1..=3u64 {
        let grad = [0.5 * t as f32, -0.25];
        parameter.step(adam, 0.1, 0.3, t, &(0..n).map(|i| grad[i % 2]).collect::<Vec<f32>>());
        for i in 0..2 {
            let g = f64::from(grad[i]);
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.95 * v[i] + 0.05 * g * g;
            let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t as i32)), v[i] / (1.0 - 0.95f64.powi(t as i32)));
            w[i] = w[i] * (1.0 - 0.1 * 0.3) - 0.1 * mh / (vh.sqrt() + 1e-8);
            for (at, value) in parameter.values.iter().enumerate().skip(i).step_by(2) {
                assert!((f64::from(*value) - w[i]).abs() < 1e-5, "{at}: {value} {w:?}");
            }
        }
    }
}
