//! A thousand hostile requests over sockets: every one is answered with a status that fits, or cut off, and the server goes on.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use exegete_web::{Access, Dashboard, Limits, accept, app_with};

use crate::fixture::make_run;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_millis(700);

/// A server that lives as long as the test.
struct Server {
    addr: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

fn serve(dir: &std::path::Path, token: Option<&str>) -> Server {
    let limits = Limits { patience: PATIENCE, in_flight: 32, ..Limits::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dashboard = Dashboard::open(dir).unwrap();
    let addr = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let access = Access::at(addr, token.map(str::to_owned), Vec::new()).unwrap();
        tokio::spawn(accept(listener, app_with(dashboard, access, limits.clone()), limits));
        addr
    });
    Server { addr, _runtime: runtime }
}

/// The status of an answer to raw bytes; 0 where the connection was closed without one.
fn ask(addr: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may close while more is sent; what it said before is there to be read all the same.
    let _ = stream.write_all(bytes);
    answer_of(&mut stream)
}

fn answer_of(stream: &mut TcpStream) -> (u16, String) {
    let mut answer = Vec::new();
    let mut piece = [0u8; 16384];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no answer and no end: {error}"),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0);
    (status, answer)
}

/// A request in order but for what is given, which closes its connection.
fn request(host: &str, line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n{body}").into_bytes()
}

/// The hostile requests by their kind, with the statuses that fit each.
fn hostile(host: &str) -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let mut all: Vec<(&str, Vec<u8>, &[u16])> = Vec::new();
    let get = |path: &str| request(host, &format!("GET {path}"), "", "");
    let traversals = ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "....//", "..;/", "%252e%252e%252f"];
    for (i, step) in traversals.iter().cycle().take(160).enumerate() {
        let base = ["/", "/static/", "/api/latent/", "/latent/", "/api/job/"][i % 5];
        let target = ["etc/passwd", "manifest.json", "run.sqlite", "Cargo.toml"][i % 4];
        let path = format!("{base}{}{target}{}", step.repeat(1 + i % 12), ["", "/cancel", "%00"][i % 3]);
        all.push(("traversal", get(&path), &[400, 404, 405]));
    }
    for i in 0..120 {
        let id =
            ["-1", "99999999999999999999", "0x10", "1e9", "%00", "%ff%fe", "NaN", "4294967296", "%f0%9f", "1%0d%0aX:y"]
                [i % 10];
        let path =
            ["/latent/ID", "/api/latent/ID", "/api/latent/ID?view=ID", "/context?latent=ID&source=ID&window=ID"][i % 4];
        all.push(("ids", get(&path.replace("ID", id)), &[400, 404]));
    }
    for i in 0..120 {
        let value = [
            "-1",
            "18446744073709551616",
            "%00%00",
            "%",
            "%zz",
            "%ff%ff",
            "1e308",
            "&&&==",
            "\u{e9}",
            "a".repeat(3000).as_str(),
        ][i % 10]
            .to_owned();
        let path = [
            "/?page=V&sort=V",
            "/api/latents?q=V&low=V&high=V",
            "/api/map?column=V",
            "/training?from=V",
            "/rate?seed=V&skip=V",
        ][i % 5];
        // What is no text is refused, what is only odd is an odd search.
        all.push(("queries", get(&path.replace('V', &value)), &[200, 400, 404, 414]));
    }
    for i in 0..80 {
        let other = [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost@evil.example",
            "",
            "a b",
            "[::1",
        ][i % 8];
        all.push(("host", request(other, "GET /", "", ""), &[400, 403]));
    }
    for i in 0..20 {
        let line = ["GET http://evil.example/", "GET //evil.example/"][i % 2];
        all.push(("absolute", request(host, line, "", ""), &[403, 404]));
        all.push(("two hosts", request(host, "GET /", "Host: evil.example\r\n", ""), &[400, 403]));
    }
    for i in 0..100 {
        let headers = [
            "Origin: http://evil.example\r\n",
            "Origin: null\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
            "Origin: http://localhost:1\r\n",
        ][i % 5];
        let path = ["/api/latent/3/note", "/api/latent/3/bookmark", "/api/job/a/cancel", "/api/rating/1"][i % 4];
        let sent = format!("{headers}Content-Type: application/json\r\nContent-Length: 2\r\n");
        all.push(("origin", request(host, &format!("POST {path}"), &sent, "{}"), &[403]));
    }
    for i in 0..80 {
        let method = ["DELETE", "PUT", "PATCH", "TRACE", "OPTIONS", "CONNECT", "BREW", "get"][i % 8];
        let path = ["/", "/latent/3", "/api/latents", "/static/app.js", "/api/latent/3/note"][i % 5];
        all.push(("method", request(host, &format!("{method} {path}"), "", ""), &[400, 403, 404, 405]));
    }
    for i in 0..60 {
        let length = [70_000usize, 1 << 30, usize::MAX][i % 3];
        let headers = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        all.push(("stated length", request(host, "POST /api/latent/3/note", &headers, "{"), &[400, 413, 431]));
    }
    for i in 0..40 {
        let sent = "x".repeat(66_000 + i * 1000);
        let chunks = format!("{:x}\r\n{sent}\r\n0\r\n\r\n", sent.len());
        let headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
        all.push(("long body", request(host, "POST /api/latent/3/note", headers, &chunks), &[413, 0]));
    }
    for i in 0..40 {
        let headers = match i % 3 {
            0 => format!("X-Long: {}\r\n", "a".repeat(40_000)),
            1 => (0..200).map(|n| format!("X-{n}: y\r\n")).collect(),
            _ => format!("Cookie: {}\r\n", "a=b; ".repeat(8000)),
        };
        all.push(("headers", request(host, "GET /", &headers, ""), &[400, 431, 0]));
        all.push(("long address", get(&format!("/?q={}", "a".repeat(4200 + i))), &[414, 431, 400]));
    }
    let broken: [&[u8]; 10] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for bytes in broken.iter().cycle().take(100) {
        all.push(("broken", bytes.to_vec(), &[400, 403, 404, 405, 408, 413, 505, 0]));
    }
    all
}

#[test]
fn a_thousand_hostile_requests_are_answered_or_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    make_run(&run);
    std::fs::write(dir.path().join("secret"), "root:x:0:0").unwrap();
    let server = serve(&run, None);
    let host = format!("localhost:{}", server.addr.port());
    let all = hostile(&host);
    let mut told: BTreeMap<(&str, u16), usize> = BTreeMap::new();
    for (kind, bytes, fitting) in &all {
        let (status, answer) = ask(server.addr, bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
        assert!(fitting.contains(&status), "{kind}: {status} is not one of {fitting:?} for {shown}\n{answer:.600}");
        for bad in ["root:x", "<script>alert", "[workspace]", "\"sha256\"", "panicked"] {
            assert!(!answer.contains(bad), "{kind}: {bad} in the answer to {shown}");
        }
        *told.entry((kind, status)).or_default() += 1;
    }
    // Slow ones, all at once: heads and bodies that drip, answers that nobody takes.
    let n_slow = 60;
    let slow: Vec<_> = (0..n_slow)
        .map(|i| {
            let (addr, host) = (server.addr, host.clone());
            thread::spawn(move || drip(addr, &host, i % 3))
        })
        .collect();
    thread::sleep(PATIENCE / 4);
    assert_eq!(ask(server.addr, &request(&host, "GET /latent/3", "", "")).0, 200, "others wait for the slow");
    for one in slow {
        let (status, took) = one.join().unwrap();
        assert!([0, 200, 400, 408, 503].contains(&status) && took < PATIENCE * 12, "{status} after {took:?}");
        *told.entry(("slow", status)).or_default() += 1;
    }
    assert!(all.len() + n_slow >= 1000, "{} requests", all.len() + n_slow);
    for path in ["/", "/latent/3", "/api/latents", "/map", "/jobs"] {
        assert_eq!(ask(server.addr, &request(&host, &format!("GET {path}"), "", "")).0, 200, "{path}: {told:?}");
    }
    let latent = ask(server.addr, &request(&host, "GET /api/latent/3", "", "")).1;
    assert!(latent.contains("\"notes\":[]") && latent.contains("\"is_bookmarked\":false"), "something was changed");
}

/// Sends a request a byte at a time, or takes no answer.
fn drip(addr: SocketAddr, host: &str, kind: usize) -> (u16, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = match kind {
        0 => "GET / HTTP/1.1\r\n".to_owned(),
        1 => {
            let sent = "Content-Type: application/json\r\nContent-Length: 5000\r\n";
            format!("POST /api/latent/3/note HTTP/1.1\r\nHost: {host}\r\n{sent}\r\n")
        }
        _ => format!("GET /latent/3 HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    };
    let _ = stream.write_all(head.as_bytes());
    if kind < 2 {
        for _ in 0..20 {
            thread::sleep(PATIENCE / 8);
            if stream.write_all(b"x").is_err() {
                break;
            }
        }
    } else {
        // The connection is kept and nothing follows.
        thread::sleep(PATIENCE * 3);
        let _ = stream.shutdown(Shutdown::Write);
    }
    let (status, _) = answer_of(&mut stream);
    (status, begun.elapsed())
}

#[test]
fn a_server_with_a_token_answers_to_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let server = serve(dir.path(), Some(TOKEN));
    let host = format!("127.0.0.1:{}", server.addr.port());
    let get = |path: &str, headers: &str| ask(server.addr, &request(&host, &format!("GET {path}"), headers, ""));
    let cookie = format!("exegete-{}", server.addr.port());
    let mut wrong = TOKEN.to_owned();
    wrong.replace_range(31..32, "0");
    for bad in ["", "x", &wrong, &TOKEN[..31], &format!("{TOKEN}0"), "%00", "' OR 1=1"] {
        for (path, headers) in [
            (format!("/?token={}", bad.replace(' ', "+")), String::new()),
            ("/api/latents".into(), format!("Authorization: Bearer {bad}\r\n")),
            ("/static/app.js".into(), format!("Cookie: {cookie}={bad}\r\n")),
            ("/nowhere".into(), format!("Cookie: other={TOKEN}\r\n")),
        ] {
            let (status, answer) = get(&path, &headers);
            assert_eq!(status, 401, "{path} {headers}");
            assert!(!answer.contains("Latent") && !answer.to_lowercase().contains("set-cookie"), "{answer}");
        }
    }
    let (status, answer) = get(&format!("/latent/3?view=levels&token={TOKEN}"), "");
    let answer = answer.to_lowercase();
    assert_eq!(status, 303);
    for part in [
        "location: /latent/3?view=levels\r\n",
        &format!("set-cookie: {cookie}={TOKEN}; httponly; samesite=strict; path=/"),
    ] {
        assert!(answer.contains(part), "{part} is not in {answer}");
    }
    assert_eq!(get("/latent/3", &format!("Cookie: a=b; {cookie}={TOKEN}\r\n")).0, 200);
    assert_eq!(get("/api/latents", &format!("Authorization: Bearer {TOKEN}\r\n")).0, 200);
    // A token in the address of a change is none: it would be in the address of a foreign form.
    let sent = "Content-Type: application/json\r\nContent-Length: 12\r\n";
    let change = |line: &str, headers: &str| {
        ask(server.addr, &request(&host, line, &format!("{sent}{headers}"), "{\"text\":\"x\"}"))
    };
    assert_eq!(change(&format!("POST /api/latent/3/note?token={TOKEN}"), "").0, 401);
    assert_eq!(
        change("POST /api/latent/3/note", &format!("Cookie: {cookie}={TOKEN}\r\nOrigin: http://evil.example\r\n")).0,
        403
    );
    assert_eq!(
        change("POST /api/latent/3/note", &format!("Cookie: {cookie}={TOKEN}\r\nOrigin: http://{host}\r\n")).0,
        200
    );
}

#[test]
fn more_requests_at_once_than_there_is_room_for_are_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let server = serve(dir.path(), None);
    let host = format!("localhost:{}", server.addr.port());
    // Each holds a place while its body does not come.
    let held: Vec<TcpStream> = (0..32)
        .map(|_| {
            let mut stream = TcpStream::connect(server.addr).unwrap();
            let sent = "Content-Type: application/json\r\nContent-Length: 50\r\n";
            stream.write_all(&request(&host, "POST /api/latent/3/note", sent, "{")).unwrap();
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(ask(server.addr, &request(&host, "GET /", "", "")).0, 503);
    thread::sleep(PATIENCE + Duration::from_millis(300));
    assert_eq!(ask(server.addr, &request(&host, "GET /", "", "")).0, 200);
    drop(held);
}
