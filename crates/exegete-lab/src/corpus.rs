//! A corpus of the language on disk, with its labels.

use std::path::Path;

use exegete_harvest::Progress;
use exegete_model::Tokenizer;
use exegete_store::labelled::{write_concepts, write_labelled};
use exegete_store::run::part_name;
use exegete_store::{ConceptRow, LabelledDocument, write_atomic};

use crate::language::{KINDS_OF_DOCUMENTS, Language, Split};
use crate::{LabError, Result};

/// Documents of a file.
const DOCUMENTS_A_PART: usize = 50_000;
/// The names of concepts.
pub const CONCEPTS: &str = "concepts.parquet";
/// Files of documents begin with this.
pub const DOCUMENTS: &str = "documents";

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Documents.
    pub documents: u64,
    /// Tokens, without those that begin and end documents.
    pub tokens: u64,
    /// Labels.
    pub spans: u64,
}

/// A document of the language as a row.
pub fn row(language: &Language, seed: u64, index: u64) -> LabelledDocument {
    let doc = language.document(seed, index, Split::Train);
    LabelledDocument {
        kind: KINDS_OF_DOCUMENTS[doc.kind].name.into(),
        seed,
        index,
        visible_nats: doc.visible_nats as f32,
        hidden_nats: doc.hidden_nats as f32,
        spans: doc.spans.iter().map(|s| [s.start, s.end, s.concept]).collect(),
        text: doc.text,
    }
}

/// Writes documents until they have `tokens` tokens, in files of their own under `dir`.
///
/// # Errors
/// The file system's; [`LabError::Interrupted`], when whole files are left.
pub fn write(
    dir: &Path,
    language: &Language,
    tokenizer: &Tokenizer,
    tokens: u64,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Written> {
    let names: Vec<ConceptRow> = language
        .concepts()
        .all()
        .iter()
        .map(|c| ConceptRow { name: c.name.clone(), reach: format!("{:?}", c.reach).to_lowercase(), parent: c.parent })
        .collect();
    write_atomic(&dir.join(CONCEPTS), |sink| write_concepts(sink, &names))?;
    progress.begin("corpus", tokens, "tokens", 0);
    let mut written = Written { documents: 0, tokens: 0, spans: 0 };
    let mut part = Vec::new();
    for number in 0.. {
        while written.tokens < tokens && part.len() < DOCUMENTS_A_PART {
            if progress.is_cancelled() {
                return Err(LabError::Interrupted);
            }
            let row = row(language, seed, written.documents);
            written.documents += 1;
            written.tokens += tokenizer.encode_prompt(&row.text)?.len() as u64;
            written.spans += row.spans.len() as u64;
            part.push(row);
            progress.at(written.tokens.min(tokens), "");
        }
        write_atomic(&dir.join(part_name(DOCUMENTS, number)), |sink| write_labelled(sink, &part))?;
        part.clear();
        if written.tokens >= tokens {
            break;
        }
    }
    progress.end(&format!("{} documents, {} tokens, {} labels", written.documents, written.tokens, written.spans));
    Ok(written)
}
