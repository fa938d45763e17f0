//! Documents of which it is known which concept is where: `documents.parquet`, and `concepts.parquet` with the names.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, RecordBatch, StringArray};

use crate::error::Result;
use crate::table::{self, Columns};

const DOCUMENTS: &str = "labelled-documents";
const CONCEPTS: &str = "concepts";
const GROUP_ROWS: usize = 1024;
/// What stands for no parent.
const NONE: u32 = u32::MAX;

/// A document with its labels and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledDocument {
    /// The text.
    pub text: String,
    /// Kind of document.
    pub kind: String,
    /// Seed and number under which its generator makes it again.
    pub seed: u64,
    /// See `seed`.
    pub index: u64,
    /// -log p of what shows in it, given what stands behind it, in nats.
    pub visible_nats: f32,
    /// -log p of what stands behind it, in nats.
    pub hidden_nats: f32,
    /// Stretches of the text with a concept in them: first byte, the byte behind the last, the concept's number.
    pub spans: Vec<[u32; 3]>,
}

/// A concept's row: its place in the file is its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConceptRow {
    /// Name.
    pub name: String,
    /// How far it reaches: token, phrase or topic.
    pub reach: String,
    /// The concept above it.
    pub parent: Option<u32>,
}

/// Writes documents. The column `text` makes the file a corpus like any other.
///
/// # Errors
/// Those of the writer.
pub fn write_labelled(writer: &mut (impl Write + Send), rows: &[LabelledDocument]) -> io::Result<()> {
    table::write_rows(writer, DOCUMENTS, &[], rows, GROUP_ROWS, |rows| {
        let side = |i: usize| rows.iter().map(|d| d.spans.iter().map(|s| s[i]).collect()).collect::<Vec<Vec<u32>>>();
        let lists = |i: usize| table::lists::<UInt32Type>(side(i).iter().map(Vec::as_slice));
        RecordBatch::try_from_iter([
            ("text", texts(rows.iter().map(|d| d.text.as_str()))),
            ("kind", texts(rows.iter().map(|d| d.kind.as_str()))),
            ("seed", table::numbers::<UInt64Type>(rows.iter().map(|d| d.seed))),
            ("index", table::numbers::<UInt64Type>(rows.iter().map(|d| d.index))),
            ("visible_nats", table::numbers::<Float32Type>(rows.iter().map(|d| d.visible_nats))),
            ("hidden_nats", table::numbers::<Float32Type>(rows.iter().map(|d| d.hidden_nats))),
            ("span_start", lists(0)),
            ("span_end", lists(1)),
            ("span_concept", lists(2)),
        ])
    })
}

/// Reads documents with their labels.
///
/// # Errors
/// [`crate::StoreError::Damaged`] and its kin: spans that are no stretches of their text are damage too.
pub fn read_labelled(path: &Path) -> Result<Vec<LabelledDocument>> {
    table::read_rows(path, table::open_kind(path, DOCUMENTS)?, |columns, rows| {
        let (text, kind) = (columns.texts("text")?, columns.texts("kind")?);
        let (seed, index) = (columns.numbers::<UInt64Type>("seed")?, columns.numbers::<UInt64Type>("index")?);
        let visible = columns.numbers::<Float32Type>("visible_nats")?;
        let hidden = columns.numbers::<Float32Type>("hidden_nats")?;
        let sides = [
            columns.lists::<UInt32Type>("span_start")?,
            columns.lists::<UInt32Type>("span_end")?,
            columns.lists::<UInt32Type>("span_concept")?,
        ];
        for i in 0..columns.len() {
            let [start, end, concept] = [0, 1, 2].map(|s| sides[s].row(i));
            let spans: Vec<[u32; 3]> = start.iter().zip(end).zip(concept).map(|((s, e), c)| [*s, *e, *c]).collect();
            let fits = |s: &[u32; 3]| s[0] < s[1] && text[i].get(s[0] as usize..s[1] as usize).is_some();
            if spans.len() != start.len().max(end.len()).max(concept.len()) || !spans.iter().all(fits) {
                return Err(columns.damaged(format!("the spans of document {i} do not fit its text")));
            }
            rows.push(LabelledDocument {
                text: text[i].to_owned(),
                kind: kind[i].to_owned(),
                seed: seed[i],
                index: index[i],
                visible_nats: visible[i],
                hidden_nats: hidden[i],
                spans,
            });
        }
        Ok(())
    })
}

/// Writes the names of concepts, in the order of their numbers.
///
/// # Errors
/// Those of the writer.
pub fn write_concepts(writer: &mut (impl Write + Send), rows: &[ConceptRow]) -> io::Result<()> {
    table::write_rows(writer, CONCEPTS, &[], rows, 1 << 16, |rows| {
        RecordBatch::try_from_iter([
            ("name", texts(rows.iter().map(|c| c.name.as_str()))),
            ("reach", texts(rows.iter().map(|c| c.reach.as_str()))),
            ("parent", table::numbers::<UInt32Type>(rows.iter().map(|c| c.parent.unwrap_or(NONE)))),
        ])
    })
}

/// Reads the names of concepts.
///
/// # Errors
/// [`crate::StoreError::Damaged`] and its kin.
pub fn read_concepts(path: &Path) -> Result<Vec<ConceptRow>> {
    table::read_rows(path, table::open_kind(path, CONCEPTS)?, |columns: &Columns, rows| {
        let (name, reach) = (columns.texts("name")?, columns.texts("reach")?);
        for (i, parent) in columns.numbers::<UInt32Type>("parent")?.iter().enumerate() {
            let parent = Some(*parent).filter(|p| *p != NONE);
            rows.push(ConceptRow { name: name[i].to_owned(), reach: reach[i].to_owned(), parent });
        }
        Ok(())
    })
}

fn texts<'a>(rows: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows))
}
