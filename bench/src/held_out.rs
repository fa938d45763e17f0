//! A part of a text's documents set apart, so that what is measured was not trained on.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use exegete_base::sampling::pair_hash;
use exegete_base::settings::TextSettings;
use exegete_harvest::windows::text_options;
use exegete_store::open_corpus;
use serde_json::json;

/// Writes the documents into `train.jsonl` and `held.jsonl` of FOLDER, of about `one_in` documents one into the latter, and
/// gives the names of both. Which one goes where hangs on its id alone.
pub(crate) fn split(paths: &[String], folder: &Path, one_in: u64) -> Result<[String; 2]> {
    let names = ["train.jsonl", "held.jsonl"].map(|name| folder.join(name));
    let mut files =
        [BufWriter::new(std::fs::File::create(&names[0])?), BufWriter::new(std::fs::File::create(&names[1])?)];
    for document in open_corpus(paths, &text_options(&TextSettings::default()))?.documents() {
        let document = document?;
        let file = &mut files[usize::from(pair_hash(1, document.id.0, 0).is_multiple_of(one_in))];
        writeln!(file, "{}", json!({"text": document.text}))?;
    }
    files.iter_mut().try_for_each(Write::flush)?;
    Ok(names.map(|name| name.display().to_string()))
}
