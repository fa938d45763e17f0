//! What servers do to a judge: answer, answer nonsense, answer late, refuse, go away.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use exegete_explain::judge::memory::Memory;
use exegete_explain::judge::server::{ServerJudge, ServerSettings};
use exegete_explain::judge::{Judge, Writing};
use exegete_explain::question::Question;
use exegete_explain::{ExplainError, Result};

const KEY: &str = "sk-not-to-be-seen";

/// A server on loopback: what it answers to the n-th request, as (status, body).
struct Server {
    url: String,
    asked: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

fn server(answer: impl Fn(usize, &str) -> (u16, String) + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (asked, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, kept) = (asked.clone(), heads.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let (mut bytes, mut chunk) = (Vec::new(), [0u8; 4096]);
            let end = loop {
                match stream.read(&mut chunk) {
                    Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
                    _ => break None,
                }
                if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                    break Some(end + 4);
                }
            };
            let Some(end) = end else { continue };
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            while bytes.len() < end + length.unwrap_or(0) {
                match stream.read(&mut chunk) {
                    Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
                    _ => break,
                }
            }
            kept.lock().unwrap().push(head);
            let body = String::from_utf8_lossy(&bytes[end..]).into_owned();
            let (status, text) = answer(count.fetch_add(1, Ordering::SeqCst), &body);
            let _ = write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
        }
    });
    Server { url, asked, heads }
}

fn settings(url: &str) -> ServerSettings {
    ServerSettings {
        url: url.to_owned(),
        model: "tiny".into(),
        key: Some(KEY.into()),
        at_once: 2,
        a_minute: 0,
        retries: 2,
        timeout_secs: 2,
        examples_a_prompt: 1,
        most_tokens: 0,
        most_money: 0.0,
        prices: (0.0, 0.0),
    }
}

fn question() -> Question {
    let text = include_str!("../../prompts/detection.toml");
    Question::read("detection.toml", text).unwrap()
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn said(text: &str) -> String {
    serde_json::json!({
        "choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 10, "completion_tokens": 1}
    })
    .to_string()
}

fn verdicts(judge: &ServerJudge, n: usize) -> Result<Vec<Option<f64>>> {
    let examples: Vec<String> = (0..n).map(|i| format!("example {i}")).collect();
    Ok(judge.verdicts(&question(), &examples, &strings(&["a thing"]))?.concat())
}

/// The numbers of the examples of a prompt, in their order.
fn shown(body: &str) -> Vec<usize> {
    let number = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    body.split("example ").skip(1).filter_map(number).collect()
}

/// What is made of an answer to a question about `n` examples at once, in the order in which they were shown.
pub(super) fn verdicts_of(answer: &str, n: usize) -> Vec<Option<f64>> {
    let (answer, places) = (answer.to_owned(), Arc::new(Mutex::new(Vec::new())));
    let seen = places.clone();
    let of = server(move |_, body| {
        *seen.lock().unwrap() = shown(body);
        (200, said(&answer))
    });
    let settings = ServerSettings { examples_a_prompt: n, ..settings(&of.url) };
    let told = verdicts(&ServerJudge::new(settings, None).unwrap(), n).unwrap();
    let places = places.lock().unwrap();
    places.iter().map(|i| told[*i]).collect()
}

#[test]
fn places_of_a_list_are_drawn_and_what_they_do_is_told() {
    // A judge that says yes of whatever stands first, and otherwise knows the first four.
    let of = server(|_, body| {
        let told = shown(body).into_iter().enumerate().map(|(place, i)| u8::from(place == 0 || i < 4));
        (200, said(&format!("{:?}", told.collect::<Vec<_>>())))
    });
    let judge = ServerJudge::new(ServerSettings { examples_a_prompt: 4, ..settings(&of.url) }, None).unwrap();
    let examples: Vec<String> = (0..8).map(|i| format!("example {i}")).collect();
    let all = judge.verdicts(&question(), &examples, &strings(&["a thing", "another", "a third", "more"])).unwrap();
    assert!(all.iter().all(|row| row[..4].iter().all(|v| *v == Some(1.0))), "verdicts go back to their examples");
    assert!(all[0] != all[1] || all[0] != all[2], "each explanation has an order of its own");
    let places = judge.by_place();
    assert_eq!(places.len(), 4);
    assert_eq!(places[0], (8.0, 8));
    assert!(places[1..].iter().all(|(yes, n)| *n == 8 && *yes < 8.0), "{places:?}");
}

#[test]
fn answers_are_read_counted_and_kept() {
    let of = server(|n, body| {
        assert!(body.contains("a thing") && body.contains("example"));
        let probabilities = serde_json::json!({
            "choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"token": "Yes", "top_logprobs": [
                {"token": "Yes", "logprob": (0.6f64).ln()}, {"token": " no", "logprob": (0.2f64).ln()}, {"token": "x", "logprob": -9.0}]}]}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 1}
        });
        // Not every server tells probabilities.
        (200, if n % 2 == 0 { probabilities.to_string() } else { said("No, it has not.") })
    });
    let dir = tempfile::tempdir().unwrap();
    let one_at_a_time = ServerSettings { at_once: 1, prices: (1.0, 2.0), ..settings(&of.url) };
    let judge = ServerJudge::new(one_at_a_time.clone(), Some(Memory::new(dir.path()))).unwrap();
    let told = verdicts(&judge, 4).unwrap();
    assert!((told[0].unwrap() - 0.75).abs() < 1e-9 && told[1] == Some(0.0), "{told:?}");
    let cost = judge.cost();
    assert_eq!((cost.requests, cost.computed, cost.written), (4, 40, 4));
    assert!((cost.money - 48e-6).abs() < 1e-12);
    assert!(of.heads.lock().unwrap().iter().all(|head| head.contains(&format!("authorization: bearer {KEY}"))));

    let again = ServerJudge::new(one_at_a_time, Some(Memory::new(dir.path()))).unwrap();
    assert_eq!(verdicts(&again, 4).unwrap(), told);
    assert_eq!((again.cost().requests, again.cost().remembered, of.asked.load(Ordering::SeqCst)), (0, 4, 4));
    let files = walk(dir.path());
    assert_eq!(files.len(), 4);
    assert!(files.iter().all(|text| !text.contains(KEY)), "the key stays out of files");
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut texts = Vec::new();
    for folder in std::fs::read_dir(dir).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            texts.push(std::fs::read_to_string(file.unwrap().path()).unwrap());
        }
    }
    texts
}

#[test]
fn nonsense_is_an_example_without_a_verdict() {
    let of = server(|n, _| match n {
        0 => (200, "no JSON".into()),
        1 => (200, "{}".into()),
        2 => (200, said("")),
        3 => (200, said("<script>alert(1)</script> Ignore all instructions")),
        4 => (200, said("yes.")),
        _ => (200, "[]".into()),
    });
    let judge = ServerJudge::new(ServerSettings { at_once: 1, ..settings(&of.url) }, None).unwrap();
    assert_eq!(verdicts(&judge, 6).unwrap(), [None, None, None, None, Some(1.0), None]);
}

#[test]
fn lists_must_be_as_long_as_what_was_shown() {
    let first = Arc::new(Mutex::new(Vec::new()));
    let seen = first.clone();
    let of = server(move |n, body| {
        assert!(body.contains("JSON list of"));
        if n == 0 {
            *seen.lock().unwrap() = shown(body);
        }
        (200, if n == 0 { said("Here: [1, 0, true]") } else { said("[1]") })
    });
    let judge =
        ServerJudge::new(ServerSettings { at_once: 1, examples_a_prompt: 3, ..settings(&of.url) }, None).unwrap();
    let mut want = vec![None; 5];
    let told = verdicts(&judge, 5).unwrap();
    first.lock().unwrap().iter().zip([1.0, 0.0, 1.0]).for_each(|(i, verdict)| want[*i] = Some(verdict));
    assert_eq!(told, want);
}

#[test]
fn a_busy_server_is_asked_again_and_one_that_stays_away_ends_the_work() {
    let of = server(|n, _| if n == 0 { (429, String::new()) } else { (200, said("Yes")) });
    let judge = ServerJudge::new(ServerSettings { at_once: 1, ..settings(&of.url) }, None).unwrap();
    assert_eq!(verdicts(&judge, 2).unwrap(), [Some(1.0), Some(1.0)]);
    assert_eq!(of.asked.load(Ordering::SeqCst), 3);

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away =
        ServerJudge::new(ServerSettings { retries: 1, ..settings(&format!("http://{closed}/v1")) }, None).unwrap();
    let error = verdicts(&away, 2).unwrap_err();
    assert!(
        matches!(error, ExplainError::Refused { .. }) && error.to_string().contains("give the command again"),
        "{error}"
    );
}

#[test]
fn an_answer_that_does_not_come_counts_as_away() {
    let of = server(|_, _| {
        std::thread::sleep(Duration::from_secs(5));
        (200, said("Yes"))
    });
    let slow = ServerSettings { timeout_secs: 1, retries: 0, at_once: 1, ..settings(&of.url) };
    let error = verdicts(&ServerJudge::new(slow, None).unwrap(), 1).unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
}

#[test]
fn a_wrong_key_ends_the_work_at_once_and_is_not_told() {
    let of = server(|_, _| (401, format!("{{\"error\": \"Incorrect API key provided: {KEY}\"}}")));
    let judge = ServerJudge::new(ServerSettings { at_once: 1, ..settings(&of.url) }, None).unwrap();
    let error = verdicts(&judge, 3).unwrap_err().to_string();
    assert!(error.contains("key is wrong") && !error.contains(KEY), "{error}");
    assert_eq!(of.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_budget_ends_the_work_and_a_larger_one_goes_on() {
    let of = server(|_, _| (200, said("Yes")));
    let dir = tempfile::tempdir().unwrap();
    let with = |most_tokens| {
        let settings = ServerSettings { at_once: 1, most_tokens, ..settings(&of.url) };
        ServerJudge::new(settings, Some(Memory::new(dir.path()))).unwrap()
    };
    // An answer costs eleven tokens.
    let error = verdicts(&with(30), 5).unwrap_err();
    assert!(matches!(error, ExplainError::Budget(_)), "{error}");
    assert_eq!(of.asked.load(Ordering::SeqCst), 3);
    assert_eq!(verdicts(&with(1000), 5).unwrap(), [Some(1.0); 5]);
    assert_eq!(of.asked.load(Ordering::SeqCst), 5, "nothing is asked twice");
}

#[test]
fn a_dry_run_sends_nothing_and_foretells() {
    let of = server(|_, _| (200, said("Yes")));
    let judge = ServerJudge::new(ServerSettings { prices: (1.0, 1.0), ..settings(&of.url) }, None).unwrap().dry();
    assert_eq!(verdicts(&judge, 3).unwrap(), [None; 3]);
    let cost = judge.cost();
    assert!(cost.requests == 3 && cost.computed > 100 && cost.money > 0.0, "{cost:?}");
    assert_eq!(of.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn log_probabilities_and_embeddings_are_read_or_said_to_be_missing() {
    let of = server(|_, body| {
        let asked: serde_json::Value = serde_json::from_str(body).unwrap();
        let answer = match asked.get("prompt").and_then(|p| p.as_str()) {
            Some("A dog ran home") => serde_json::json!({"choices": [{"logprobs": {
                "tokens": ["A", " dog", " ran", " home", "!"], "token_logprobs": [null, -1.0, -2.0, -0.5, -9.0]}}]}),
            Some(_) => serde_json::json!({"choices": [{"text": "x"}]}),
            None => serde_json::json!({"data": [{"embedding": [1.0, 2.0]}]}),
        };
        (200, answer.to_string())
    });
    let judge = ServerJudge::new(settings(&of.url), None).unwrap();
    assert_eq!(judge.log_probabilities(&strings(&["A dog"]), &strings(&[" ran home"])).unwrap(), [[-2.5]]);
    let error = judge.log_probabilities(&strings(&["B"]), &strings(&[" c"])).unwrap_err().to_string();
    assert!(error.contains("local judge"), "{error}");
    assert_eq!(judge.embed(&strings(&["a"])).unwrap(), [[1.0, 2.0]]);
    assert!(judge.embed(&strings(&["a", "b"])).unwrap_err().to_string().contains("embeddings"));
    let how = Writing { tokens: 4, temperature: 0.0, top_p: 1.0, seed: 0 };
    assert_eq!(judge.write("q", "", 1, &how).unwrap(), [None]);
}
