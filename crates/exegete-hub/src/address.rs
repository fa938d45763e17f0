//! Addresses: whose they are, where a redirect leads, and how they may be shown.

use std::net::IpAddr;

use ureq::http::Uri;

/// Who answers an address: two addresses are of one origin if scheme, host and port agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    pub(crate) fn of(uri: &Uri) -> Result<Self, String> {
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return Err("begins with neither https:// nor http://".into()),
        };
        let Some(authority) = uri.authority() else { return Err("names no host".into()) };
        if authority.as_str().contains('@') {
            return Err("holds a user name or password; a token belongs in HF_TOKEN".into());
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return Err("names no host".into());
        }
        Ok(Self { scheme, host, port: authority.port_u16().unwrap_or(default_port) })
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }

    /// Whether this is the machine itself, which no proxy can reach for us.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Host and port, for messages.
    pub(crate) fn shown(&self) -> String {
        match (self.is_encrypted(), self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

/// Reads the address of a hub, without a slash at its end.
pub(crate) fn parse_endpoint(text: &str) -> Result<(String, Origin), String> {
    let text = text.trim_end_matches('/');
    let uri: Uri = text.parse().map_err(|_| "is no address such as https://host".to_owned())?;
    let origin = Origin::of(&uri)?;
    if text.contains(['?', '#']) {
        return Err("holds a query; give the address alone".into());
    }
    Ok((text.to_owned(), origin))
}

/// Where a `Location` header leads from `base`.
pub(crate) fn follow(base: &Uri, location: &str) -> Result<Uri, String> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map(|a| a.as_str()).unwrap_or_default();
    let has_scheme = location.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
    let text = if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rfind('/').map_or("/", |at| &base.path()[..=at]);
        format!("{scheme}://{authority}{folder}{location}")
    };
    let to: Uri = text.parse().map_err(|_| "a redirect to what is no address".to_owned())?;
    let origin = Origin::of(&to).map_err(|detail| format!("a redirect to an address that {detail}"))?;
    if scheme.eq_ignore_ascii_case("https") && !origin.is_encrypted() {
        return Err(format!("a redirect from https to {} without encryption", origin.shown()));
    }
    Ok(to)
}

/// Percent-encodes a path for an address; slashes stay.
pub(crate) fn encode_path(path: &str) -> String {
    encode(path, true)
}

/// Percent-encodes one part of an address; slashes too.
pub(crate) fn encode_part(part: &str) -> String {
    encode(part, false)
}

fn encode(text: &str, keep_slashes: bool) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/') {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Result<Origin, String> {
        Origin::of(&text.parse().unwrap())
    }

    #[test]
    fn origins_differ_in_scheme_host_and_port() {
        let hub = origin("https://Hub.example/a?b").unwrap();
        assert_eq!(hub, origin("https://hub.example:443/c").unwrap());
        for other in
            ["http://hub.example", "https://cdn.hub.example", "https://hub.example:444", "https://hub.example.org"]
        {
            assert_ne!(hub, origin(other).unwrap(), "{other}");
        }
        assert!(origin("https://hub.example@evil.example/").unwrap_err().contains("user name"));
        assert!(origin("http://[::1]:80").unwrap().is_loopback() && origin("http://127.0.0.2").unwrap().is_loopback());
        assert!(!origin("http://127.example").unwrap().is_loopback());
    }

    #[test]
    fn redirects_of_every_form_are_followed() {
        let base: Uri = "https://hub.example/a/b?x=1".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.example/f?sig=1#frag", "https://cdn.example/f?sig=1"),
            ("//cdn.example/f", "https://cdn.example/f"),
            ("/api/f?u=a:b", "https://hub.example/api/f?u=a:b"),
            ("c?d=/e:f", "https://hub.example/a/c?d=/e:f"),
            ("?y", "https://hub.example/a/b?y"),
        ] {
            assert_eq!(follow(&base, location).unwrap().to_string(), expected, "{location}");
        }
        assert!(follow(&base, "http://cdn.example/f").unwrap_err().contains("without encryption"));
        for bad in ["ftp://x/f", "file:///etc/passwd", "https://hub.example@evil.example/f", "https://", "https://a b/"]
        {
            assert!(follow(&base, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(encode_path("a b/ä?#%.gguf"), "a%20b/%C3%A4%3F%23%25.gguf");
        assert_eq!(encode_part("refs/pr/1"), "refs%2Fpr%2F1");
    }

    #[test]
    fn an_endpoint_may_have_a_path_and_nothing_after() {
        assert_eq!(parse_endpoint("http://127.0.0.1:80/mirror/").unwrap().0, "http://127.0.0.1:80/mirror");
        for bad in ["", "hub.example", "ftp://hub.example", "https://hub.example?x=1", "https://u:p@hub.example"] {
            assert!(parse_endpoint(bad).is_err(), "{bad}");
        }
    }
}
