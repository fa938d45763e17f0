//! Mutation of JSON that stays JSON.

use serde_json::{Map, Number, Value};

use crate::rng::Rng;

/// Parses, changes one to four nodes, and writes again; `None` where the text is no JSON.
pub fn mutated(text: &[u8], rng: &mut Rng, words: &[&str]) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    for _ in 0..1 + rng.below(4) {
        change(&mut value, rng, words);
    }
    serde_json::to_vec(&value).ok()
}

/// Changes a node of a value.
pub fn change(root: &mut Value, rng: &mut Rng, words: &[&str]) {
    let n = count(root);
    if rng.one_in(8) {
        // One place takes what stands at another.
        let from = nth(root, &mut rng.below(n)).map(|v| v.clone());
        if let (Some(from), Some(to)) = (from, nth(root, &mut rng.below(n)))
            && count(&from) < 200
        {
            *to = from;
        }
        return;
    }
    if let Some(node) = nth(root, &mut rng.below(n)) {
        change_node(node, rng, words);
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn nth<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|v| nth(v, n)),
        Value::Object(map) => map.values_mut().find_map(|v| nth(v, n)),
        _ => None,
    }
}

/// A value of any kind.
fn any(rng: &mut Rng, words: &[&str]) -> Value {
    match rng.below(9) {
        0 => Value::Null,
        1 => Value::Bool(rng.one_in(2)),
        2 | 3 => Value::from(rng.whole(2)),
        4 => Value::from(-(rng.below(5) as i64)),
        5 => Number::from_f64(rng.float(0.5)).map_or(Value::Null, Value::Number),
        6 => Value::from(*rng.pick(words)),
        7 => Value::Array(vec![Value::from(rng.whole(1)); rng.below(4)]),
        _ => {
            let mut nested = Value::Array(Vec::new());
            let deepest = if rng.one_in(4) { 140 } else { 3 };
            for _ in 0..rng.below(deepest) {
                nested = Value::Array(vec![nested]);
            }
            if rng.one_in(2) { nested } else { Value::Object(Map::from_iter([((*rng.pick(words)).into(), nested)])) }
        }
    }
}

fn change_node(node: &mut Value, rng: &mut Rng, words: &[&str]) {
    if rng.one_in(10) {
        *node = any(rng, words);
        return;
    }
    match node {
        Value::Null => *node = any(rng, words),
        Value::Bool(b) => *b = !*b,
        Value::Number(number) => {
            let as_float = number.as_f64().unwrap_or_default();
            let changed = match (number.as_u64(), rng.below(4)) {
                (Some(n), 0..=2) => Some(rng.whole(n).into()),
                (None, 0) | (Some(_), _) => Number::from_f64(rng.float(as_float)),
                _ => Number::from_f64(rng.float(as_float)),
            };
            *number = changed.unwrap_or_else(|| 0.into());
        }
        Value::String(text) => change_text(text, rng, words),
        Value::Array(items) => match rng.below(6) {
            0 if !items.is_empty() => drop(items.remove(rng.below(items.len()))),
            1 if !items.is_empty() => {
                let (from, to) = (rng.below(items.len()), rng.below(items.len()));
                items.swap(from, to);
            }
            2 | 3 if !items.is_empty() => {
                let copy = items[rng.below(items.len())].clone();
                items.insert(rng.below(items.len() + 1), copy);
            }
            4 if !items.is_empty() && items.len() < 300 => items.extend_from_within(..),
            _ => items.push(any(rng, words)),
        },
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = (!keys.is_empty()).then(|| rng.pick(&keys).clone());
            match (rng.below(5), key) {
                (0, Some(key)) => drop(map.shift_remove(&key)),
                (1, Some(key)) => {
                    let value = map.shift_remove(&key).unwrap_or_default();
                    map.insert((*rng.pick(words)).into(), value);
                }
                (2, Some(key)) => {
                    let value = map.get(&key).cloned().unwrap_or_default();
                    let mut name = key;
                    change_text(&mut name, rng, words);
                    map.insert(name, value);
                }
                _ => drop(map.insert((*rng.pick(words)).into(), any(rng, words))),
            }
        }
    }
}

/// Changes a text.
pub fn change_text(text: &mut String, rng: &mut Rng, words: &[&str]) {
    let borders: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
    let at = *rng.pick(&borders);
    match rng.below(6) {
        0 => *text = (*rng.pick(words)).into(),
        1 => text.insert_str(at, *rng.pick(words)),
        2 => text.truncate(at),
        3 => drop(text.drain(..at)),
        4 => text.insert(at, *rng.pick(&['a', '\u{2581}', '\u{120}', '\0', '\u{301}', '\u{1f600}', '{', '9', ' '])),
        _ if text.len() < 300 => text.extend_from_within(..),
        _ => text.clear(),
    }
}
