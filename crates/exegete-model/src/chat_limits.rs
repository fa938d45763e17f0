//! What a chat template may use up: a template is a program from a foreign file, and must come to an end.
//!
//! The engine counts steps and bytes. It does not guard its own stack against values that are nested deeply or contain
//! themselves, which a template can build from assignments alone; those are checked here.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// About as many steps of the engine, and 64 bytes of text each. The longest conversation that fits into a context needs
/// a third of this, and all of it takes less than a second.
const FUEL: u64 = 250_000;
/// How deeply what is assigned to a name may be nested.
const MOST_NESTED: usize = 32;
/// How deeply macros and loops may call themselves: types of tools' arguments are written out by such macros.
const MOST_CALLS: usize = 50;
/// Enough for values nested as deeply as an expression can be written, in each of the calls.
const STACK_BYTES: usize = 64 << 20;

/// Runs a rendering on a stack of its own; `None` if there is no room for it, or if it panicked.
pub(crate) fn on_large_stack<T: Send>(f: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, f).ok()?.join().ok()
    })
}

/// Sets the limits of an environment, and Python's methods within them.
pub(crate) fn set(env: &mut Environment) {
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(MOST_CALLS);
    env.set_unknown_method_callback(method);
    // A list that repeats itself costs nothing to make, and its text less than the writing of its items takes.
    env.set_formatter(|out, state, value| {
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => drop(checked(state, value.clone(), true)?),
            _ => {}
        }
        minijinja::escape_formatter(out, state, value)
    });
    env.add_filter(FOR_NAME, |state: &State, value: Value| checked(state, value, true));
    env.add_filter(FOR_ATTRIBUTE, |state: &State, value: Value| checked(state, value, false));
}

const FOR_NAME: &str = "__for_name";
const FOR_ATTRIBUTE: &str = "__for_attribute";

/// The template with every value that it assigns passed through a check. The engine has no hook at that place.
pub(crate) fn with_checked_assignments(source: &str, syntax: SyntaxConfig) -> String {
    // What is no sequence of tokens is no template either, which the engine says better.
    let Ok(tokens) = tokenize(source, false, syntax).collect::<Result<Vec<_>, _>>() else { return source.into() };
    let (mut out, mut copied) = (String::new(), 0);
    for (i, pair) in tokens.windows(2).enumerate() {
        let [(Token::BlockStart, _), (Token::Ident("set"), _)] = pair else { continue };
        let block = &tokens[i + 2..];
        let Some(end) = block.iter().position(|(t, _)| matches!(t, Token::BlockEnd)) else { continue };
        let Some(assign) = block[..end].iter().position(|(t, _)| matches!(t, Token::Assign)) else { continue };
        let attribute = block[..assign].iter().any(|(t, _)| matches!(t, Token::Dot));
        let (from, to) = (block[assign].1.end_offset as usize, block[end].1.start_offset as usize);
        let (Some(before), Some(value)) = (source.get(copied..from), source.get(from..to)) else { continue };
        let filter = if attribute { FOR_ATTRIBUTE } else { FOR_NAME };
        out.push_str(&format!("{before}({value})|{filter} "));
        copied = to;
    }
    out.push_str(source.get(copied..).unwrap_or_default());
    out
}

/// Refuses values nested deeply, and namespaces within attributes of namespaces: nothing else can contain itself.
fn checked(state: &State, value: Value, namespaces: bool) -> Result<Value, Error> {
    let fail = |detail: &str| Err(Error::new(ErrorKind::InvalidOperation, detail.to_owned()));
    // Values at one depth after the other, so that no stack is needed.
    let mut level = vec![value.clone()];
    for _ in 0..MOST_NESTED {
        let mut next = Vec::new();
        for value in level {
            let is_namespace = value.as_object().is_some_and(|o| o.type_name().ends_with("::Namespace"));
            if is_namespace && !namespaces {
                return fail("a namespace is assigned to an attribute, which could make a value that contains itself");
            }
            let is_map = value.kind() == ValueKind::Map;
            if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
                continue;
            }
            for item in value.try_iter()? {
                // One by one, since a list may be said to be longer than there is memory for; and one list may stand in
                // many places, so that there are more values here than were ever made.
                state.consume_fuel(1)?;
                next.push(if is_map { value.get_item(&item)? } else { item });
            }
        }
        if next.is_empty() {
            return Ok(value);
        }
        level = next;
    }
    fail("a value is nested too deeply to be assigned or written")
}

/// Python's methods of texts and lists, paid for before they run: the engine charges for what a method returns only once
/// it is there, and by then a few steps could have filled the memory.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let len = |v: &Value| v.as_str().map_or(1, |s| s.len() as u64 + 1);
    if let Some(text) = value.as_str() {
        let made = match (name, args) {
            ("replace", [old, new, ..]) => text.matches(old.as_str().unwrap_or_default()).count() as u64 * len(new),
            ("format", _) => numbers(text),
            ("join", [items]) => {
                for item in items.try_iter()? {
                    if item.as_str().is_none() {
                        let detail = format!("join takes texts; {} was found among them", item.kind());
                        return Err(Error::new(ErrorKind::InvalidOperation, detail));
                    }
                    // A step for each item beside its text, and at once: a list of millions is made in one step.
                    state.consume_fuel(1 + (len(&item) + len(value)) / 64)?;
                }
                0
            }
            _ => 0,
        };
        state.consume_fuel(len(value).saturating_add(made) / 64)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// The sum of all numbers in a format, among which its widths are.
fn numbers(format: &str) -> u64 {
    let runs = format.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
    runs.fold(0, |sum: u64, run| sum.saturating_add(run.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap();
        assert_eq!(with_checked_assignments(source, syntax), expected);
    }

    #[test]
    fn assignments_are_checked_and_nothing_else_is_touched() {
        check("a{% set x = 1 %}b", "a{% set x =( 1 )|__for_name %}b");
        check("{%- set ns.x = a if b else c -%}\n", "{%- set ns.x =( a if b else c )|__for_attribute -%}\n");
        check("{% set x, y = 1, '%}' %}", "{% set x, y =( 1, '%}' )|__for_name %}");
        for same in [
            "{% set x %}y = 1{% endset %}",
            "{% raw %}{% set x = 1 %}{% endraw %}",
            "{# {% set x = 1 %} #}{{ '{% set x = 1 %}' }}",
            "{% if x == 1 %}{{ f(a=1) }}{% endif %}",
            "{% set x = ",
        ] {
            check(same, same);
        }
    }
}
