//! Round trips of the Parquet tables.

use std::path::Path;

use exegete_base::{DocId, LatentId};
use exegete_store::examples::read_examples;
use exegete_store::tokens::read_windows;
use exegete_store::{
    DensityRow, Example, ExampleKind, ExampleReader, LatentRow, LatentStats, StepLog, StepRow, TokenReader, Window,
    read_density, read_latents, read_steps, read_vocab, write_atomic, write_density, write_examples, write_latents,
    write_steps, write_vocab, write_windows,
};

pub(crate) fn windows(n: u32) -> Vec<Window> {
    let window = |i: u32| Window {
        doc: DocId::new(i % 3, u64::from(i / 6)),
        window: (i / 3) % 2,
        start: u64::from(i) * 7,
        token_ids: (0..i % 11 + 1).map(|t| t * i).collect(),
    };
    let mut all: Vec<Window> = (0..n).map(window).collect();
    all.sort_by_key(|w| (w.doc, w.window));
    all
}

pub(crate) fn examples(n_latents: u32) -> Vec<Example> {
    let example = |i: u32| Example {
        latent: LatentId(i / 9),
        level: (i % 4) as u8 + 20,
        kind: if i % 9 < 3 { ExampleKind::Top } else { ExampleKind::Sample },
        doc: DocId(u64::from(i)),
        window: i % 5,
        position: i % 128,
        value: i as f32 + 0.5,
        values: (0..5).map(|o| (i * o) as f32).collect(),
        hash: u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    };
    (0..n_latents * 9).map(example).collect()
}

pub(crate) fn latents(n: u32) -> Vec<LatentRow> {
    let row = |i: u32| {
        let mut stats = LatentStats { count: u64::from(i), max: i as f32, ..LatentStats::default() };
        stats.sum_fixed = 10i128.pow(i % 38);
        stats.sumsq_fixed = 10i128.pow(38) - 1 - i128::from(i);
        stats.histogram[i as usize % 60] = u64::from(i);
        let pairs = |n: u32| (0..n).map(|t| (t + i, t as f32 - 0.25)).collect::<Vec<_>>();
        LatentRow {
            top_tokens: pairs(4),
            bottom_tokens: pairs(i % 3),
            neighbours: pairs(2),
            ..LatentRow::new(LatentId(i), stats, 1000)
        }
    };
    (0..n).map(row).collect()
}

#[test]
fn steps_come_back_as_they_were_and_another_table_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("steps.parquet");
    let row = |i: u64| {
        let x = i as f32;
        StepRow {
            step: i,
            loss: x,
            fvu: x + 0.5,
            l0: 2.0 * x,
            penalty: -x,
            sparsity: x / 3.0,
            aux: 0.25,
            pre_act: 1.0 - x,
            dead: i % 7,
        }
    };
    let log = StepLog { planned: 400_000, rows: (0..40_000).map(row).collect() };
    write_atomic(&path, |w| write_steps(w, &log)).unwrap();
    assert!(read_steps(&path).unwrap() == log);
    let error = read_latents(&path).unwrap_err().to_string();
    assert!(error.contains("steps"), "{error}");
}

#[test]
fn densities_come_back_as_they_were_and_another_table_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("density.parquet");
    let row = |i: u64| DensityRow { step: i / 15, tokens: 7 * i, low: 1.0 / i as f64, high: i as f64, latents: i };
    let rows: Vec<DensityRow> = (1..20_000).map(row).collect();
    write_atomic(&path, |w| write_density(w, &rows)).unwrap();
    assert!(read_density(&path).unwrap() == rows);
    let error = read_steps(&path).unwrap_err().to_string();
    assert!(error.contains("density"), "{error}");
}

#[test]
fn windows_come_back_by_index_and_by_document() {
    let dir = tempfile::tempdir().unwrap();
    let all = windows(900);
    let (first, second) = all.split_at(400);
    let paths: Vec<_> = ["a", "b"].iter().map(|name| dir.path().join(name)).collect();
    write_atomic(&paths[0], |w| write_windows(w, first)).unwrap();
    write_atomic(&paths[1], |w| write_windows(w, second)).unwrap();
    assert_eq!(read_windows(&paths[1]).unwrap(), second);
    let reader = TokenReader::open(&paths).unwrap();
    assert_eq!(reader.len(), 900);
    assert_eq!(reader.n_tokens(), all.iter().map(|w| w.token_ids.len() as u64).sum::<u64>());
    for (idx, window) in all.iter().enumerate().step_by(7) {
        assert_eq!(reader.window(idx).unwrap().as_ref(), Some(window));
        assert_eq!(reader.window_of(window.doc, window.window).unwrap().as_ref(), Some(window));
    }
    assert_eq!(reader.window(900).unwrap(), None);
    assert_eq!(reader.window_of(DocId(99 << 40), 0).unwrap(), None);
}

#[test]
fn a_vocabulary_keeps_bytes_that_are_no_characters() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = vec![b"the".to_vec(), vec![0xe2, 0x8c], Vec::new(), vec![0]];
    let path = dir.path().join("vocab");
    write_atomic(&path, |w| write_vocab(w, &tokens)).unwrap();
    assert_eq!(read_vocab(&path).unwrap(), tokens);
}

#[test]
fn latents_come_back_exactly_and_empty_tables_are_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latents");
    for rows in [latents(300), Vec::new()] {
        write_atomic(&path, |w| write_latents(w, &rows)).unwrap();
        assert_eq!(read_latents(&path).unwrap(), rows);
    }
}

#[test]
fn the_examples_of_a_latent_are_found_and_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("examples");
    let all = examples(500);
    let mut shuffled = all.clone();
    shuffled.reverse();
    write_atomic(&path, |w| write_examples(w, &shuffled)).unwrap();
    let reader = ExampleReader::open(std::slice::from_ref(&path)).unwrap();
    for latent in [0, 1, 250, 499] {
        let mut expected: Vec<_> = all.iter().filter(|e| e.latent.0 == latent).cloned().collect();
        expected.sort_by_key(|e| (e.level, e.kind, e.hash));
        assert_eq!(reader.latent(LatentId(latent)).unwrap(), expected);
    }
    assert!(reader.latent(LatentId(500)).unwrap().is_empty());
    assert_eq!(read_examples(&path).unwrap().len(), all.len());
}

#[test]
fn the_same_rows_give_the_same_bytes_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |name: &str, rows: &[Example]| {
        let path = dir.path().join(name);
        write_atomic(&path, |w| write_examples(w, rows)).unwrap();
        std::fs::read(&path).unwrap()
    };
    let mut rows = examples(300);
    let forward = bytes("a", &rows);
    rows.reverse();
    assert!(forward == bytes("b", &rows));
}

#[test]
fn a_table_of_another_kind_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    write_atomic(&path, |w| write_windows(w, &windows(3))).unwrap();
    let error = read_latents(&path).unwrap_err().to_string();
    assert!(error.contains("latents") && error.contains("tokens"), "{error}");
    assert!(read_latents(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
}
