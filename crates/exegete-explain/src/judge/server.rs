//! Any server that speaks OpenAI's protocol: chat, completions with log-probabilities, embeddings.
//!
//! What can go wrong is told apart. An answer that makes no sense is one example without a verdict. A server that is busy, slow or away is
//! asked again, longer and longer apart; one that stays away ends the work, which goes on where it was when the command is
//! given again, for every answer lies on the disk. A wrong key or an unknown model ends it at once.
//!
//! The key comes from the environment, and goes into the header of a request and nowhere else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use exegete_base::sampling::pair_hash;
use serde_json::{Value, json};

use super::memory::Memory;
use super::{Cost, Judge, Verdict, Writing};
use crate::question::Question;
use crate::{ExplainError, Result};

/// Alternatives asked for beside the likeliest token.
const ALTERNATIVES: u32 = 10;
/// Bytes of an answer that are read.
const LONGEST_ANSWER: u64 = 16 << 20;
/// Bytes that a token is taken for where cost is foretold.
const BYTES_A_TOKEN: usize = 4;

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// What addresses begin with, as `http://127.0.0.1:8000/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The key, where one is needed.
    pub key: Option<String>,
    /// Requests under way at once.
    pub at_once: usize,
    /// Requests a minute at most; 0 for as many as there are.
    pub a_minute: u32,
    /// How often a request is sent again.
    pub retries: u32,
    /// Seconds until an answer counts as not coming.
    pub timeout_secs: u64,
    /// Examples of one prompt: 1 reads the probability of the answer where the server tells it; more ask for a list.
    pub examples_a_prompt: usize,
    /// Most tokens to be read and written; 0 for no limit.
    pub most_tokens: u64,
    /// Most money; 0 for no limit.
    pub most_money: f64,
    /// Price of a million tokens read, and written.
    pub prices: (f64, f64),
}

/// A server that judges.
pub struct ServerJudge {
    settings: ServerSettings,
    agent: ureq::Agent,
    memory: Option<Memory>,
    /// Nothing is sent; cost is foretold.
    dry: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cost: Cost,
    /// When the next request may be sent.
    next: Option<Instant>,
    /// Sum of the verdicts at each place of a list, and how many there were.
    by_place: Vec<(f64, u64)>,
}

/// What came of a request.
enum Answer {
    /// An envelope that could be read.
    Told(Value),
    /// Nothing that makes sense, or nothing was sent.
    Nothing,
}

impl ServerJudge {
    /// A server, and the folder where answers are kept.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(settings: ServerSettings, memory: Option<Memory>) -> Result<Self> {
        let known = ["http://", "https://"].iter().any(|scheme| settings.url.starts_with(scheme));
        if !known {
            let detail = format!("{:?} is no address of a server: it begins with http:// or https://", settings.url);
            return Err(ExplainError::request(detail));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(settings.timeout_secs.max(1))))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        Ok(Self { settings, agent: config.into(), memory, dry: false, state: Mutex::default() })
    }

    /// The same, sending nothing: [`Judge::cost`] tells what would be sent, answers on the disk left out.
    #[must_use]
    pub fn dry(self) -> Self {
        Self { dry: true, ..self }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A thread that died while it counted has at worst left one count out.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn count_places(&self, told: &[Verdict]) {
        let mut state = self.state();
        let n = state.by_place.len().max(told.len());
        state.by_place.resize(n, (0.0, 0));
        for (place, verdict) in state.by_place.iter_mut().zip(told) {
            if let Some(verdict) = verdict {
                *place = (place.0 + verdict, place.1 + 1);
            }
        }
    }

    /// Sends each request, some at once, in any order; answers are in order.
    fn ask_all(&self, path: &str, requests: &[Value]) -> Result<Vec<Answer>> {
        let next = AtomicUsize::new(0);
        let answers: Mutex<Vec<Option<Answer>>> = Mutex::new((0..requests.len()).map(|_| None).collect());
        let failed: Mutex<Option<ExplainError>> = Mutex::new(None);
        let lock = |answers: &Mutex<Vec<Option<Answer>>>, at: usize, answer: Answer| {
            answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[at] = Some(answer);
        };
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(at) else { return };
                match self.ask(path, request) {
                    Ok(answer) => lock(&answers, at, answer),
                    Err(error) => {
                        // The others finish what they have begun.
                        next.store(requests.len(), Ordering::Relaxed);
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.settings.at_once.clamp(1, requests.len().max(1)) {
                scope.spawn(work);
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            return Err(error);
        }
        let answers = answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(answers.into_iter().map(|answer| answer.unwrap_or(Answer::Nothing)).collect())
    }

    fn ask(&self, path: &str, request: &Value) -> Result<Answer> {
        let address = format!("{}{path}", self.settings.url.trim_end_matches('/'));
        if let Some(answer) = self.memory.as_ref().and_then(|memory| memory.recall(&address, request)) {
            self.state().cost.remembered += 1;
            return Ok(Answer::Told(answer));
        }
        if self.dry {
            self.foretell(request);
            return Ok(Answer::Nothing);
        }
        let mut away = String::new();
        for attempt in 0..=self.settings.retries {
            if attempt > 0 {
                let secs = 0.5 * f64::from(1u32 << attempt.min(6));
                std::thread::sleep(Duration::from_secs_f64(secs));
            }
            self.budget()?;
            self.wait();
            match self.send(&address, request)? {
                Sent::Answer(answer) => {
                    self.pay(request, &answer);
                    if let Some(memory) = &self.memory {
                        let kept = memory.keep(&address, request, &answer);
                        kept.map_err(|e| ExplainError::Failed(format!("an answer could not be kept: {e}")))?;
                    }
                    return Ok(Answer::Told(answer));
                }
                Sent::Senseless => return Ok(Answer::Nothing),
                Sent::Later(reason, secs) => {
                    away = reason;
                    if let Some(secs) = secs {
                        std::thread::sleep(Duration::from_secs(secs.min(60)));
                    }
                }
            }
        }
        let detail = format!(
            "{away}, {} times; what was answered is kept: start the server and give the command again",
            self.settings.retries + 1
        );
        Err(ExplainError::Refused { url: without_password(&address), reason: detail })
    }

    fn send(&self, address: &str, request: &Value) -> Result<Sent> {
        let mut call = self.agent.post(address).header("content-type", "application/json");
        if let Some(key) = &self.settings.key {
            call = call.header("authorization", &format!("Bearer {key}"));
        }
        self.state().cost.requests += 1;
        let mut response = match call.send(request.to_string()) {
            Ok(response) => response,
            Err(error) => return Ok(Sent::Later(format!("no answer ({error})"), None)),
        };
        let status = response.status().as_u16();
        let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let body = match response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec() {
            Ok(body) => body,
            Err(error) => return Ok(Sent::Later(format!("the answer broke off ({error})"), None)),
        };
        let said = || {
            let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
            // A server may repeat the key that it refuses: it is hidden before the text is cut.
            let hidden = self.settings.key.as_deref().filter(|key| !key.is_empty());
            let text = hidden.map_or(text.clone(), |key| text.replace(key, "(key)"));
            text.chars().filter(|c| !c.is_control()).take(300).collect::<String>()
        };
        let refused = |what: &str| {
            let reason = format!("{what} (status {status}): {}", said());
            Err(ExplainError::Refused { url: without_password(address), reason })
        };
        match status {
            200..=299 => match serde_json::from_slice::<Value>(&body) {
                // An error that comes as a success is no answer, and not kept.
                Ok(answer) if ["choices", "data"].iter().any(|key| answer.get(key).is_some_and(Value::is_array)) => {
                    Ok(Sent::Answer(answer))
                }
                _ => Ok(Sent::Senseless),
            },
            401 | 403 => refused("the key is wrong or missing; it is read from the variable that --judge-key names"),
            404 => refused("the address or the model is not known there"),
            408 | 409 | 425 | 429 | 500..=599 => Ok(Sent::Later(format!("status {status}"), wait)),
            _ => refused("the server takes no such request"),
        }
    }

    /// Waits until the rate allows another request.
    fn wait(&self) {
        if self.settings.a_minute == 0 {
            return;
        }
        let apart = Duration::from_secs_f64(60.0 / f64::from(self.settings.a_minute));
        let (now, mut state) = (Instant::now(), self.state());
        let mine = state.next.map_or(now, |next| next.max(now));
        state.next = Some(mine + apart);
        drop(state);
        std::thread::sleep(mine.saturating_duration_since(now));
    }

    fn budget(&self) -> Result<()> {
        let cost = self.state().cost;
        let (tokens, s) = (cost.computed + cost.written, &self.settings);
        if s.most_tokens > 0 && tokens >= s.most_tokens {
            return Err(ExplainError::Budget(format!(
                "{tokens} tokens were used, and --judge-tokens allows {}; what was answered is kept, raise it to go on",
                s.most_tokens
            )));
        }
        if s.most_money > 0.0 && cost.money >= s.most_money {
            return Err(ExplainError::Budget(format!(
                "{:.4} were spent, and --judge-money allows {}; what was answered is kept, raise it to go on",
                cost.money, s.most_money
            )));
        }
        Ok(())
    }

    /// Counts what an answer cost: by what the server says, by the length of the texts where it says nothing.
    fn pay(&self, request: &Value, answer: &Value) {
        let told = |key: &str| answer.get("usage").and_then(|usage| usage.get(key)).and_then(Value::as_u64);
        let written = || content(answer).map_or(0, |text| text.len().div_ceil(BYTES_A_TOKEN) as u64);
        let read = told("prompt_tokens").unwrap_or_else(|| length_of(request));
        self.spend(read, told("completion_tokens").unwrap_or_else(written));
    }

    fn spend(&self, read: u64, written: u64) {
        let mut state = self.state();
        state.cost.computed += read;
        state.cost.written += written;
        state.cost.money += (read as f64 * self.settings.prices.0 + written as f64 * self.settings.prices.1) / 1e6;
    }

    fn foretell(&self, request: &Value) {
        let written = request.get("max_tokens").and_then(Value::as_u64).unwrap_or(0);
        self.state().cost.requests += 1;
        self.spend(length_of(request), written);
    }

    fn chat(&self, content: &str, tokens: usize, probabilities: bool) -> Value {
        let mut request = json!({
            "model": self.settings.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": tokens,
            "temperature": 0.0,
        });
        if probabilities {
            request["logprobs"] = true.into();
            request["top_logprobs"] = ALTERNATIVES.into();
        }
        request
    }
}

enum Sent {
    Answer(Value),
    Senseless,
    Later(String, Option<u64>),
}

/// Tokens of what a request shows, by its length.
fn length_of(request: &Value) -> u64 {
    let text = request.get("messages").or(request.get("prompt")).or(request.get("input"));
    text.map_or(0, |text| (text.to_string().len() / BYTES_A_TOKEN) as u64)
}

/// An address without the name and the password that may stand in it.
fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (before, behind))) if !before.contains('/') => format!("{scheme}://{behind}"),
        _ => url.to_owned(),
    }
}

/// What a chat's answer says.
fn content(answer: &Value) -> Option<&str> {
    answer.pointer("/choices/0/message/content")?.as_str()
}

/// The likeliest first tokens with their probabilities, where the server tells them.
fn first_tokens(answer: &Value) -> Option<Vec<(String, f64)>> {
    let told = answer.pointer("/choices/0/logprobs/content/0/top_logprobs")?.as_array()?;
    let pair = |one: &Value| Some((one.get("token")?.as_str()?.to_owned(), one.get("logprob")?.as_f64()?.exp()));
    Some(told.iter().filter_map(pair).collect())
}

/// Yes against no in an answer: by probability where it is told, by the first word where not.
fn verdict(question: &Question, answer: &Value) -> Verdict {
    let is = |words: &[String], token: &str| words.iter().any(|word| word.trim().eq_ignore_ascii_case(token.trim()));
    if let Some(tokens) = first_tokens(answer) {
        let sum = |words: &[String]| tokens.iter().filter(|(t, _)| is(words, t)).map(|(_, p)| p).sum::<f64>();
        let (yes, no) = (sum(&question.yes), sum(&question.no));
        if yes + no > 0.0 {
            return Some(yes / (yes + no));
        }
    }
    let word = content(answer)?.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty())?;
    match (is(&question.yes, word), is(&question.no, word)) {
        (true, false) => Some(1.0),
        (false, true) => Some(0.0),
        _ => None,
    }
}

/// The verdicts of a list: the first brackets of the answer, which must hold one for each example.
fn listed(answer: &Value, n: usize) -> Option<Vec<Verdict>> {
    let text = content(answer)?;
    let from = text.find('[')?;
    let to = from + text[from..].find(']')?;
    let list: Vec<Value> = serde_json::from_str(&text[from..=to]).ok()?;
    let one = |value: &Value| match value {
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        Value::Number(number) => number.as_f64().filter(|number| (0.0..=1.0).contains(number)),
        _ => None,
    };
    (list.len() == n).then(|| list.iter().map(one).collect())
}

/// In which order the examples of lists are shown under an explanation; single ones need none.
fn order(row: usize, n: usize, group: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    if group > 1 {
        order.sort_by_key(|i| pair_hash(0, row as u64, *i as u64));
    }
    order
}

impl Judge for ServerJudge {
    fn by_place(&self) -> Vec<(f64, u64)> {
        self.state().by_place.clone()
    }

    fn name(&self) -> String {
        let host = self.settings.url.split("//").nth(1).unwrap_or(&self.settings.url);
        // What stands before an @ is a name and a password.
        let host = host.rsplit('@').next().unwrap_or(host);
        format!("{} at {}", self.settings.model, host.split('/').next().unwrap_or(host))
    }

    fn verdicts(&self, question: &Question, examples: &[String], explanations: &[String]) -> Result<Vec<Vec<Verdict>>> {
        let group = self.settings.examples_a_prompt.max(1);
        let mut requests = Vec::new();
        // Each explanation meets the examples of a list in an order of its own, so that no place goes with firing or with silence.
        let orders: Vec<Vec<usize>> = (0..explanations.len()).map(|row| order(row, examples.len(), group)).collect();
        for (explanation, order) in explanations.iter().zip(&orders) {
            for part in order.chunks(group) {
                let examples: Vec<&String> = part.iter().map(|i| &examples[*i]).collect();
                let examples = examples.as_slice();
                let mut text = question.instructions.clone();
                match examples {
                    [one] if group == 1 => text += &question.example(one),
                    many => {
                        for (i, one) in many.iter().enumerate() {
                            text += &format!("\n({}){}", i + 1, question.example(one));
                        }
                    }
                }
                text += &question.explanation(explanation);
                if group == 1 {
                    text += " Answer with one word.";
                    requests.push(self.chat(&text, 4, true));
                } else {
                    let n = examples.len();
                    text += &format!(
                        " Answer for each of the {n} texts, in their order, as a JSON list of {n} numbers, 1 for Yes and 0 for No, and nothing else."
                    );
                    requests.push(self.chat(&text, 8 + 4 * n, false));
                }
            }
        }
        let mut answers = self.ask_all("/chat/completions", &requests)?.into_iter();
        let mut all = Vec::with_capacity(explanations.len());
        for order in &orders {
            let mut row = vec![None; examples.len()];
            for part in order.chunks(group) {
                let n = part.len();
                let told = match answers.next() {
                    Some(Answer::Told(answer)) if group == 1 => vec![verdict(question, &answer)],
                    Some(Answer::Told(answer)) => listed(&answer, n).unwrap_or_else(|| vec![None; n]),
                    _ => vec![None; n],
                };
                if group > 1 {
                    self.count_places(&told);
                }
                part.iter().zip(told).for_each(|(i, verdict)| row[*i] = verdict);
            }
            all.push(row);
        }
        Ok(all)
    }

    fn write(&self, request: &str, _begun: &str, n: usize, how: &Writing) -> Result<Vec<Option<String>>> {
        let one = |i: usize| {
            let mut asked = self.chat(request, how.tokens, false);
            asked["temperature"] = f64::from(how.temperature).into();
            asked["top_p"] = f64::from(how.top_p).into();
            asked["seed"] = (how.seed.wrapping_add(i as u64) % (1 << 31)).into();
            asked
        };
        let requests: Vec<Value> = (0..n).map(one).collect();
        let told = |answer: Answer| match answer {
            Answer::Told(answer) => content(&answer).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
            Answer::Nothing => None,
        };
        Ok(self.ask_all("/chat/completions", &requests)?.into_iter().map(told).collect())
    }

    fn log_probabilities(&self, beginnings: &[String], texts: &[String]) -> Result<Vec<Vec<f64>>> {
        let pairs = beginnings.iter().flat_map(|beginning| texts.iter().map(move |text| (beginning, text)));
        let asked = |(beginning, text): (&String, &String)| {
            json!({
                "model": self.settings.model, "prompt": format!("{beginning}{text}"), "echo": true, "logprobs": 1,
                "max_tokens": 1, "temperature": 0.0,
            })
        };
        let requests: Vec<Value> = pairs.map(asked).collect();
        let answers = self.ask_all("/completions", &requests)?;
        let mut sums = Vec::with_capacity(answers.len());
        for (i, answer) in answers.into_iter().enumerate() {
            let [before, text] = [&beginnings[i / texts.len().max(1)], &texts[i % texts.len().max(1)]];
            let from = before.chars().count();
            let part = from..from + text.chars().count();
            sums.push(match answer {
                Answer::Told(answer) => echoed(&answer, part).ok_or_else(|| ExplainError::Unable {
                    judge: self.name(),
                    lacks:
                        "tells no log-probabilities of a prompt's tokens (completions with `echo`); use a local judge"
                            .into(),
                })?,
                Answer::Nothing => f64::NAN,
            });
        }
        Ok(sums.chunks(texts.len().max(1)).map(<[f64]>::to_vec).collect())
    }

    fn choose(&self, prompts: &[(String, String)], choices: &[String]) -> Result<Vec<Vec<f64>>> {
        let requests: Vec<Value> = prompts.iter().map(|(request, _)| self.chat(request, 4, true)).collect();
        let of = |answer: Answer| -> Vec<f64> {
            let nothing = vec![f64::NAN; choices.len()];
            let Answer::Told(answer) = answer else { return nothing };
            let tokens = first_tokens(&answer)
                .or_else(|| Some(vec![(content(&answer)?.trim().chars().next()?.to_string(), 1.0)]))
                .unwrap_or_default();
            let p = |choice: &String| tokens.iter().filter(|(t, _)| t.trim() == choice.trim()).map(|(_, p)| p).sum();
            let p: Vec<f64> = choices.iter().map(p).collect();
            let total: f64 = p.iter().sum();
            if total > 0.0 { p.iter().map(|p| p / total).collect() } else { nothing }
        };
        Ok(self.ask_all("/chat/completions", &requests)?.into_iter().map(of).collect())
    }

    fn follow(&self, _: &str, _: &[String], _: (&str, &str), _: &[String]) -> Result<Vec<Vec<f64>>> {
        let lacks = "cannot be asked about every token of a text at once; simulate with a local judge".into();
        Err(ExplainError::Unable { judge: self.name(), lacks })
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let asked = |texts: &[String]| json!({"model": self.settings.model, "input": texts});
        let requests: Vec<Value> = texts.chunks(32).map(asked).collect();
        let mut vectors = Vec::with_capacity(texts.len());
        for (answer, texts) in self.ask_all("/embeddings", &requests)?.into_iter().zip(texts.chunks(32)) {
            let Answer::Told(answer) = answer else {
                vectors.extend(vec![Vec::new(); texts.len()]);
                continue;
            };
            let vector = |one: &Value| {
                let numbers = one.get("embedding")?.as_array()?.iter();
                numbers.map(|x| x.as_f64().map(|x| x as f32)).collect::<Option<Vec<f32>>>()
            };
            let told: Option<Vec<Vec<f32>>> =
                answer.get("data").and_then(Value::as_array).and_then(|data| data.iter().map(vector).collect());
            match told.filter(|told| told.len() == texts.len()) {
                Some(told) => vectors.extend(told),
                None => {
                    let lacks = "gives no embeddings at /embeddings; use a local judge".into();
                    return Err(ExplainError::Unable { judge: self.name(), lacks });
                }
            }
        }
        Ok(vectors)
    }

    fn cost(&self) -> Cost {
        self.state().cost
    }
}

/// The sum of log-probabilities of the tokens of an echoed prompt that begin among these characters.
fn echoed(answer: &Value, part: std::ops::Range<usize>) -> Option<f64> {
    let told = answer.pointer("/choices/0/logprobs")?;
    let tokens = told.get("tokens")?.as_array()?;
    let log_probabilities = told.get("token_logprobs")?.as_array()?;
    // Where a token begins is told by most servers; lengths of spellings go wrong where a byte is no character of its own.
    let told_at = told.get("text_offset").and_then(Value::as_array);
    let (mut at, mut sum, mut n) = (0, 0.0, 0);
    for (i, (token, p)) in tokens.iter().zip(log_probabilities).enumerate() {
        let begins = told_at.and_then(|all| all.get(i)?.as_u64()).map_or(at, |at| at as usize);
        if part.contains(&begins) {
            sum += p.as_f64()?;
            n += 1;
        }
        at += token.as_str()?.chars().count();
    }
    (n > 0).then_some(sum)
}
