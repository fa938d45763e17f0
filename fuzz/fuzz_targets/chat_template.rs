//! A chat template of a checkpoint, rendered over a conversation.
#![no_main]

use exegete_fuzz::memory::{self, Counting};
use exegete_fuzz::rng::Rng;
use exegete_fuzz::{json, start, words, write_seeds};
use exegete_model::{ChatTemplate, Message};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a rendering may take: the fuel that the reader grants pays for 16 MB, and what is built may be twice as large as its
/// slots while it grows.
const MOST_BYTES: usize = 64 << 20;

fuzz_target!(
    init: {
        start();
        write_seeds(SEEDS.iter().enumerate().map(|(i, text)| (format!("template-{i}"), text.as_bytes().to_vec())));
    },
    |data: &[u8]| {
        let text = String::from_utf8_lossy(data);
        let turn = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let turns = [
            turn("system", "Be brief."),
            turn("user", "  <b>{{ x }}</b> \u{e9}\n"),
            turn("assistant", ""),
            turn("user", "And now?"),
        ];
        let template = ChatTemplate::new(text.as_ref(), "<s>", "</s>");
        memory::bounded(MOST_BYTES, || {
            // One rendering an input, so that ten seconds are ample for a slow one.
            let _ = match data.len() % 4 {
                0 => template.render(&turns[1..2], false),
                _ => template.render(&turns, true),
            };
        });
    }
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let rng = &mut Rng::new(seed);
    if rng.one_in(8) {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let mut text = String::from_utf8_lossy(&data[..size]).into_owned();
    for _ in 0..1 + rng.below(4) {
        let borders: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
        let (a, b) = (*rng.pick(&borders), *rng.pick(&borders));
        let (a, b) = (a.min(b), a.max(b));
        match rng.below(7) {
            0 | 1 => text.insert_str(a, *rng.pick(words::JINJA)),
            2 if b - a < 40 => text.replace_range(a..b, ""),
            3 if b - a < 200 => {
                let part = text[a..b].to_owned();
                text.insert_str(b, &part);
            }
            4 => {
                text.insert_str(b, "{% endfor %}");
                text.insert_str(a, &format!("{{% for i in range({}) %}}", rng.whole(10)));
            }
            5 => {
                if let Some(at) = text.find(|c: char| c.is_ascii_digit()) {
                    text.replace_range(at..at + 1, &rng.whole(1).to_string());
                }
            }
            _ => json::change_text(&mut text, rng, words::JINJA),
        }
    }
    if text.len() > max_size {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    data[..text.len()].copy_from_slice(text.as_bytes());
    text.len()
});

/// The forms of published templates, and what Jinja has beside them.
const SEEDS: &[&str] = &[
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou \
     are helpful<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
     '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{{- bos_token }}{%- for m in messages %}{%- set content = '<|start_header_id|>' + m['role'] + \
     '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}{{- content }}{%- endfor %}",
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif \
     %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}{% \
     endif %}{% if (m['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = m['role'] %}{% endif \
     %}{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}",
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = \
     messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}{%- for message in loop_messages %}{%- \
     if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- else %}{{- ' ' + \
     message.content.strip() + eos_token }}{%- endif %}{%- endfor %}",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}{% if \
     m.content.startswith('A') and not ns.found %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.n }}{{ \
     ns.found }}{{ messages | tojson }}",
    "{% macro turn(m, sep='|') %}{{ m.role | upper }}{{ sep }}{{ m.content.split('b')[-1].lstrip('>') }}{% endmacro %}{% \
     for m in messages %}{{ turn(m) }}{{ turn(m, sep=' ') }}{% endfor %}{{ messages | map(attribute='role') | \
     join(', ') }}",
    "{% for i in range(3) %}{{ 'ab' * i }}{{ '%5d' % i }}{{ '{:>4}'.format(i) }}{% endfor %}{{ [1, 2] + [3] }}{{ {'a': \
     1}.items() | list }}",
];
