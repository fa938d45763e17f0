//! Who judges: a local model, or a server.

pub mod local;
pub mod memory;
pub mod server;

use serde::Serialize;

use crate::Result;
use crate::question::Question;

/// What judging has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Tokens that were computed.
    pub computed: u64,
    /// Tokens that were looked at without being computed again.
    pub shared: u64,
    /// Tokens that were written.
    pub written: u64,
    /// Requests to a server.
    pub requests: u64,
    /// Answers that lay on the disk.
    pub remembered: u64,
    /// Money, in the unit of the prices given.
    pub money: f64,
}

impl Cost {
    /// What came since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            computed: self.computed - before.computed,
            shared: self.shared - before.shared,
            written: self.written - before.written,
            requests: self.requests - before.requests,
            remembered: self.remembered - before.remembered,
            money: self.money - before.money,
        }
    }
}

/// The probability of yes, between yes and no; none where the judge did not say either.
pub type Verdict = Option<f64>;

/// How a text is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Writing {
    /// Most tokens.
    pub tokens: usize,
    /// 0 takes the likeliest always.
    pub temperature: f32,
    /// Only the likeliest that together reach this probability.
    pub top_p: f32,
    /// Seed; each text of one request draws apart.
    pub seed: u64,
}

/// One who judges. What a single example met is `None` in its place and counted by the scorer; an error ends the work.
pub trait Judge {
    /// Its name as scores keep it.
    fn name(&self) -> String;

    /// Verdicts on every example under every explanation: `[explanations][examples]`.
    ///
    /// # Errors
    /// A refusal for good, a budget, a context that is too short.
    fn verdicts(&self, question: &Question, examples: &[String], explanations: &[String]) -> Result<Vec<Vec<Verdict>>>;

    /// Writes `n` answers to a request, which is a user's turn; `begun` is how the answer begins. None where it failed.
    ///
    /// # Errors
    /// As for [`Judge::verdicts`].
    fn write(&self, request: &str, begun: &str, n: usize, how: &Writing) -> Result<Vec<Option<String>>>;

    /// Sum of log-probabilities, in nats, of each text behind a beginning: `[beginnings][texts]`.
    ///
    /// # Errors
    /// As for [`Judge::verdicts`]; [`crate::ExplainError::Unable`] where the judge does not tell them.
    fn log_probabilities(&self, beginnings: &[String], texts: &[String]) -> Result<Vec<Vec<f64>>>;

    /// Distribution over the choices as the next token, for each prompt (a user's turn and how the answer begins): `[prompts][choices]`.
    ///
    /// # Errors
    /// As for [`Judge::log_probabilities`].
    fn choose(&self, prompts: &[(String, String)], choices: &[String]) -> Result<Vec<Vec<f64>>>;

    /// Distribution over the choices behind each piece of one text: the first of `marks` follows the piece and is where it is read, the second stands in
    /// the answer's place: `[pieces][choices]`.
    ///
    /// # Errors
    /// As for [`Judge::log_probabilities`].
    fn follow(
        &self,
        beginning: &str,
        pieces: &[String],
        marks: (&str, &str),
        choices: &[String],
    ) -> Result<Vec<Vec<f64>>>;

    /// A vector for each text.
    ///
    /// # Errors
    /// As for [`Judge::log_probabilities`].
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>>;

    /// What it has cost so far.
    fn cost(&self) -> Cost;

    /// How often it has said yes of the example at each place of a prompt, and of how many there: what shows whether the place decides.
    /// Empty for one who is shown one example at a time, or all of them at the same place.
    fn by_place(&self) -> Vec<(f64, u64)> {
        Vec::new()
    }
}
