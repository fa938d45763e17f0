//! Trying again: what is worth it, after which pause, and how often.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http::{HeaderMap, StatusCode};

use crate::error::HubError;
use crate::event::{DownloadEvent, Events};
use crate::settings::HubSettings;

/// Why a request gave nothing.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may work a little later.
    Passing(Passing),
    /// It will not.
    Final(HubError),
}

/// A failure that may pass.
#[derive(Debug)]
pub(crate) struct Passing {
    /// The server.
    pub(crate) host: String,
    /// What happened.
    pub(crate) detail: String,
    /// How long the server asks to wait.
    pub(crate) asked: Option<Duration>,
    /// Whether the server limits requests.
    pub(crate) limited: bool,
}

impl From<HubError> for Trouble {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

impl Passing {
    pub(crate) fn new(host: String, detail: impl Into<String>) -> Self {
        Self { host, detail: detail.into(), asked: None, limited: false }
    }

    /// A status that may pass, if it is one.
    pub(crate) fn of_status(host: &str, status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let passing = matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504);
        passing.then(|| Self {
            host: host.to_owned(),
            detail: format!("it answers {status}"),
            asked: asked_pause(headers),
            limited: status == StatusCode::TOO_MANY_REQUESTS,
        })
    }
}

/// Counts failures in a row of the work on one file.
pub(crate) struct Patience<'a> {
    settings: &'a HubSettings,
    /// What messages call the work.
    file: &'a str,
    retries: u32,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(settings: &'a HubSettings, file: &'a str) -> Self {
        Self { settings, file, retries: settings.retries, failures: 0 }
    }

    /// One more try and no more, since there is something to fall back on.
    pub(crate) fn short(mut self) -> Self {
        self.retries = self.retries.min(1);
        self
    }

    /// Forgets the failures, since the work got further.
    pub(crate) fn restore(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next try, or gives the error that ends them.
    pub(crate) fn endure(&mut self, trouble: Trouble, events: Events<'_>) -> Result<(), HubError> {
        let passing = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Passing(passing) => passing,
        };
        self.failures += 1;
        let impossible = passing.asked.is_some_and(|asked| asked > self.settings.longest_pause);
        if self.failures > self.retries || impossible {
            let (file, tries) = (self.file.to_owned(), self.failures);
            return Err(match passing.limited {
                true => HubError::TooManyRequests {
                    file,
                    host: passing.host,
                    tries,
                    asked_secs: passing.asked.map(|asked| asked.as_secs()),
                },
                false => HubError::Unreachable { file, host: passing.host, tries, detail: passing.detail },
            });
        }
        let pause = passing.asked.unwrap_or_else(|| self.own_pause());
        let reason = format!("{}: {}: {}", self.file, passing.host, passing.detail);
        events(DownloadEvent::Waiting { reason: &reason, pause: Some(pause) });
        thread::sleep(pause);
        Ok(())
    }

    /// Twice as long each time, and up to a quarter more, so that many clients do not come back together.
    fn own_pause(&self) -> Duration {
        let longest = self.settings.longest_pause;
        let doubled = self.settings.backoff.saturating_mul(1 << (self.failures - 1).min(16)).min(longest);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.subsec_nanos());
        doubled.mul_f64(1.0 + f64::from(now % 1000) / 4000.0).min(longest)
    }
}

/// Repeats `work` until it succeeds, fails for good, or patience ends.
pub(crate) fn repeat<T>(
    mut patience: Patience<'_>,
    events: Events<'_>,
    mut work: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, HubError> {
    loop {
        match work() {
            Ok(value) => return Ok(value),
            Err(trouble) => patience.endure(trouble, events)?,
        }
    }
}

/// How long a server asks to wait: `Retry-After` in seconds or as a date, or the reset time of the hub's `RateLimit`.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(after) = text("retry-after") {
        if let Ok(secs) = after.parse::<u64>() {
            return Some(Duration::from_secs(secs));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        return http_date(after).map(|at| Duration::from_secs(at.saturating_sub(now)));
    }
    let reset = text("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="))?;
    reset.parse().ok().map(Duration::from_secs)
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts[..] else { return None };
    let number = |text: &str| text.parse::<u64>().ok();
    let (day, year) = (number(day)?, number(year)?);
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let clock: Vec<u64> = time.split(':').map(number).collect::<Option<_>>()?;
    let [hours, minutes, secs] = clock[..] else { return None };
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) || hours > 23 || minutes > 59 || secs > 60 {
        return None;
    }
    // Days from 1 March of year 0, so that the leap day ends a year.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hours * 3600 + minutes * 60 + secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        for bad in ["", "soon", "Sun, 06 Nov", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_form_of_asking_is_understood() {
        let asked = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            asked_pause(&headers)
        };
        assert_eq!(asked("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("retry-after", "-1"), None);
        assert_eq!(asked("ratelimit", "\"resolvers\";r=0;t=57"), Some(Duration::from_secs(57)));
        assert_eq!(asked("ratelimit", "\"resolvers\";r=0"), None);
    }
}
