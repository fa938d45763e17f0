//! Damaged files: cut short they are errors, with bits flipped they are errors or plain rows, and never a panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use exegete_base::{DocId, LatentId};
use exegete_store::examples::read_examples;
use exegete_store::interop::{Kept, read_kept, write_kept};
use exegete_store::tokens::read_windows;
use exegete_store::{
    AccumulatorSettings, Accumulators, Activation, ActivationReader, Curves, ExampleReader, Notes, TextOptions,
    TokenReader, Window, open_corpus, read_activations, read_latents, read_vocab, write_activations, write_atomic,
    write_examples, write_latents, write_vocab, write_windows,
};
use proptest::prelude::*;

use crate::{notes, tables};

type Reader = fn(&Path) -> bool;

/// A good file of each format and what reads it; the reader answers whether it was content.
fn formats(dir: &Path) -> Vec<(PathBuf, Reader)> {
    let at = |name: &str| dir.join(name);
    write_atomic(&at("tokens"), |w| write_windows(w, &tables::windows(300))).unwrap();
    write_atomic(&at("vocab"), |w| write_vocab(w, &[b"a".to_vec(), b"bc".to_vec()])).unwrap();
    write_atomic(&at("examples"), |w| write_examples(w, &tables::examples(40))).unwrap();
    write_atomic(&at("latents"), |w| write_latents(w, &tables::latents(40))).unwrap();
    let activation = |i: u32| Activation { row: i / 7, position: i % 7, latent: i % 40, value: i as f32 };
    write_atomic(&at("activations"), |w| write_activations(w, &(0..900).map(activation).collect::<Vec<_>>())).unwrap();
    let kept = (0..40).map(|i| (i, format!("{{\"density\": 0.{i}}}"))).collect();
    write_atomic(&at("imported"), |w| write_kept(w, &kept)).unwrap();
    write_atomic(&at("corpus.parquet"), |w| write_vocab(w, &[b"text".to_vec()])).unwrap();
    let mut state = Accumulators::new(5, AccumulatorSettings::default());
    let window = Window { doc: DocId(1), window: 0, start: 0, token_ids: vec![3; 9] };
    state.push_group(&window, LatentId(2), &[1, 4, 8], &[1.0, 2.0, 3.0]);
    write_atomic(&at("state"), |w| state.write_state(w)).unwrap();
    let mut database = Notes::open(&at("sqlite")).unwrap();
    let rows = [notes::explanation("self", 0, "text")];
    database.put_explanations(LatentId(1), "self", &rows, &Curves::default()).unwrap();
    drop(database);
    vec![
        (at("tokens"), |path| {
            let all = read_windows(path).is_ok();
            let by_index =
                TokenReader::open(&[path.to_owned()]).and_then(|r| (0..300).try_for_each(|i| r.window(i).map(drop)));
            all && by_index.is_ok()
        }),
        (at("vocab"), |path| read_vocab(path).is_ok()),
        (at("examples"), |path| {
            let all = read_examples(path).is_ok();
            all && ExampleReader::open(&[path.to_owned()]).and_then(|r| r.latent(LatentId(7))).is_ok()
        }),
        (at("latents"), |path| read_latents(path).is_ok()),
        (at("activations"), |path| {
            let all = read_activations(path).is_ok();
            all && ActivationReader::open(&[path.to_owned()]).and_then(|r| r.range(3..=9)).is_ok()
        }),
        (at("imported"), |path| {
            let of =
                |kept: BTreeMap<u32, String>| kept.iter().try_for_each(|(i, text)| Kept::of(path, *i, text).map(drop));
            read_kept(path).and_then(of).is_ok()
        }),
        (at("state"), |path| Accumulators::read_state(path).is_ok()),
        (at("sqlite"), |path| {
            let said = |n: &Notes| Ok((n.explanations_of(LatentId(1))?, n.curves_of(LatentId(1))?, n.search("text")?));
            let by_people = |n: &Notes| Ok((n.noted_latents()?, n.labels()?, n.ratings()?));
            Notes::open_read_only(path).and_then(|n| Ok((said(&n)?, by_people(&n)?))).is_ok()
        }),
        (at("corpus.parquet"), |path| {
            let options = TextOptions { parquet_column: "bytes".into(), ..TextOptions::default() };
            let specs = [path.to_string_lossy().into_owned()];
            open_corpus(&specs, &options).is_ok_and(|c| c.documents().all(|d| d.is_ok()))
        }),
    ]
}

#[test]
fn whole_files_are_read_and_every_cut_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let cut_dir = tempfile::tempdir().unwrap();
    for (path, read) in formats(dir.path()) {
        let whole = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_owned();
        // The last column holds bytes, not text: as a corpus the file is refused whole.
        assert_eq!(read(&path), name != "corpus.parquet", "{name:?}");
        let cut = cut_dir.path().join(&name);
        for len in (0..whole.len()).step_by(whole.len() / 40 + 1).chain([whole.len() - 1]) {
            fs::write(&cut, &whole[..len]).unwrap();
            assert!(!read(&cut), "{name:?} cut to {len} of {} bytes", whole.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn flipped_bits_never_bring_the_reader_down(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4),
        near_end in any::<bool>(),
    ) {
        // What is tested is that each call comes back; a flip may also leave readable rows.
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let dir = tempfile::tempdir().unwrap();
        for (path, read) in formats(dir.path()) {
            let mut bytes = fs::read(&path).unwrap();
            // The footer is where the lengths are.
            let from = if near_end { bytes.len() * 2 / 3 } else { 0 };
            for (at, bit) in &flips {
                let at = from + at.index(bytes.len() - from);
                bytes[at] ^= 1 << bit;
            }
            fs::write(&path, &bytes).unwrap();
            read(&path);
        }
        std::panic::set_hook(quiet);
    }
}
