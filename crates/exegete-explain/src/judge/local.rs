//! A model of ours as the judge: what prompts have in common is computed once, and an answer is one token whose logits are read.
//!
//! For a latent with N examples and E explanations the instructions are run once, then every example and every explanation behind them,
//! none of which sees another; then one answer token for each of the N·E pairs, which sees the instructions, its own example and
//! its own explanation. So E explanations cost N·E tokens beside their own, where a prompt for each pair would cost some
//! hundred times as much. All examples stand at the same positions, so that there is no order that could matter.
//!
//! A judge that was made to read one text after the other sees something new here: an explanation has not read the example. How far
//! that changes verdicts is measured by [`Arrangement::Apart`], the same tokens as one prompt for each pair.

use std::cell::Cell;

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, GenerateOptions, Hooks, KvCache, Logits, Message, Model, Prefix, Sampling, Tokenizer};
use exegete_tensor::cpu::loss::log_sum_exp;
use exegete_tensor::{Tape, f32s};

use super::{Cost, Judge, Verdict, Writing};
use crate::question::Question;
use crate::{ExplainError, Result};

/// Answer tokens that are run at once.
const SLOTS_AT_ONCE: usize = 512;
/// Tokens that are run at once where logits of all of them are wanted.
const LOGITS_AT_ONCE: usize = 256;
/// Tokens that are run at once else.
const TOKENS_AT_ONCE: usize = 2048;
/// What a turn's text stands for while a chat template is cut open.
const MARK: &str = "\u{1}\u{2}";

/// What the parts of a prompt see of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrangement {
    /// Instructions once, examples and explanations apart from each other, an answer for each pair.
    #[default]
    Shared,
    /// A prompt for each pair: instructions, example, explanation, answer; the instructions are computed once.
    Apart,
    /// As `Apart`, nothing computed once: what a server without a cache does.
    Naive,
}

/// A local model that judges.
pub struct LocalJudge<'m> {
    model: &'m Model,
    name: String,
    arrangement: Arrangement,
    /// What stands before and behind a user's turn, with the opening of the answer's.
    turn: (String, String),
    /// Tokens of beginning-of-sequence, where the template does not write it.
    bos: Vec<u32>,
    cost: Cell<Cost>,
}

impl<'m> LocalJudge<'m> {
    /// A judge of this name.
    ///
    /// # Errors
    /// A model without a tokenizer, a chat template that fails.
    pub fn new(model: &'m Model, name: impl Into<String>) -> Result<Self> {
        let (turn, bos) = match &model.chat {
            Some(chat) => {
                let text = chat.render(&[Message::user(MARK)], true)?;
                let (before, behind) = text.split_once(MARK).ok_or_else(|| {
                    ExplainError::request("the judge's chat template does not write what the user says")
                })?;
                ((before.to_owned(), behind.to_owned()), Vec::new())
            }
            None => {
                let bos = model.tokenizer()?.bos(exegete_model::Bos::Auto)?;
                ((String::new(), "\n".to_owned()), bos.into_iter().collect())
            }
        };
        Ok(Self { model, name: name.into(), arrangement: Arrangement::Shared, turn, bos, cost: Cell::default() })
    }

    /// The same, its prompts arranged otherwise.
    #[must_use]
    pub fn arranged(self, arrangement: Arrangement) -> Self {
        Self { arrangement, ..self }
    }

    fn tokenizer(&self) -> Result<&Tokenizer> {
        Ok(self.model.tokenizer()?)
    }

    /// Tokens of a part of a prompt; what comes from corpora and explanations is text, whatever it spells.
    fn plain(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer()?.encode_text(text)?)
    }

    fn count(&self, computed: usize, shared: usize) {
        let cost = self.cost.get();
        self.cost.set(Cost { computed: cost.computed + computed as u64, shared: cost.shared + shared as u64, ..cost });
    }

    /// The beginning of a user's turn, with its first words.
    fn opening(&self, words: &str) -> Result<Vec<u32>> {
        let mut ids = self.bos.clone();
        ids.extend(self.tokenizer()?.encode_prompt(&self.turn.0)?);
        ids.extend(self.plain(words)?);
        Ok(ids)
    }

    /// The end of a user's turn, with the beginning of the answer.
    fn closing(&self, begun: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer()?.encode_prompt(&self.turn.1)?;
        ids.extend(self.plain(begun)?);
        Ok(ids)
    }

    /// The parts of a question as tokens.
    fn parts(&self, question: &Question, examples: &[String], explanations: &[String]) -> Result<Parts> {
        let (common, [yes, no]) = self.words(question)?;
        let mut closing = self.closing(&question.answer)?;
        closing.extend(common);
        let slot = closing.pop().ok_or_else(|| ExplainError::request("the beginning of the answer has no tokens"))?;
        let explanation = |text: &String| -> Result<Vec<u32>> {
            let mut ids = self.plain(&question.explanation(text))?;
            ids.extend(&closing);
            Ok(ids)
        };
        let parts = Parts {
            head: self.opening(&question.instructions)?,
            examples: examples.iter().map(|text| self.plain(&question.example(text))).collect::<Result<_>>()?,
            explanations: explanations.iter().map(explanation).collect::<Result<_>>()?,
            slot,
            yes,
            no,
        };
        let longest = parts.head.len() + parts.longest_example() + parts.longest_explanation() + 1;
        let most = self.model.spec.max_positions;
        if longest > most {
            let detail =
                format!("an example with its explanation takes {longest} tokens, and the judge's context has {most}");
            return Err(ExplainError::request(format!("{detail}; shorten the examples")));
        }
        Ok(parts)
    }

    /// What all words for yes and no begin with, and the tokens by which they then differ.
    fn words(&self, question: &Question) -> Result<(Vec<u32>, [Vec<u32>; 2])> {
        let tokens = |words: &[String]| words.iter().map(|word| self.plain(word)).collect::<Result<Vec<Vec<u32>>>>();
        let of = [tokens(&question.yes)?, tokens(&question.no)?];
        let common = common_beginning(of.iter().flatten());
        let next = of.map(|words| {
            let mut next: Vec<u32> = words.iter().filter_map(|ids| ids.get(common.len()).copied()).collect();
            next.sort_unstable();
            next.dedup();
            next
        });
        if next.iter().any(Vec::is_empty) || next[0].iter().any(|id| next[1].contains(id)) {
            return Err(ExplainError::request("the judge's vocabulary does not tell yes from no by one token"));
        }
        Ok((common, next))
    }

    /// Runs one row and ends its growth.
    fn head(&self, ids: &[u32]) -> Result<Prefix> {
        let mut cache = KvCache::new(&self.model.spec, 1, ids.len())?;
        self.model.run(&Tape::new(), &Batch::one(ids), Some(&mut cache), &mut Hooks::none(), Logits::None)?;
        self.count(ids.len(), 0);
        Ok(cache.freeze())
    }

    /// Runs rows behind the only row of a prefix, each beginning at position `start`.
    fn behind(&self, head: &Prefix, rows: &[Vec<u32>], start: usize) -> Result<Prefix> {
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut cache = head.fork(&vec![0; rows.len()], longest)?;
        let batch = Batch { starts_B: vec![start; rows.len()], ..Batch::rows(rows) };
        self.count(batch.ids.len(), rows.len() * head.len(0));
        self.model.run(&Tape::new(), &batch, Some(&mut cache), &mut Hooks::none(), Logits::None)?;
        Ok(cache.freeze())
    }

    fn shared(&self, parts: &Parts) -> Result<Vec<Vec<Verdict>>> {
        let head = self.head(&parts.head)?;
        // Examples may differ in length; the explanations stand behind the longest.
        let behind_examples = parts.head.len() + parts.longest_example();
        let examples = self.behind(&head, &parts.examples, parts.head.len())?;
        let explanations = self.behind(&head, &parts.explanations, behind_examples)?;
        let pairs: Vec<(usize, usize)> = (0..parts.explanations.len())
            .flat_map(|explanation| (0..parts.examples.len()).map(move |example| (example, explanation)))
            .collect();
        let mut verdicts = Vec::with_capacity(pairs.len());
        for pairs in pairs.chunks(SLOTS_AT_ONCE) {
            let joined = examples.beside(&explanations, pairs)?;
            let all: Vec<usize> = (0..pairs.len()).collect();
            let mut cache = joined.fork(&all, 1)?;
            let starts_B = pairs.iter().map(|(_, e)| behind_examples + parts.explanations[*e].len()).collect();
            let batch = Batch { starts_B, ..Batch::uniform(vec![parts.slot; pairs.len()], pairs.len()) };
            self.count(pairs.len(), all.iter().map(|row| joined.len(*row)).sum());
            verdicts.extend(self.answers(&batch, Some(&mut cache), parts)?);
        }
        Ok(verdicts.chunks(parts.examples.len().max(1)).map(<[Verdict]>::to_vec).collect())
    }

    /// A prompt for each pair.
    fn apart(&self, parts: &Parts, share_head: bool) -> Result<Vec<Vec<Verdict>>> {
        let head = if share_head { Some(self.head(&parts.head)?) } else { None };
        let mut all = Vec::with_capacity(parts.explanations.len());
        for explanation in &parts.explanations {
            let mut verdicts = Vec::with_capacity(parts.examples.len());
            let longest = parts.head.len() + parts.longest_example() + explanation.len() + 1;
            for examples in parts.examples.chunks((TOKENS_AT_ONCE / longest).max(1)) {
                let behind = examples.iter().map(|example| [example.as_slice(), explanation, &[parts.slot]].concat());
                let rows: Vec<Vec<u32>> = match &head {
                    Some(_) => behind.collect(),
                    None => behind.map(|row| [parts.head.as_slice(), &row].concat()).collect(),
                };
                let mut cache = match &head {
                    Some(head) => Some(head.fork(&vec![0; rows.len()], longest)?),
                    None => None,
                };
                let batch = Batch::rows(&rows);
                self.count(batch.ids.len(), head.as_ref().map_or(0, |head| rows.len() * head.len(0)));
                verdicts.extend(self.answers(&batch, cache.as_mut(), parts)?);
            }
            all.push(verdicts);
        }
        Ok(all)
    }

    /// Yes against no at the last token of each row.
    fn answers(&self, batch: &Batch, cache: Option<&mut KvCache>, parts: &Parts) -> Result<Vec<Verdict>> {
        let words: Vec<u32> = parts.yes.iter().chain(&parts.no).copied().collect();
        let logits = self.logits_at(batch, cache, &batch.last_tokens(), &words)?;
        let verdict = |logits: &[f32]| {
            let (yes, no) = logits.split_at(parts.yes.len());
            let log_odds = f64::from(log_sum_exp(yes) - log_sum_exp(no));
            log_odds.is_finite().then(|| 1.0 / (1.0 + (-log_odds).exp()))
        };
        Ok(logits.chunks_exact(words.len()).map(verdict).collect())
    }

    /// Logits of some of the vocabulary at some tokens of a batch: `[at, ids]`.
    fn logits_at(&self, batch: &Batch, cache: Option<&mut KvCache>, at: &[u32], ids: &[u32]) -> Result<Vec<f32>> {
        let site = Site::at(SiteKind::ResidPost, self.model.spec.n_layers - 1);
        let tape = Tape::new();
        let mut hooks = Hooks::none().tap(site);
        self.model.run(&tape, batch, cache, &mut hooks, Logits::None)?;
        let resid = hooks.value(site).ok_or_else(|| ExplainError::request(format!("{site} was not reached")))?;
        let d = self.model.spec.d_model;
        let resid = tape.reshape(resid, &[batch.ids.len(), d])?;
        Ok(self.model.unembed_only(&tape.rows(&resid, at)?, ids)?)
    }

    /// What all choices begin with, and the token by which each then differs.
    fn told_apart(&self, choices: &[String]) -> Result<(Vec<u32>, Vec<u32>)> {
        let all: Vec<Vec<u32>> = choices.iter().map(|text| self.plain(text)).collect::<Result<_>>()?;
        let common = common_beginning(all.iter());
        let next: Option<Vec<u32>> = all.iter().map(|ids| ids.get(common.len()).copied()).collect();
        let mut different = next.clone().unwrap_or_default();
        different.sort_unstable();
        different.dedup();
        match next.filter(|next| next.len() == different.len()) {
            Some(next) => Ok((common, next)),
            None => Err(ExplainError::request("the judge's vocabulary does not tell the choices apart by one token")),
        }
    }
}

/// The tokens that all lists begin with, the last of each left out: something must tell them apart.
fn common_beginning<'a>(all: impl Iterator<Item = &'a Vec<u32>> + Clone) -> Vec<u32> {
    let first = all.clone().next().map_or(&[][..], Vec::as_slice);
    let shared = |i: &usize| all.clone().all(|ids| ids.len() > i + 1 && ids[*i] == first[*i]);
    first[..(0..first.len()).take_while(shared).count()].to_vec()
}

/// Probabilities among the choices alone.
fn distribution(logits: &[f32]) -> Vec<f64> {
    let lse = log_sum_exp(logits);
    logits.iter().map(|x| f64::from(x - lse).exp()).collect()
}

/// A question's parts as tokens.
struct Parts {
    head: Vec<u32>,
    examples: Vec<Vec<u32>>,
    explanations: Vec<Vec<u32>>,
    slot: u32,
    yes: Vec<u32>,
    no: Vec<u32>,
}

impl Parts {
    fn longest_example(&self) -> usize {
        self.examples.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn longest_explanation(&self) -> usize {
        self.explanations.iter().map(Vec::len).max().unwrap_or(0)
    }
}

impl Judge for LocalJudge<'_> {
    fn name(&self) -> String {
        let how = match self.arrangement {
            Arrangement::Shared => "",
            Arrangement::Apart | Arrangement::Naive => ", a prompt for each example",
        };
        format!("{}{how}", self.name)
    }

    fn verdicts(&self, question: &Question, examples: &[String], explanations: &[String]) -> Result<Vec<Vec<Verdict>>> {
        if examples.is_empty() || explanations.is_empty() {
            return Ok(vec![Vec::new(); explanations.len()]);
        }
        let parts = self.parts(question, examples, explanations)?;
        match self.arrangement {
            Arrangement::Shared => self.shared(&parts),
            Arrangement::Apart => self.apart(&parts, true),
            Arrangement::Naive => self.apart(&parts, false),
        }
    }

    fn write(&self, request: &str, begun: &str, n: usize, how: &Writing) -> Result<Vec<Option<String>>> {
        let mut ids = self.opening(request)?;
        ids.extend(self.closing(begun)?);
        // The prompt is run once; rows part at its last token.
        let Some((last, before)) = ids.split_last() else { return Ok(vec![None; n]) };
        let prefix = self.head(before)?;
        let mut cache = prefix.fork(&vec![0; n], how.tokens + 1)?;
        let options = GenerateOptions {
            max_new_tokens: how.tokens,
            stop_ids: self.model.spec.eos_ids.clone(),
            stop_texts: Vec::new(),
            sampling: Sampling { temperature: how.temperature, top_p: how.top_p, seed: how.seed, ..Sampling::greedy() },
            guidance: None,
        };
        let batch = Batch::uniform(vec![*last; n], n);
        let made = self.model.generate_behind(&mut cache, batch, &options, &mut Hooks::none())?;
        let written: usize = made.ids.iter().map(Vec::len).sum();
        self.count(n + written, n * before.len());
        let cost = self.cost.get();
        self.cost.set(Cost { written: cost.written + written as u64, ..cost });
        let tokenizer = self.tokenizer()?;
        let text = |ids: &Vec<u32>| -> Result<Option<String>> {
            let text = tokenizer.decode(ids)?;
            Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
        };
        made.ids.iter().map(text).collect()
    }

    fn log_probabilities(&self, beginnings: &[String], texts: &[String]) -> Result<Vec<Vec<f64>>> {
        let texts: Vec<Vec<u32>> = texts.iter().map(|text| self.plain(text)).collect::<Result<_>>()?;
        let mut all = Vec::with_capacity(beginnings.len());
        for beginning in beginnings {
            let mut ids = self.bos.clone();
            ids.extend(self.plain(beginning)?);
            let Some((last, before)) = ids.split_last().filter(|(_, before)| !before.is_empty()) else {
                return Err(ExplainError::request("a text needs a beginning of two tokens or more"));
            };
            let prefix = self.head(before)?;
            let mut sums = Vec::with_capacity(texts.len());
            let longest = texts.iter().map(Vec::len).max().unwrap_or(0) + 1;
            for texts in texts.chunks((LOGITS_AT_ONCE / longest).max(1)) {
                // The last token of the beginning says what the first of the text is expected to be.
                let rows: Vec<Vec<u32>> = texts.iter().map(|text| [&[*last], text.as_slice()].concat()).collect();
                let mut cache = prefix.fork(&vec![0; rows.len()], longest)?;
                let batch = Batch::rows(&rows);
                self.count(batch.ids.len(), rows.len() * before.len());
                let logits = self.model.run(&Tape::new(), &batch, Some(&mut cache), &mut Hooks::none(), Logits::All)?;
                let Some(logits) = logits else { continue };
                let logits = f32s(logits.tensor())?;
                let mut at = logits.chunks_exact(self.model.spec.vocab_size);
                for text in texts {
                    let told = |(id, logits): (&u32, &[f32])| f64::from(logits[*id as usize] - log_sum_exp(logits));
                    sums.push(text.iter().zip(at.by_ref()).map(told).sum());
                    // Nothing is asked of what follows the text.
                    let _ = at.next();
                }
            }
            all.push(sums);
        }
        Ok(all)
    }

    fn choose(&self, prompts: &[(String, String)], choices: &[String]) -> Result<Vec<Vec<f64>>> {
        let (common, ids) = self.told_apart(choices)?;
        let row = |(request, begun): &(String, String)| -> Result<Vec<u32>> {
            Ok([self.opening(request)?, self.closing(begun)?, common.clone()].concat())
        };
        let mut rows: Vec<Vec<u32>> = prompts.iter().map(row).collect::<Result<_>>()?;
        // What all prompts begin with is run once; of one alone there is nothing to share.
        let shared = if rows.len() > 1 { common_beginning(rows.iter()).len() } else { 0 };
        let head = match shared {
            0 => None,
            n => Some(self.head(&rows[0][..n])?),
        };
        rows.iter_mut().for_each(|row| drop(row.drain(..shared)));
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut all = Vec::with_capacity(rows.len());
        for rows in rows.chunks((TOKENS_AT_ONCE / longest.max(1)).max(1)) {
            let batch = Batch::rows(rows);
            let mut cache = match &head {
                Some(head) => Some(head.fork(&vec![0; rows.len()], longest)?),
                None => None,
            };
            self.count(batch.ids.len(), rows.len() * shared);
            let logits = self.logits_at(&batch, cache.as_mut(), &batch.last_tokens(), &ids)?;
            all.extend(logits.chunks_exact(ids.len()).map(distribution));
        }
        Ok(all)
    }

    fn follow(
        &self,
        beginning: &str,
        pieces: &[String],
        (mark, shown): (&str, &str),
        choices: &[String],
    ) -> Result<Vec<Vec<f64>>> {
        let (common, choices) = self.told_apart(choices)?;
        let mut ids = self.bos.clone();
        ids.extend(self.plain(beginning)?);
        let (mark, shown) = ([self.plain(mark)?, common].concat(), self.plain(shown)?);
        let mut asked = Vec::with_capacity(pieces.len());
        for piece in pieces {
            ids.extend(self.plain(piece)?);
            ids.extend(&mark);
            asked.push((ids.len() - 1) as u32);
            ids.extend(&shown);
        }
        if ids.len() > self.model.spec.max_positions {
            let most = self.model.spec.max_positions;
            let detail = format!("a simulation of {} tokens, and the judge's context has {most}", ids.len());
            return Err(ExplainError::request(format!("{detail}; shorten the excerpts")));
        }
        self.count(ids.len(), 0);
        let logits = self.logits_at(&Batch::one(&ids), None, &asked, &choices)?;
        Ok(logits.chunks_exact(choices.len()).map(distribution).collect())
    }

    /// The mean of the residual stream two thirds of the way up, over the text's tokens.
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let layer = self.model.spec.n_layers * 2 / 3;
        let site = Site::at(SiteKind::ResidPost, layer);
        let d = self.model.spec.d_model;
        let mut vectors = Vec::with_capacity(texts.len());
        for texts in texts.chunks(TOKENS_AT_ONCE / 32) {
            let row = |text: &String| -> Result<Vec<u32>> {
                // The first position is unlike any other, so it is given to a token that says nothing.
                let mut ids = if self.bos.is_empty() { self.plain("\n")? } else { self.bos.clone() };
                ids.extend(self.plain(text)?);
                Ok(ids)
            };
            let rows: Vec<Vec<u32>> = texts.iter().map(row).collect::<Result<_>>()?;
            let (batch, mut hooks) = (Batch::rows(&rows), Hooks::none().tap(site).stop_after(layer));
            self.count(batch.ids.len(), 0);
            self.model.run(&Tape::new(), &batch, None, &mut hooks, Logits::None)?;
            let resid = hooks.value(site).ok_or_else(|| ExplainError::request(format!("{site} was not reached")))?;
            let resid = f32s(resid.tensor())?;
            let mut at = resid.chunks_exact(d);
            for row in &rows {
                let mut mean = vec![0f32; d];
                let skipped = usize::from(row.len() > 1);
                at.by_ref().take(skipped).for_each(drop);
                let share = 1.0 / (row.len() - skipped) as f32;
                for x in at.by_ref().take(row.len() - skipped) {
                    mean.iter_mut().zip(x).for_each(|(m, x)| *m += x * share);
                }
                vectors.push(mean);
            }
        }
        Ok(vectors)
    }

    fn cost(&self) -> Cost {
        self.cost.get()
    }
}
