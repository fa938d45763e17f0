//! Texts with labels, for probes: documents with one label each, words with a tag each, words alone, and the labelled
//! documents of the organism's language.
//!
//! | file | form | a label belongs to |
//! |---|---|---|
//! | `.jsonl` | `{"text": ..., "label": ...}` a line | the document |
//! | `.jsonl` | `{"words": [...], "tags": [...]}` a line, or `tokens` and `pos` for them | the word |
//! | `.txt` | a word a line | the word: its first letter |
//! | `.parquet` | [labelled documents](crate::labelled), with `concepts.parquet` beside them or above | every token |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::corpus::expand;
use crate::error::{Result, StoreError};
use crate::labelled::{read_concepts, read_labelled};

/// The names of concepts, beside labelled documents or above.
const CONCEPTS: &str = "concepts.parquet";

/// What has a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labelled {
    /// A whole document, whose text is read from its beginning.
    Document,
    /// A word of a document.
    Word,
    /// A word that stands alone, and is read behind examples of its task.
    FirstLetter,
    /// Every token, with all concepts that it is part of.
    Token,
}

/// A document of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskDocument {
    /// The text.
    pub text: String,
    /// The document's label, where documents have one.
    pub label: Option<u32>,
    /// Stretches of the text with a label: first byte, the byte behind the last, the label.
    pub spans: Vec<[u32; 3]>,
    /// A second property of the document, where it was asked for and is there.
    pub group: Option<u32>,
}

/// A task: texts with labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The path as given.
    pub name: String,
    /// What has a label.
    pub labelled: Labelled,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// The documents.
    pub documents: Vec<TaskDocument>,
}

/// Reads a task from a file, a directory or a glob. `group` is the key of a `.jsonl` record that holds its second property.
///
/// # Errors
/// No file, files of several forms, and what does not have the form, with file and line.
pub fn read_task(spec: &str, group: &str) -> Result<Task> {
    let mut paths = expand(spec)?;
    paths.retain(|path| path.file_name().is_none_or(|name| name != CONCEPTS));
    paths.sort();
    let Some(first) = paths.first() else { return Err(StoreError::NoFiles { spec: spec.into() }) };
    let mut reading = Reading::default();
    for path in &paths {
        let labelled = match extension(path) {
            "jsonl" => reading.jsonl(path, group)?,
            "txt" => reading.words(path)?,
            _ => reading.concepts(path)?,
        };
        if *reading.labelled.get_or_insert(labelled) != labelled {
            let reason = format!("its records have another form than those of {}; give one of them", first.display());
            return Err(StoreError::damaged(path, reason));
        }
    }
    match reading.labelled {
        Some(labelled) if !reading.documents.is_empty() => Ok(Task {
            name: spec.into(),
            labelled,
            labels: reading.labels.names,
            groups: reading.groups.names,
            documents: reading.documents,
        }),
        _ => Err(StoreError::damaged(first, "it holds no record with a label")),
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default()
}

/// Names with numbers, in the order in which they are met.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    numbers: BTreeMap<String, u32>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

#[derive(Default)]
struct Reading {
    labelled: Option<Labelled>,
    labels: Names,
    groups: Names,
    documents: Vec<TaskDocument>,
}

impl Reading {
    fn jsonl(&mut self, path: &Path, group: &str) -> Result<Labelled> {
        let text = read(path)?;
        let mut labelled = Labelled::Document;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bad = |reason: String| StoreError::BadJson { path: path.into(), line: number as u64 + 1, reason };
            let record: Map<String, Value> =
                serde_json::from_str(line).map_err(|e| bad(format!("no JSON object: {e}")))?;
            let mut document = TaskDocument::default();
            let words = record.get("words").or(record.get("tokens"));
            let tags = record.get("tags").or(record.get("pos"));
            if let (Some(Value::String(text)), Some(label)) = (record.get("text"), record.get("label")) {
                document.text.clone_from(text);
                document.label = Some(self.labels.number(&named(label).ok_or_else(|| {
                    bad("\"label\" is neither a string nor a whole number nor a truth value".into())
                })?));
            } else if let (Some(Value::Array(words)), Some(Value::Array(tags))) = (words, tags) {
                labelled = Labelled::Word;
                if words.len() != tags.len() {
                    return Err(bad(format!("{} words with {} tags", words.len(), tags.len())));
                }
                for (word, tag) in words.iter().zip(tags) {
                    let (Some(word), Some(tag)) = (word.as_str(), named(tag)) else {
                        return Err(bad("a word or a tag is no string".into()));
                    };
                    if word.is_empty() {
                        continue;
                    }
                    if !document.text.is_empty() {
                        document.text.push(' ');
                    }
                    let start = document.text.len() as u32;
                    document.text.push_str(word);
                    document.spans.push([start, document.text.len() as u32, self.labels.number(&tag)]);
                }
            } else {
                let keys: Vec<&str> = record.keys().map(String::as_str).collect();
                return Err(bad(format!(
                    "a record needs \"text\" and \"label\", or \"words\" and \"tags\"; here are {}",
                    keys.join(", ")
                )));
            }
            document.group = record.get(group).and_then(named).map(|name| self.groups.number(&name));
            self.documents.push(document);
        }
        Ok(labelled)
    }

    fn words(&mut self, path: &Path) -> Result<Labelled> {
        // In the order of the alphabet, whatever word comes first.
        for letter in 'a'..='z' {
            self.labels.number(&letter.to_string());
        }
        for word in read(path)?.lines().map(str::trim) {
            let letters = word.chars().all(|c| c.is_ascii_alphabetic());
            let Some(letter) = word.chars().next().filter(|_| letters) else { continue };
            let label = self.labels.number(&letter.to_ascii_lowercase().to_string());
            let spans = vec![[0, word.len() as u32, label]];
            self.documents.push(TaskDocument { text: word.into(), spans, ..TaskDocument::default() });
        }
        Ok(Labelled::FirstLetter)
    }

    fn concepts(&mut self, path: &Path) -> Result<Labelled> {
        let folders = path.ancestors().skip(1).take(2);
        let found: Option<PathBuf> = folders.map(|dir| dir.join(CONCEPTS)).find(|path| path.is_file());
        let names = found.ok_or_else(|| {
            StoreError::damaged(path, format!("there is no {CONCEPTS} beside it or above, which names its labels"))
        })?;
        let numbers: Vec<u32> = read_concepts(&names)?.iter().map(|c| self.labels.number(&c.name)).collect();
        for document in read_labelled(path)? {
            let span = |[start, end, concept]: &[u32; 3]| {
                let number = numbers.get(*concept as usize).ok_or_else(|| {
                    StoreError::damaged(path, format!("concept {concept} has no name in {}", names.display()))
                })?;
                Ok([*start, *end, *number])
            };
            let spans = document.spans.iter().map(span).collect::<Result<_>>()?;
            self.documents.push(TaskDocument { text: document.text, spans, ..TaskDocument::default() });
        }
        Ok(Labelled::Token)
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(StoreError::io("read", path))?;
    String::from_utf8(bytes).map_err(|e| {
        let offset = e.utf8_error().valid_up_to() as u64;
        StoreError::NotUtf8 { path: path.into(), offset }
    })
}

/// A label as a name.
fn named(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) => Some(value.to_string()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, content: &str) -> Result<Task> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        read_task(&path.display().to_string(), "genre")
    }

    #[test]
    fn each_form_gives_its_labels() {
        let documents =
            task("a.jsonl", "{\"text\": \"bad\", \"label\": \"neg\"}\n\n{\"text\": \"good\", \"label\": 1}\n").unwrap();
        assert_eq!((documents.labelled, &documents.labels[..]), (Labelled::Document, &["neg".into(), "1".into()][..]));
        let tags = r#"{"genre": "talk", "words": ["OK", "then", "OK"], "tags": ["UH", "RB", "UH"]}"#;
        let words = task("b.jsonl", tags).unwrap();
        assert_eq!((words.labelled, words.documents[0].text.as_str()), (Labelled::Word, "OK then OK"));
        assert_eq!(
            (&words.documents[0].spans[..], words.documents[0].group),
            (&[[0, 2, 0], [3, 7, 1], [8, 10, 0]][..], Some(0))
        );
        let letters = task("c.txt", "beta\nAlpha\nit's\n").unwrap();
        assert_eq!((letters.labelled, letters.labels.len(), letters.documents.len()), (Labelled::FirstLetter, 26, 2));
        assert_eq!(letters.documents[1].spans, [[0, 5, 0]]);
    }

    #[test]
    fn what_has_no_form_is_told_with_its_line() {
        for (content, part) in [
            ("{\"text\": \"bad\"}", "line 1: a record needs"),
            ("{\"text\": \"a\", \"label\": \"b\"}\n{\"text\": \"a\", \"label\": []}", "line 2: \"label\" is neither"),
            ("{\"words\": [\"a\"], \"tags\": []}", "1 words with 0 tags"),
            ("[1]", "line 1: no JSON object"),
            ("", "no record with a label"),
        ] {
            let error = task("a.jsonl", content).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("a.jsonl"), "{error}");
        }
        assert!(task("a.parquet", "no").is_err());
        assert!(read_task("nowhere/at/all", "group").unwrap_err().to_string().contains("nowhere"));
    }
}
