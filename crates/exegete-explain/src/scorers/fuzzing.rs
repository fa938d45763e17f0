//! Fuzzing: some tokens of an excerpt are marked, and the judge says whether they are those that the text speaks of.
//!
//! Marked are the tokens on which the latent fires with three tenths of its peak or more. Set against them are as many tokens of
//! excerpts on which it is silent, and, under `misplaced`, other tokens of the same excerpts. Source: EleutherAI/delphi.

use exegete_base::sampling::pair_hash;

use super::{Outcome, Task, detection};
use crate::Result;
use crate::examples::Excerpt;
use crate::question::Question;

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let question = Question::read("fuzzing.toml", include_str!("../../prompts/fuzzing.toml"))?;
    let tokenizer = task.subject.tokenizer()?;
    let n_marked = |excerpt: &Excerpt| (0..excerpt.ids.len()).filter(|i| excerpt.is_strong(*i)).count().max(1);
    let mut examples: Vec<String> = Vec::new();
    examples.extend(task.firing.iter().map(|e| e.marked(tokenizer, |i| e.is_strong(i))));
    let by_chance = |excerpt: &Excerpt, salt: u64, n: usize| -> Option<String> {
        let mut others: Vec<usize> = (0..excerpt.ids.len()).filter(|i| excerpt.values[*i] == 0.0).collect();
        others
            .sort_by_key(|i| pair_hash(task.seed ^ salt, excerpt.doc.0, (u64::from(excerpt.window) << 16) + *i as u64));
        others.truncate(n);
        (!others.is_empty()).then(|| excerpt.marked(tokenizer, |i| others.contains(&i)))
    };
    let mut sorts = Vec::new();
    for (sort, excerpts) in task.silent {
        // As many marks as the excerpts have on which it fires, one after the other.
        let marked = excerpts.iter().enumerate().filter_map(|(i, excerpt)| {
            let n = task.firing.get(i % task.firing.len().max(1)).map_or(1, n_marked);
            by_chance(excerpt, 1, n)
        });
        let before = examples.len();
        examples.extend(marked);
        sorts.push((sort.name(), examples.len() - before));
    }
    let before = examples.len();
    examples.extend(task.firing.iter().filter_map(|excerpt| by_chance(excerpt, 2, n_marked(excerpt))));
    sorts.push(("misplaced", examples.len() - before));
    let verdicts = detection::asked(task, &question, &examples)?;
    Ok(detection::with_correction(task, verdicts, (task.firing.len(), &sorts)))
}
