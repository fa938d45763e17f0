//! From a task to rows of tokens, with the positions that are asked about.

use exegete_base::sampling::pair_hash;
use exegete_base::settings::{ProbeSettings, TextSettings};
use exegete_model::{Model, Tokenizer};
use exegete_store::{Labelled, Task, TaskDocument};

use crate::windows::bos_and_room;
use crate::{HarvestError, Result};

/// Candidates that are looked at for each example that is wanted: examples come from more documents then.
const CANDIDATES: usize = 8;
/// One document in so many is to test on.
const TEST_ONE_IN: u64 = 5;

/// What is asked of a row.
pub(super) enum Asked {
    /// Means over all its positions but the first.
    Mean(Vec<u32>),
    /// Some positions, each with its labels, ascending.
    At(Vec<(usize, Vec<u32>)>),
}

/// A row of tokens.
pub(super) struct Row {
    pub(super) ids: Vec<u32>,
    pub(super) asked: Asked,
    /// The document's number in the task.
    pub(super) document: u32,
    pub(super) is_test: bool,
}

impl Row {
    fn n_asked(&self) -> usize {
        match &self.asked {
            Asked::Mean(_) => 1,
            Asked::At(at) => at.len(),
        }
    }
}

/// The rows of a task that hold the wanted number of examples, of documents drawn by hash.
///
/// # Errors
/// Windows that do not fit, and tokens that do not spell the text, so that its labels have no place.
pub(super) fn rows(
    model: &Model,
    task: &Task,
    text: &TextSettings,
    settings: &ProbeSettings,
    seed: u64,
) -> Result<Vec<Row>> {
    let cut = Cut { tokenizer: model.tokenizer()?, window: bos_and_room(model, text)?, text };
    let mut order: Vec<usize> = (0..task.documents.len()).collect();
    order.sort_by_key(|i| pair_hash(seed, *i as u64, 0x646f));
    if task.labelled == Labelled::FirstLetter {
        // Words that are few tokens: where a word is one, what is known of its letters stands at that token.
        let mut keyed = Vec::with_capacity(order.len());
        for i in order {
            keyed.push((cut.tokenizer.encode_text(&format!(" {}", task.documents[i].text))?.len(), i));
        }
        keyed.sort_by_key(|(n, _)| *n);
        order = keyed.into_iter().map(|(_, i)| i).take(settings.probe_examples).collect();
    }
    let (mut rows, mut n) = (Vec::new(), 0);
    for i in &order {
        let document = &task.documents[*i];
        let found = match task.labelled {
            Labelled::Document => cut.document(document)?,
            Labelled::FirstLetter => vec![cut.word(
                document,
                &task.documents,
                &order,
                settings.icl_examples,
                pair_hash(seed, *i as u64, 1),
            )?],
            Labelled::Word => cut.spans(document, false)?,
            Labelled::Token => cut.spans(document, true)?,
        };
        let is_test = pair_hash(seed, *i as u64, 0x7370).is_multiple_of(TEST_ONE_IN);
        for (ids, asked) in found {
            if ids.len() > model.spec.max_positions {
                let detail = format!("a row of {} tokens is longer than the model's context", ids.len());
                return Err(HarvestError::Request(format!("{detail}; lower --icl-examples or --window")));
            }
            let row = Row { ids, asked, document: *i as u32, is_test };
            n += row.n_asked();
            rows.push(row);
        }
        if n >= CANDIDATES * settings.probe_examples {
            break;
        }
    }
    thin(&mut rows, settings.probe_examples, seed);
    Ok(rows)
}

/// Keeps as many examples as are wanted, drawn by hash; rows that have none left go.
fn thin(rows: &mut Vec<Row>, wanted: usize, seed: u64) {
    for is_test in [false, true] {
        let most = if is_test { wanted / TEST_ONE_IN as usize } else { wanted - wanted / TEST_ONE_IN as usize };
        let mut all: Vec<(u64, usize, usize)> = Vec::new();
        for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.is_test == is_test) {
            all.extend((0..row.n_asked()).map(|at| (pair_hash(seed, i as u64, at as u64), i, at)));
        }
        all.sort_unstable();
        let mut kept: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
        all.into_iter().take(most).for_each(|(_, i, at)| kept[i].push(at));
        for (row, kept) in rows.iter_mut().zip(kept).filter(|(row, _)| row.is_test == is_test) {
            match &mut row.asked {
                Asked::At(at) => {
                    let mut number = 0..;
                    at.retain(|_| number.next().is_some_and(|n| kept.contains(&n)));
                }
                Asked::Mean(_) if kept.is_empty() => row.asked = Asked::At(Vec::new()),
                Asked::Mean(_) => {}
            }
        }
    }
    rows.retain(|row| row.n_asked() > 0);
}

struct Cut<'a> {
    tokenizer: &'a Tokenizer,
    window: (Option<u32>, usize),
    text: &'a TextSettings,
}

impl Cut<'_> {
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(match self.text.special_tokens {
            true => self.tokenizer.encode_prompt(text)?,
            false => self.tokenizer.encode_text(text)?,
        })
    }

    fn begun(&self, ids: &[u32]) -> Vec<u32> {
        self.window.0.into_iter().chain(ids.iter().copied()).collect()
    }

    /// The first window of a document.
    fn document(&self, document: &TaskDocument) -> Result<Vec<(Vec<u32>, Asked)>> {
        let mut ids = self.ids(&document.text)?;
        ids.truncate(self.window.1);
        let row = self.begun(&ids);
        Ok(document.label.filter(|_| row.len() > 1).map(|label| (row, Asked::Mean(vec![label]))).into_iter().collect())
    }

    /// All windows of a document, asked at the last token of each span, or at every token for the spans that it is in.
    fn spans(&self, document: &TaskDocument, is_every_token: bool) -> Result<Vec<(Vec<u32>, Asked)>> {
        let ids = self.ids(&document.text)?;
        let ends = ends(self.tokenizer, &ids, &document.text)?;
        let mut labels: Vec<Option<Vec<u32>>> = vec![is_every_token.then(Vec::new); ids.len()];
        for [start, end, label] in &document.spans {
            // What is known at a token is what is known when its last byte has been read.
            let (first, last) = match is_every_token {
                true => (ends.partition_point(|e| e <= start), ends.partition_point(|e| e <= end)),
                false => {
                    let at = ends.partition_point(|e| e < end);
                    (at, at + 1)
                }
            };
            for labels in labels.iter_mut().take(last).skip(first) {
                let labels = labels.get_or_insert_default();
                if let Err(at) = labels.binary_search(label) {
                    labels.insert(at, *label);
                }
            }
        }
        let before = usize::from(self.window.0.is_some());
        let mut rows = Vec::new();
        for (ids, labels) in ids.chunks(self.window.1).zip(labels.chunks(self.window.1)) {
            let at = labels.iter().enumerate().filter_map(|(i, labels)| Some((i + before, labels.clone()?)));
            rows.push((self.begun(ids), Asked::At(at.filter(|(i, _)| *i > 0).collect())));
        }
        Ok(rows)
    }

    /// A word behind solved examples of the first-letter task, asked at its last token.
    fn word(
        &self,
        document: &TaskDocument,
        all: &[TaskDocument],
        others: &[usize],
        n_examples: usize,
        seed: u64,
    ) -> Result<(Vec<u32>, Asked)> {
        let mut text = String::from("\n");
        let drawn = (0u64..).map(|i| &all[others[(pair_hash(seed, i, 2) % others.len() as u64) as usize]].text);
        // Drawing goes on past the word itself; in a list of one word there is nothing else to draw.
        let drawn = drawn.take(10 * n_examples + 10).filter(|word| **word != document.text);
        for word in drawn.take(n_examples) {
            let letter = word.chars().next().unwrap_or_default().to_ascii_uppercase();
            text.push_str(&format!(" {word} has the first letter: {letter}\n"));
        }
        text.push(' ');
        text.push_str(&document.text);
        let ids = self.ids(&text)?;
        ends(self.tokenizer, &ids, &text)?;
        let labels = document.spans.iter().map(|[_, _, label]| *label).collect();
        let row = self.begun(&ids);
        let last = row.len() - 1;
        Ok((row, Asked::At(vec![(last, labels)])))
    }
}

/// For each token the number of bytes of the text that have been read with it.
fn ends(tokenizer: &Tokenizer, ids: &[u32], text: &str) -> Result<Vec<u32>> {
    let (mut spelled, mut ends) = (Vec::with_capacity(text.len() + 1), Vec::with_capacity(ids.len()));
    for id in ids {
        spelled.extend(tokenizer.token_bytes(*id));
        ends.push(spelled.len() as u32);
    }
    // Some tokenizers put a space before every text.
    let added = u32::from(spelled.len() == text.len() + 1 && spelled[0] == b' ');
    if &spelled[added as usize..] != text.as_bytes() {
        let detail = "the model's tokens do not spell the task's text byte for byte, so its labels have no place";
        return Err(HarvestError::Request(format!("{detail}; a task of whole documents can be asked")));
    }
    ends.iter_mut().for_each(|end| *end = end.saturating_sub(added));
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exegete_base::settings::BosPolicy;
    use exegete_testkit::require_data;

    fn text() -> TextSettings {
        TextSettings { window: 8, bos: BosPolicy::Never, ..TextSettings::default() }
    }

    #[test]
    fn labels_stand_at_the_tokens_that_end_their_words() {
        let data = require_data!();
        let byte_level = Tokenizer::from_dir(&data.join("tokenizers/smollm"), None).unwrap();
        let with_a_space_before = Tokenizer::from_llama2c(&data.join("models/stories260K/tok512.bin"), 512).unwrap();
        let words = ["Unbelievable", "cats", "sat", "\u{e9}tude", "overnight", "."];
        let mut document = TaskDocument::default();
        for (label, word) in words.iter().enumerate() {
            let start = document.text.len() + usize::from(label > 0);
            document.text = format!("{}{}{word}", document.text, if label > 0 { " " } else { "" });
            document.spans.push([start as u32, document.text.len() as u32, label as u32]);
        }
        let text = text();
        for (tokenizer, bos) in [(&byte_level, None), (&with_a_space_before, Some(1))] {
            let cut = Cut { tokenizer, window: (bos, 6), text: &text };
            let (mut met, mut each) = (Vec::new(), Vec::new());
            for (ids, asked) in cut.spans(&document, false).unwrap() {
                let Asked::At(at) = asked else { panic!("words are asked at positions") };
                for (position, labels) in at {
                    let word = words[labels[0] as usize];
                    let token = tokenizer.token_text(ids[position]);
                    assert!(
                        word.ends_with(token.trim_start()) || token.starts_with('\u{fffd}'),
                        "{token:?} ends {word}"
                    );
                    met.extend(labels);
                }
            }
            // A word that is the first token of a row without a token before it is at position 0, which is left out.
            assert!(met == [0, 1, 2, 3, 4, 5] || (bos.is_none() && met.len() >= 4), "{met:?}");
            for (_, asked) in cut.spans(&document, true).unwrap() {
                let Asked::At(at) = asked else { panic!("tokens are asked at positions") };
                each.extend(at.into_iter().flat_map(|(_, labels)| labels));
            }
            // Every token of a word has its label, and no word is passed over.
            each.dedup();
            assert!(met.iter().all(|label| each.contains(label)) && each.is_sorted(), "{each:?}");
        }
    }

    #[test]
    fn thinning_keeps_as_many_as_are_wanted_and_is_the_same_each_time() {
        let rows = || -> Vec<Row> {
            let row = |i: u32| Row {
                ids: vec![0; 9],
                asked: if i.is_multiple_of(3) {
                    Asked::Mean(vec![i])
                } else {
                    Asked::At((1..9).map(|p| (p, vec![i])).collect())
                },
                document: i,
                is_test: i.is_multiple_of(5),
            };
            (0..60).map(row).collect()
        };
        let kept = |wanted| {
            let mut rows = rows();
            thin(&mut rows, wanted, 3);
            let of = |is_test| rows.iter().filter(|r| r.is_test == is_test).map(Row::n_asked).sum::<usize>();
            (of(false), of(true), rows.iter().map(|row| row.document).collect::<Vec<u32>>())
        };
        assert_eq!((kept(100).0, kept(100).1), (80, 20));
        assert_eq!(kept(100), kept(100));
        assert_eq!(kept(100_000).2.len(), 60);
    }
}
