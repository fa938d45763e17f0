//! Who is answered: the hosts that a request may name, the token, and where what changes something may come from.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use crate::{Result, WebError};

/// Nothing but our own style, script and pictures; nobody may frame the pages.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Headers of every answer.
const HEADERS: [(header::HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // With no referrer at all, a browser would not say where our own forms come from either.
    (header::REFERRER_POLICY, "same-origin"),
    (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
];
/// Fewest letters of a token that someone chose.
const SHORTEST_TOKEN: usize = 16;

/// Who is answered.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Names beside those of this machine.
    hosts: Vec<String>,
    /// Whether any address written in numbers is one of ours: names are what an attacker can point at us, numbers are not.
    any_number: bool,
    token: Option<String>,
    cookie: String,
}

impl Access {
    /// Who is answered at an address. Without a token, only this machine may be served.
    ///
    /// # Errors
    /// [`WebError::NotLoopback`] for an address that others can reach without a token; [`WebError::Token`] for a token that
    /// is too short, or does not fit into a header.
    pub fn at(addr: SocketAddr, token: Option<String>, hosts: Vec<String>) -> Result<Access> {
        if !addr.ip().is_loopback() && token.is_none() {
            return Err(WebError::NotLoopback(addr));
        }
        let fits = |token: &String| {
            token.len() >= SHORTEST_TOKEN && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
        };
        if !token.as_ref().is_none_or(fits) {
            return Err(WebError::Token(SHORTEST_TOKEN));
        }
        let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        let any_number = !addr.ip().is_loopback();
        // A browser sends the cookies of all ports of a host to each of them: every server has its own.
        Ok(Access { hosts, any_number, token, cookie: format!("exegete-{}", addr.port()) })
    }

    /// A token that nobody can guess: 128 random bits.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn new_token() -> Result<String> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes).map_err(|error| WebError::Serve(std::io::Error::other(error.to_string())))?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The token, where there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    fn is_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        match name.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback() || self.any_number || self.hosts.contains(&name),
            Err(_) => name == "localhost" || self.hosts.contains(&name),
        }
    }

    /// Whether a request names us, where it names anyone.
    fn names_us(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let first = hosts.next();
        let is_ours = |host: &HeaderValue| host.to_str().is_ok_and(|host| self.is_host(host));
        hosts.next().is_none()
            && first.is_none_or(is_ours)
            && uri.authority().is_none_or(|authority| self.is_host(authority.as_str()))
    }

    /// Whether a change was asked for by one of our own pages, or by no page at all. A browser says where it comes from.
    fn is_own(&self, headers: &HeaderMap) -> bool {
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        let is_own_site = matches!(site, None | Some(b"same-origin" | b"none"));
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let is_own_origin = headers.get_all(header::ORIGIN).iter().all(|origin| {
            let origin = origin.to_str().ok();
            let authority =
                origin.and_then(|origin| origin.strip_prefix("http://").or(origin.strip_prefix("https://")));
            authority.is_some() && authority == host
        });
        is_own_site && is_own_origin
    }

    fn holds_token(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer "));
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookie = cookies.flat_map(|line| line.split(';')).find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == self.cookie).then_some(value)
        });
        [bearer, cookie].into_iter().flatten().any(|given| self.is_token(given))
    }

    fn is_token(&self, given: &str) -> bool {
        self.token.as_deref().is_none_or(|token| equal_in_constant_time(token.as_bytes(), given.as_bytes()))
    }

    /// The address without the token, if it is the right one.
    fn address_after_login(&self, uri: &Uri) -> Option<String> {
        let query = uri.query()?;
        let (given, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("token="));
        let is_right = given.first().is_some_and(|pair| self.is_token(pair.trim_start_matches("token=")));
        // Two slashes at the beginning would name another host.
        let path = format!("/{}", uri.path().trim_start_matches('/'));
        is_right.then(|| if rest.is_empty() { path } else { format!("{path}?{}", rest.join("&")) })
    }
}

/// Compares without telling by its time where the two differ. The length of the token is no secret.
fn equal_in_constant_time(token: &[u8], given: &[u8]) -> bool {
    if token.len() != given.len() {
        return false;
    }
    let differing = token.iter().zip(given).fold(0u8, |differing, (a, b)| std::hint::black_box(differing | (a ^ b)));
    std::hint::black_box(differing) == 0
}

/// Turns away who is not to be answered, and puts the policy on every answer.
pub(crate) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&access, &request) {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What a run holds may change, and is nobody else's to keep.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn refusal(access: &Access, request: &Request) -> Option<Response> {
    let (uri, headers) = (request.uri(), request.headers());
    let refuse = |status: StatusCode, words: &'static str| Some((status, words).into_response());
    // A foreign page could point its own name at this address and then read us as its own site.
    if !access.names_us(uri, headers) {
        return refuse(
            StatusCode::FORBIDDEN,
            "this server answers to its own names only (exegete serve --host NAME adds one)\n",
        );
    }
    let is_reading = [Method::GET, Method::HEAD].contains(request.method());
    if !is_reading && !access.is_own(headers) {
        return refuse(StatusCode::FORBIDDEN, "changes are taken from this server's own pages only\n");
    }
    if access.token.is_none() || access.holds_token(headers) {
        return None;
    }
    if let (true, Some(address), Some(token)) = (is_reading, access.address_after_login(uri), &access.token) {
        let cookie = format!("{}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=31536000", access.cookie);
        return Some(([(header::SET_COOKIE, cookie)], Redirect::to(&address)).into_response());
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"exegete\"")];
    let words = "this server wants its token: open the address that exegete serve printed, or send Authorization: Bearer TOKEN\n";
    Some((StatusCode::UNAUTHORIZED, challenge, words).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (header::HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn others_are_served_with_a_token_only() {
        for (addr, is_served) in
            [("127.0.0.1:0", true), ("[::1]:0", true), ("0.0.0.0:0", false), ("10.0.0.1:80", false)]
        {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(Access::at(addr, None, vec![]).is_ok(), is_served, "{addr}");
            assert!(Access::at(addr, Some("0123456789abcdef".into()), vec![]).is_ok());
            assert!(Access::at(addr, Some("short".into()), vec![]).is_err());
            assert!(Access::at(addr, Some("0123456789abcdef;x=".into()), vec![]).is_err());
        }
        assert_ne!(Access::new_token().unwrap(), Access::new_token().unwrap());
    }

    #[test]
    fn hosts_are_told_apart() {
        let local = Access::default();
        let open =
            Access::at(([0, 0, 0, 0], 80).into(), Some("0123456789abcdef".into()), vec!["Box.lan".into()]).unwrap();
        for (host, at_home, outside) in [
            ("localhost:80", true, true),
            ("127.0.0.1", true, true),
            ("[::1]:80", true, true),
            ("10.0.0.1:80", false, true),
            ("box.lan:80", false, true),
            ("evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("localhost:80@evil.example", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("", false, false),
        ] {
            assert_eq!((local.is_host(host), open.is_host(host)), (at_home, outside), "{host}");
        }
    }

    #[test]
    fn changes_come_from_our_own_pages() {
        let access = Access::default();
        for (pairs, is_own) in [
            (vec![("host", "localhost:1")], true),
            (vec![("host", "localhost:1"), ("origin", "http://localhost:1"), ("sec-fetch-site", "same-origin")], true),
            (vec![("host", "localhost:1"), ("origin", "http://localhost:2")], false),
            (vec![("host", "localhost:1"), ("origin", "null")], false),
            (vec![("host", "localhost:1"), ("origin", "http://evil.example")], false),
            (vec![("host", "localhost:1"), ("sec-fetch-site", "cross-site")], false),
            (vec![("host", "localhost:1"), ("sec-fetch-site", "same-site")], false),
        ] {
            assert_eq!(access.is_own(&headers(&pairs)), is_own, "{pairs:?}");
        }
    }

    #[test]
    fn a_token_is_exchanged_for_a_cookie_and_leaves_the_address() {
        let token = "0123456789abcdef";
        let access = Access::at(([127, 0, 0, 1], 8617).into(), Some(token.into()), vec![]).unwrap();
        let after = |uri: &str| access.address_after_login(&uri.parse().unwrap());
        assert_eq!(after("/latent/3?view=levels&token=0123456789abcdef").as_deref(), Some("/latent/3?view=levels"));
        assert_eq!(after("//evil.example/?token=0123456789abcdef").as_deref(), Some("/evil.example/"));
        assert_eq!(after("/?token=0123456789abcdee"), None);
        assert_eq!(after("/?token="), None);
        assert!(access.holds_token(&headers(&[("cookie", "a=b; exegete-8617=0123456789abcdef")])));
        assert!(!access.holds_token(&headers(&[("cookie", "exegete-8618=0123456789abcdef")])));
        assert!(access.holds_token(&headers(&[("authorization", "Bearer 0123456789abcdef")])));
        assert!(!access.holds_token(&headers(&[("authorization", "Basic 0123456789abcdef")])));
    }
}
