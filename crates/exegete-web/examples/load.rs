//! Load on a run of 131,072 latents: `cargo run --release -p exegete-web --example load [LATENTS]`.
//!
//! Makes the run, serves it as `exegete serve` does, and asks for pages of latents: 200 a second over 50 connections for 30 seconds,
//! then as many as it answers, then until 100,000 were answered. Prints times of answers, the rate, and resident memory.
#![allow(clippy::print_stdout)] // What was measured is all it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use exegete_base::sampling::pair_hash;
use exegete_base::{DocId, LatentId};
use exegete_store::run::part_name;
use exegete_store::{
    AccumulatorSettings, Accumulators, Curves, Explanation, LatentRow, Notes, Run, Window, write_examples,
    write_latents, write_vocab, write_windows,
};
use serde_json::json;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const CONNECTIONS: u64 = 50;
const RATE: u64 = 200;
const PACED: Duration = Duration::from_secs(30);
const FREE: Duration = Duration::from_secs(15);
const MANY: u64 = 100_000;
const WINDOWS: u64 = 4096;
const LEN: u32 = 128;
const VOCAB: u64 = 50_000;
const TOGETHER: u32 = 4096;

fn main() -> Result<(), Failure> {
    let n_latents = std::env::args().nth(1).map_or(Ok(131_072), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let began = Instant::now();
    make_run(dir.path(), n_latents)?;
    println!("made a run of {n_latents} latents in {:.0} s", began.elapsed().as_secs_f64());
    let dashboard = exegete_web::Dashboard::open(dir.path())?;
    let (ready, addr) = mpsc::channel();
    std::thread::spawn(move || {
        let local = ([127, 0, 0, 1], 0).into();
        exegete_web::serve(local, (None, Vec::new()), dashboard, |addr| {
            let _ = ready.send(addr);
        })
    });
    let addr = addr.recv()?;
    let (mut warm, before) = (ask(addr, n_latents, None, Limit::Requests(2000))?, memory_mib()?);
    told("first 2,000", &mut warm, before);
    let mut paced = ask(addr, n_latents, Some(RATE), Limit::Time(PACED))?;
    told("200 a second", &mut paced, memory_mib()?);
    let mut free = ask(addr, n_latents, None, Limit::Time(FREE))?;
    told("as many as it can", &mut free, memory_mib()?);
    let mut many = ask(addr, n_latents, None, Limit::Requests(MANY))?;
    told("100,000", &mut many, memory_mib()?);
    Ok(())
}

#[derive(Clone, Copy)]
enum Limit {
    Time(Duration),
    Requests(u64),
}

struct Answers {
    secs: Vec<f64>,
    elapsed: f64,
}

fn told(what: &str, answers: &mut Answers, mib: f64) {
    answers.secs.sort_by(f64::total_cmp);
    let n = answers.secs.len();
    let at = |q: f64| answers.secs[((n as f64 * q) as usize).min(n - 1)] * 1e3;
    let (p50, p99, most, rate) = (at(0.5), at(0.99), at(1.0), n as f64 / answers.elapsed);
    println!(
        "{what}: n {n}, p50 {p50:.1} ms, p99 {p99:.1} ms, max {most:.1} ms, {rate:.0} a second, {mib:.0} MiB resident"
    );
}

/// Asks for pages of latents over all connections, so many a second in all, or as soon as each was answered.
fn ask(addr: SocketAddr, n_latents: u32, rate: Option<u64>, limit: Limit) -> Result<Answers, Failure> {
    let (began, asked) = (Instant::now(), AtomicU64::new(0));
    let each = |connection: u64| -> Result<Vec<f64>, Failure> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let (mut stream, mut secs, mut body) = (stream, Vec::new(), Vec::new());
        for turn in 0u64.. {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            let due = rate.map(|rate| Duration::from_secs_f64((turn * CONNECTIONS + connection) as f64 / rate as f64));
            let is_over = match limit {
                Limit::Time(time) => due.unwrap_or(began.elapsed()) >= time,
                Limit::Requests(most) => number >= most,
            };
            if is_over {
                break;
            }
            if let Some(wait) = due.and_then(|due| due.checked_sub(began.elapsed())) {
                std::thread::sleep(wait);
            }
            // From when it was due, so that waiting behind a slow answer counts.
            let from = due.map_or_else(Instant::now, |due| began + due);
            let latent = pair_hash(9, connection, turn) % u64::from(n_latents);
            write!(stream, "GET /latent/{latent} HTTP/1.1\r\nHost: {addr}\r\n\r\n")?;
            answer(&mut answers, &mut body)?;
            secs.push(from.elapsed().as_secs_f64());
        }
        Ok(secs)
    };
    let each = &each;
    let secs = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|connection| scope.spawn(move || each(connection))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a connection's thread ended early")?).collect()
    });
    let secs: Result<Vec<Vec<f64>>, Failure> = secs;
    Ok(Answers { secs: secs?.concat(), elapsed: began.elapsed().as_secs_f64() })
}

/// Reads an answer whole; an error where it is none of a page.
fn answer(answers: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<(), Failure> {
    let (mut line, mut length) = (String::new(), 0usize);
    answers.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(format!("the answer begins with {line:?}").into());
    }
    loop {
        line.clear();
        answers.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse()?,
            Some(_) => {}
            None => break,
        }
    }
    body.resize(length, 0);
    Ok(answers.read_exact(body)?)
}

fn memory_mib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("VmRSS has no value")?.parse::<f64>()? / 1024.0)
}

/// A run as a harvest leaves it: each latent with some forty examples at ten levels, one in ten explained.
fn make_run(dir: &Path, n_latents: u32) -> Result<(), Failure> {
    let settings = json!({"model": "models/made-up", "site": "blocks.12.hook_resid_post"});
    let mut run = Run::create_or_resume(dir, "exegete load", settings, &[])?;
    let token = |window: u64, at: u32| (pair_hash(1, window, u64::from(at)) % VOCAB) as u32;
    let windows: Vec<Window> = (0..WINDOWS)
        .map(|i| Window {
            doc: DocId::new(0, i),
            window: 0,
            start: 0,
            token_ids: (0..LEN).map(|at| token(i, at)).collect(),
        })
        .collect();
    run.commit_part(&part_name("tokens", 0), WINDOWS, |w| write_windows(w, &windows))?;
    let vocab: Vec<Vec<u8>> = (0..VOCAB).map(|i| format!(" word{i}").into_bytes()).collect();
    run.commit_part("tokens/vocab.parquet", VOCAB, |w| write_vocab(w, &vocab))?;
    let mut rows: Vec<LatentRow> = Vec::with_capacity(n_latents as usize);
    for (part, from) in (0..n_latents).step_by(TOGETHER as usize).enumerate() {
        let mut state = Accumulators::new(n_latents as usize, AccumulatorSettings::default());
        let mut examples = Vec::new();
        for latent in from..(from + TOGETHER).min(n_latents) {
            for i in 0..40u64 {
                let draw = pair_hash(u64::from(latent), i, 7);
                let (window, position) = (&windows[(draw % WINDOWS) as usize], (draw >> 20) as u32 % (LEN - 1) + 1);
                let value = ((draw >> 32) % 1000) as f32 / 50.0 + 0.01;
                state.push_group(window, LatentId(latent), &[position], &[value]);
            }
            let pairs = |step: u32| (1..10).map(|i| ((latent + i * step) % n_latents, 0.9 - i as f32 / 12.0)).collect();
            let tokens =
                |step: u32| (0..10).map(|i| ((latent + i * step) % VOCAB as u32, 3.0 - i as f32 / 5.0)).collect();
            let mut row = LatentRow::new(LatentId(latent), state.stats(LatentId(latent)), WINDOWS * 127);
            (row.top_tokens, row.bottom_tokens, row.neighbours) = (tokens(3), tokens(5), pairs(17));
            (row.profile.cofiring, row.profile.correlated_latents) = (pairs(7), pairs(11));
            (row.profile.fired_tokens, row.profile.logit_histogram) = (tokens(13), vec![latent % 90; 50]);
            (row.profile.logit_ends, row.profile.decoder_norm) = ([-4.0, 4.0], 1.0);
            rows.push(row);
            examples.extend(state.examples(LatentId(latent)));
        }
        run.commit_part(&part_name("examples", part), examples.len() as u64, |w| write_examples(w, &examples))?;
    }
    run.commit_part("latents.parquet", rows.len() as u64, |w| write_latents(w, &rows))?;
    run.finish_stage("harvest", json!({"tokens": WINDOWS * 127, "n_latents": n_latents}))?;
    let mut notes = Notes::open(&dir.join("run.sqlite"))?;
    for latent in (0..n_latents).step_by(10).take(2000) {
        let said = Explanation {
            method: "self".into(),
            rank: 0,
            text: format!("words of the kind {}", latent % 97),
            scale: 40.0,
            score: 0.5,
            abstained: false,
            settings: json!({}),
        };
        notes.put_explanations(LatentId(latent), "self", &[said], &Curves::default())?;
    }
    Ok(())
}
