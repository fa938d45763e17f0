//! Conversations that a template must not swallow.

use exegete_model::{ChatTemplate, Message};

fn turn(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

#[test]
fn unknown_roles_are_refused_and_known_ones_pass() {
    let template = ChatTemplate::new("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", "<s>", "</s>");
    let talk = [turn("system", "be kind"), turn("user", "hi"), turn("assistant", "hello"), turn("tool", "3")];
    assert_eq!(template.render(&talk, true).unwrap(), "<system>be kind<user>hi<assistant>hello<tool>3");
    // This template would print it; many others would leave the turn out without a word.
    let error = template.render(&[turn("wizard", "hi")], true).unwrap_err().to_string();
    assert!(error.contains("\"wizard\"") && error.contains("assistant"), "{error}");
}

#[test]
fn what_a_template_refuses_is_told_in_its_own_words() {
    let strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}ok";
    let template = ChatTemplate::new(strict, "", "");
    assert!(template.render(&[turn("system", "x")], true).unwrap_err().to_string().contains("no system turn"));
    assert!(ChatTemplate::new("{% for %}", "", "").render(&[turn("user", "x")], true).is_err());
}
