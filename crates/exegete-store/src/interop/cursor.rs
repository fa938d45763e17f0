//! Reading JSON that may hold anything: a place in a document that knows its key.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::error::{Result, StoreError};

/// Largest file that is read whole; the formats have files of some megabytes, and a parsed one takes several times its size.
const MOST_BYTES: u64 = 256 << 20;

/// The first thing that is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The place, for example `features[3].activations[0].values`.
    pub key: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { "the document" } else { &self.key };
        write!(f, "{key} {}", self.problem)
    }
}

/// Reads a file as JSON.
///
/// # Errors
/// [`StoreError::Io`]; [`StoreError::Damaged`] for a file that is no JSON (NaN is none) or too large.
pub fn read_json(path: &Path) -> Result<Value> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut text = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut text).map_err(StoreError::io("read", path))?;
    if text.len() as u64 > MOST_BYTES {
        return Err(StoreError::damaged(path, format!("it is larger than {MOST_BYTES} bytes")));
    }
    serde_json::from_slice(&text).map_err(|e| StoreError::damaged(path, e))
}

/// A place in a document.
#[derive(Clone)]
pub(crate) struct At<'a> {
    value: &'a Value,
    key: String,
}

impl<'a> At<'a> {
    /// The whole document.
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { value, key: String::new() }
    }

    /// A complaint about this place.
    pub(crate) fn fault(&self, problem: impl Into<String>) -> Fault {
        Fault { key: self.key.clone(), problem: problem.into() }
    }

    fn is_a(&self, wanted: &str) -> Fault {
        let found = match self.value {
            Value::Null => "null".into(),
            Value::Bool(_) => "a truth value".into(),
            Value::Number(n) => format!("the number {n}"),
            Value::String(s) => format!("a text of {} characters", s.chars().count()),
            Value::Array(a) => format!("a list of {}", a.len()),
            Value::Object(_) => "an object".into(),
        };
        self.fault(format!("must be {wanted}, it is {found}"))
    }

    /// A member that must be there.
    pub(crate) fn get(&self, key: &str) -> Result<At<'a>, Fault> {
        self.find(key)?.ok_or_else(|| Fault { key: self.under(key), problem: "is missing".into() })
    }

    /// A member that may be missing or null.
    pub(crate) fn find(&self, key: &str) -> Result<Option<At<'a>>, Fault> {
        let members = self.value.as_object().ok_or_else(|| self.is_a("an object"))?;
        Ok(members.get(key).filter(|v| !v.is_null()).map(|value| At { value, key: self.under(key) }))
    }

    /// Names of the members.
    pub(crate) fn keys(&self) -> Result<impl Iterator<Item = &'a str>, Fault> {
        Ok(self.value.as_object().ok_or_else(|| self.is_a("an object"))?.keys().map(String::as_str))
    }

    /// Items of a list.
    pub(crate) fn list(&self) -> Result<Vec<At<'a>>, Fault> {
        let items = self.items()?.iter().enumerate();
        Ok(items.map(|(i, value)| At { value, key: format!("{}[{i}]", self.key) }).collect())
    }

    fn items(&self) -> Result<&'a [Value], Fault> {
        self.value.as_array().map(Vec::as_slice).ok_or_else(|| self.is_a("a list"))
    }

    /// A finite number.
    pub(crate) fn number(&self) -> Result<f64, Fault> {
        self.value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| self.is_a("a number"))
    }

    /// A number within `f32`.
    pub(crate) fn float(&self) -> Result<f32, Fault> {
        let number = self.number()? as f32;
        if number.is_finite() { Ok(number) } else { Err(self.is_a("a number within a float's range")) }
    }

    /// A whole number from 0 to `most`, written as one or as 3.0.
    pub(crate) fn whole(&self, most: u64) -> Result<u64, Fault> {
        let plain = |x: &f64| x.fract() == 0.0 && (0.0..9.0e15).contains(x);
        let whole = self.value.as_u64().or_else(|| self.value.as_f64().filter(plain).map(|x| x as u64));
        whole.filter(|n| *n <= most).ok_or_else(|| self.is_a(&format!("a whole number from 0 to {most}")))
    }

    /// A whole number of either sign.
    pub(crate) fn signed(&self) -> Result<i64, Fault> {
        self.value.as_i64().ok_or_else(|| self.is_a("a whole number"))
    }

    /// A text.
    pub(crate) fn text(&self) -> Result<&'a str, Fault> {
        self.value.as_str().ok_or_else(|| self.is_a("a text"))
    }

    /// A list of finite numbers. The key of an item is made only where the item is wrong.
    pub(crate) fn numbers(&self) -> Result<Vec<f64>, Fault> {
        self.each(|at| at.number())
    }

    /// A list of numbers within `f32`.
    pub(crate) fn floats(&self) -> Result<Vec<f32>, Fault> {
        self.each(|at| at.float())
    }

    /// A list of texts.
    pub(crate) fn texts(&self) -> Result<Vec<String>, Fault> {
        self.each(|at| at.text().map(str::to_owned))
    }

    /// A list of whole numbers from 0 to `most`.
    pub(crate) fn wholes(&self, most: u64) -> Result<Vec<u64>, Fault> {
        self.each(|at| at.whole(most))
    }

    fn each<T>(&self, read: impl Fn(&At<'a>) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let mut place = At { value: self.value, key: String::new() };
        let items = self.items()?.iter().enumerate().map(|(i, value)| {
            place.value = value;
            read(&place).map_err(|fault| Fault { key: format!("{}[{i}]", self.key), ..fault })
        });
        items.collect()
    }

    fn under(&self, key: &str) -> String {
        if self.key.is_empty() { key.into() } else { format!("{}.{key}", self.key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_fault_says_where_it_is() {
        let document = json!({ "a": [{ "b": [1, 2, "x"], "c": 1e300, "d": -3, "e": 4.0, "f": null }] });
        let first = At::root(&document).get("a").unwrap().list().unwrap().remove(0);
        let told = |fault: Fault| fault.to_string();
        assert_eq!(
            told(first.get("b").unwrap().numbers().unwrap_err()),
            "a[0].b[2] must be a number, it is a text of 1 characters"
        );
        assert_eq!(told(first.get("z").map(drop).unwrap_err()), "a[0].z is missing");
        assert_eq!(told(first.get("f").map(drop).unwrap_err()), "a[0].f is missing");
        assert!(told(first.get("c").unwrap().float().unwrap_err()).contains("a float's range"));
        assert!(first.get("d").unwrap().whole(9).is_err() && first.get("d").unwrap().signed().unwrap() == -3);
        assert_eq!(first.get("e").unwrap().whole(9).unwrap(), 4);
        assert!(first.get("e").unwrap().whole(3).is_err());
        assert!(told(At::root(&document).list().map(drop).unwrap_err()).starts_with("the document must be a list"));
    }
}
