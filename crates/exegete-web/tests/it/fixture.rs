//! A small run made by the store's own writers: words as tokens, latents that fire on words, hostile text among them.

use std::collections::BTreeMap;
use std::path::Path;

use exegete_base::sampling::pair_hash;
use exegete_base::{DocId, LatentId};
use exegete_store::run::part_name;
use exegete_store::{
    AccumulatorSettings, Accumulators, Curves, Explanation, LatentProfile, LatentRow, Notes, Run, Window,
    write_examples, write_latents, write_vocab, write_windows,
};
use serde_json::json;

/// Text that must arrive as text.
pub(crate) const HOSTILE: &str = "<script>alert(\"x\")</script>'&";
/// Latents of the run; the last one never fires.
pub(crate) const N_LATENTS: u32 = 180;

const WORDS: &str = " the sea was calm and ships lay in the harbour while a doctor read music to the king \
    of winter ,\n bread for every seven anger football computer physics mother dog rose out over red hills . In Paris \
    it rained again ; nobody minded";

fn vocabulary() -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = WORDS.split(' ').skip(1).map(|word| format!(" {word}").into_bytes()).collect();
    tokens.extend([HOSTILE.as_bytes().to_vec(), b"\n".to_vec(), vec![0xe2, 0x80], "\u{202e}abc".as_bytes().to_vec()]);
    tokens
}

/// Tokens that mean harm: markup, marks that turn text round, bytes that are no text, words without end.
fn hostile_vocabulary() -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = [
        "<script>window.hacked=1</script>",
        "\"><img src=x onerror=window.hacked=1>",
        "</p></div></main><h1>",
        "<svg onload=window.hacked=1>",
        "javascript:window.hacked=1",
        "{{constructor.constructor('window.hacked=1')()}}",
        "<style>*{display:none}</style>",
        "<!--",
        "&lt;script&gt;",
        "\u{202e}desrever",
        "\u{2066}\u{2067}\u{200f}x",
        "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        "Z\u{334}\u{321}\u{322}\u{489}algo",
        "\0\0",
        "\u{1b}[2J",
        "\u{feff}",
        "\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    tokens.extend([
        vec![0xff, 0xfe],
        vec![0xc0, 0x80],
        "W".repeat(20_000).into_bytes(),
        "\u{1f600}".repeat(900).into_bytes(),
    ]);
    tokens
}

/// Makes a run in `dir` of which all text means harm.
#[allow(dead_code)] // The example that serves a run has no use for it.
pub(crate) fn make_hostile_run(dir: &Path) {
    make_run_of(dir, hostile_vocabulary());
    let mut notes = Notes::open(&dir.join("run.sqlite")).unwrap();
    for (latent, bytes) in hostile_vocabulary().into_iter().enumerate() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let latent = LatentId(latent as u32);
        let said = Explanation {
            method: "<b>\u{202e}self".into(),
            rank: 0,
            text: text.clone(),
            scale: f64::MAX,
            score: -1e300,
            abstained: false,
            settings: json!({}),
        };
        notes.put_explanations(latent, "<b>\u{202e}self", &[said], &Curves::default()).unwrap();
        notes.add_note(latent, &text).unwrap();
    }
    std::fs::create_dir(dir.join("jobs")).unwrap();
    let job = json!({"kind": "<script>window.hacked=1</script>", "stage": "W".repeat(3000), "unit": "\u{202e}x", "done": u64::MAX,
        "total": 1, "started": 0, "updated": u64::MAX, "state": "running"});
    std::fs::write(dir.join("jobs").join("<img src=x onerror=window.hacked=1>.json"), job.to_string()).unwrap();
}

/// Makes the run in `dir`.
pub(crate) fn make_run(dir: &Path) {
    make_run_of(dir, vocabulary());
}

fn make_run_of(dir: &Path, vocab: Vec<Vec<u8>>) {
    let n_vocab = vocab.len() as u64;
    let settings = json!({ "model": "models/SmolLM2-135M-Instruct.Q4_1.gguf", "text": ["wikitext2"], "site": "blocks.15.hook_resid_post" });
    let mut run = Run::create_or_resume(dir, "exegete test", settings, &[]).unwrap();
    let token = |doc: u64, at: u64| (pair_hash(1, doc, at) % n_vocab) as u32;
    let windows: Vec<Window> = (0..120u64)
        .flat_map(|doc| (0..2u32).map(move |window| (doc, window)))
        .map(|(doc, window)| Window {
            doc: DocId::new(0, doc),
            window,
            start: u64::from(window) * 64,
            token_ids: (0..64).map(|t| token(doc, u64::from(window) * 64 + t)).collect(),
        })
        .collect();
    run.commit_part(&part_name("tokens", 0), windows.len() as u64, |w| write_windows(w, &windows)).unwrap();
    run.commit_part("tokens/vocab.parquet", n_vocab, |w| write_vocab(w, &vocab)).unwrap();

    let mut state = Accumulators::new(N_LATENTS as usize, AccumulatorSettings::default());
    for window in &windows {
        state.add_tokens(0..64);
        for latent in 0..N_LATENTS - 1 {
            push(&mut state, window, latent, n_vocab);
        }
    }
    let rows: Vec<LatentRow> = (0..N_LATENTS).map(|latent| row(&state, latent, n_vocab as u32)).collect();
    run.commit_part("latents.parquet", rows.len() as u64, |w| write_latents(w, &rows)).unwrap();
    let examples: Vec<_> = (0..N_LATENTS).flat_map(|latent| state.examples(LatentId(latent))).collect();
    run.commit_part(&part_name("examples", 0), examples.len() as u64, |w| write_examples(w, &examples)).unwrap();
    explain(dir);
    let stages = [
        ("tokens", json!({"documents": 120, "windows": 240, "tokens": 15360, "window_len": 64, "bos": "none"})),
        (
            "cache",
            json!({"rows": 15360, "d_model": 576, "site": "blocks.15.hook_resid_post", "model": "SmolLM2-135M-Instruct.Q4_1.gguf"}),
        ),
        (
            "train",
            json!({"n_latents": N_LATENTS, "k": 32, "steps": 4800, "l0": 31.9, "silent": 1, "input_scale": 0.04,
            "fvu": {"value": 0.2345, "low": 0.2291, "high": 0.2399, "n": 12}}),
        ),
        (
            "harvest",
            json!({"tokens": 15360, "alive": N_LATENTS - 1, "n_latents": N_LATENTS,
            "dictionaries": [{"prefix": "", "map_variance": [0.0123, 0.0087]}]}),
        ),
        (
            "explain",
            json!({"explained": 60, "abstained": 4, "method": "self",
            "control": {"abstention_rate": {"value": 0.75, "low": 0.41, "high": 0.93, "n": 8}}}),
        ),
    ];
    for (name, summary) in stages {
        run.finish_stage(name, summary).unwrap();
    }
}

fn push(state: &mut Accumulators, window: &Window, latent: u32, n_vocab: u64) {
    let (mut positions, mut values) = (Vec::new(), Vec::new());
    // Rare latents and busy ones: each fires on its word, with a strength that varies, and at times elsewhere.
    let rarity = 1 + u64::from(latent) * u64::from(latent) / 40;
    for (at, &token) in window.token_ids.iter().enumerate() {
        let draw = pair_hash(u64::from(latent) + 7, window.doc.0, window.start + at as u64);
        let is_word = u64::from(token) == u64::from(latent) % n_vocab;
        if (is_word && draw % rarity < 1 + rarity / 3) || draw.is_multiple_of(400 * rarity) {
            positions.push(at as u32);
            let strength = (draw >> 40) as f32 / (1u64 << 24) as f32;
            values.push(0.05 + 12.0 * strength * strength * if is_word { 1.0 } else { 0.2 });
        }
    }
    state.push_group(window, LatentId(latent), &positions, &values);
}

fn row(state: &Accumulators, latent: u32, n_vocab: u32) -> LatentRow {
    let tokens =
        |from: u32, sign: f32| (0..10).map(|i| ((from + i * 5) % n_vocab, sign * (4.2 - i as f32 * 0.31))).collect();
    LatentRow {
        top_tokens: tokens(latent, 1.0),
        bottom_tokens: tokens(latent + 3, -1.0),
        neighbours: (1..6).map(|i| ((latent + i * 11) % N_LATENTS, 0.71 - i as f32 * 0.06)).collect(),
        profile: profile(state, latent, n_vocab),
        ..LatentRow::new(LatentId(latent), state.stats(LatentId(latent)), state.n_tokens())
    }
}

/// What a harvest measures besides; the dead latent has a decoder row and nothing else.
fn profile(state: &Accumulators, latent: u32, n_vocab: u32) -> LatentProfile {
    let near = |step: u32, top: f32| (1..6).map(|i| ((latent + i * step) % N_LATENTS, top - i as f32 * 0.07)).collect();
    let turn = latent as f32 * 0.7;
    let decoder = LatentProfile {
        aligned_neurons: (0..3).map(|i| (latent + i * 100, 0.4 - i as f32 * 0.25)).collect(),
        decoder_l1: 6.5,
        decoder_norm: 1.0,
        logit_histogram: (0..50u32).map(|bin| 400 / (1 + (25 - bin as i32).unsigned_abs())).collect(),
        logit_ends: [-3.1, 4.2],
        map: [turn.cos() * (1.0 + turn / 90.0), turn.sin() * (1.0 + turn / 60.0)],
        ..LatentProfile::default()
    };
    if state.stats(LatentId(latent)).count == 0 {
        return decoder;
    }
    LatentProfile {
        cofiring: near(7, 0.6),
        correlated_latents: near(13, 0.8),
        correlated_neurons: vec![(3, 0.5), (77, -0.4)],
        fired_tokens: (0..4).map(|i| ((latent + i * 11) % n_vocab, 0.7 / (1 << i) as f32)).collect(),
        n_sampled: 200,
        distinct_tokens: 1 + latent % 40,
        position_information: if latent.is_multiple_of(10) { 0.2 } else { 0.001 },
        ..decoder
    }
}

#[allow(dead_code)] // The example that serves this run has no use for it.
/// Writes the tables of a second dictionary beside those of the first, as a harvest of several has them.
pub(crate) fn make_run_of_two(dir: &Path) {
    make_run(dir);
    let mut run = Run::open_to_write(dir).unwrap();
    let rows = exegete_store::read_latents(&run.path("latents.parquet")).unwrap();
    let examples = exegete_store::examples::read_examples(&run.path("examples/part-00000.parquet")).unwrap();
    for (prefix, n) in [("latents/wide/", N_LATENTS as usize), ("latents/nar row/", 40)] {
        run.commit_part(&format!("{prefix}latents.parquet"), n as u64, |w| write_latents(w, &rows[..n])).unwrap();
        let of: Vec<_> = examples.iter().filter(|e| (e.latent.0 as usize) < n).cloned().collect();
        run.commit_part(&format!("{prefix}examples/part-00000.parquet"), 1, |w| write_examples(w, &of)).unwrap();
    }
    let listed = json!([
        {"name": "wide", "prefix": "latents/wide/", "site": "blocks.15.hook_resid_post", "map_variance": [7, 0.1]},
        {"name": "nar row", "prefix": "latents/nar row/", "site": "blocks.3.hook_resid_post"},
        {"name": "outside", "prefix": "../elsewhere/", "site": ""},
    ]);
    run.finish_stage("harvest", json!({"tokens": 15360, "dictionaries": listed})).unwrap();
}

fn explain(dir: &Path) {
    let mut notes = Notes::open(&dir.join("run.sqlite")).unwrap();
    let texts = [
        "the sea and its ships",
        "harbours and quiet water, in the evening as well as at noon",
        "royal courts",
        "music lessons",
    ];
    let scales: Vec<f64> = (0..40).map(|i| f64::from(i) * 10.0).collect();
    for latent in (0..N_LATENTS).step_by(3) {
        let curve = |f: &dyn Fn(f64) -> f64| scales.iter().map(|&s| f(s / 400.0)).collect::<Vec<f64>>();
        let mut entropy = curve(&|t| 2.0 + (t * 9.0).sin());
        entropy[5] = f64::NAN;
        let curves = BTreeMap::from([
            ("self_similarity".to_string(), curve(&|t| (-8.0 * (t - 0.4) * (t - 0.4)).exp())),
            ("entropy".to_string(), entropy),
            ("cross_entropy".to_string(), curve(&|t| 4.0 * t * t + 0.3)),
        ]);
        let explanation = |rank: u32, text: &str| Explanation {
            method: "self".into(),
            rank,
            text: text.into(),
            scale: 120.0 + 60.0 * f64::from(rank),
            score: 0.9 - 0.2 * f64::from(rank),
            abstained: latent % 45 == 0,
            settings: json!({}),
        };
        let first = if latent == 3 { HOSTILE } else { texts[latent as usize / 3 % 4] };
        let found = [explanation(0, first), explanation(1, "ships"), explanation(2, "being away from land")];
        notes.put_explanations(LatentId(latent), "self", &found, &Curves { scales: scales.clone(), curves }).unwrap();
    }
}
