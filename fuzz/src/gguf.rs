//! GGUF files as inputs: the header taken apart, changed, and put together with true counts, lengths and offsets. The
//! values behind it are made from a few bytes.

use crate::json::change_text;
use crate::rng::Rng;
use crate::shards::Fill;
use crate::words;

/// The most bytes of values.
const MOST_VALUES: usize = 5 << 18;

/// An input: how it is opened, the values, the header with its padding as it is.
#[derive(Clone, Default)]
pub struct Input {
    /// Whether the weights are left in the file.
    pub stored: bool,
    /// Where the values come from.
    pub fill: Fill,
    /// Bytes behind the header.
    pub n_bytes: usize,
    /// Everything before the values.
    pub header: Vec<u8>,
}

impl Input {
    /// The bytes of an input.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.stored) | u8::from(self.fill.noise) << 1];
        out.extend(self.fill.pattern);
        out.extend((self.n_bytes as u32).to_le_bytes());
        out.extend_from_slice(&self.header);
        out
    }

    /// An input read as far as it goes.
    pub fn decode(bytes: &[u8]) -> Self {
        let at = |i: usize| bytes.get(i).copied().unwrap_or_default();
        let n_bytes = (9..13).rev().fold(0usize, |n, i| n << 8 | usize::from(at(i)));
        Self {
            stored: at(0) & 1 != 0,
            fill: Fill { pattern: std::array::from_fn(|i| at(1 + i)), noise: at(0) & 2 != 0 },
            n_bytes: n_bytes.min(MOST_VALUES),
            header: bytes.get(13..).unwrap_or_default().to_vec(),
        }
    }

    /// The file.
    pub fn file(&self) -> Vec<u8> {
        let mut out = self.header.clone();
        out.extend(self.fill.bytes(self.n_bytes));
        out
    }

    /// The input whose file has the header of `file`.
    pub fn of_file(file: &[u8]) -> Self {
        // Positive, as divisors of rotations must be.
        let fill = Fill { pattern: [0x8f, 0xc2, 0xf5, 0x3c, 0x0a, 0xd7, 0xa3, 0x3c], noise: false };
        let mut this = Self { fill, header: file.to_vec(), ..Self::default() };
        if let Some(header) = Header::read(file) {
            (this.header, this.n_bytes) = header.write();
        }
        this
    }

    /// A mutation; `None` where the header cannot be taken apart, which is left to libFuzzer.
    pub fn change(&mut self, rng: &mut Rng) -> Option<()> {
        match rng.below(16) {
            0 => self.fill.change(rng),
            1 => self.stored = !self.stored,
            2 => self.n_bytes = rng.whole(self.n_bytes as u64) as usize % (MOST_VALUES + 1),
            3 => {
                let at = rng.below(self.header.len());
                let lie = rng.whole(3).to_le_bytes();
                let n = *rng.pick(&[1, 4, 8]);
                self.header.get_mut(at..)?.iter_mut().zip(&lie[..n]).for_each(|(h, b)| *h = *b);
            }
            _ => {
                let mut header = Header::read(&self.header)?;
                for _ in 0..1 + rng.below(3) {
                    header.change(rng);
                }
                if !rng.one_in(16) {
                    header.lay_out();
                }
                (self.header, self.n_bytes) = header.write();
            }
        }
        Some(())
    }
}

/// A metadata value; numbers are their bytes.
#[derive(Clone, Debug)]
pub enum Meta {
    /// A scalar.
    Number(Vec<u8>),
    /// A text.
    Text(Vec<u8>),
    /// Kind and items of a list.
    List(u32, Vec<Meta>),
}

/// A tensor's entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name.
    pub name: Vec<u8>,
    /// Lengths, innermost axis first.
    pub dims: Vec<u64>,
    /// ggml's number of the element type.
    pub kind: u32,
    /// From the start of the values.
    pub offset: u64,
}

/// A header taken apart.
#[derive(Clone, Debug)]
pub struct Header {
    /// Version.
    pub version: u32,
    /// Key, kind and value.
    pub pairs: Vec<(Vec<u8>, u32, Meta)>,
    /// Tensors.
    pub tensors: Vec<Entry>,
}

/// (ggml's number, values of a block, bytes of a block); the last are not handled.
pub const KINDS: &[(u32, u64, u64)] = &[
    (0, 1, 4),
    (1, 1, 2),
    (30, 1, 2),
    (28, 1, 8),
    (2, 32, 18),
    (3, 32, 20),
    (6, 32, 22),
    (7, 32, 24),
    (8, 32, 34),
    (20, 32, 18),
    (10, 256, 84),
    (11, 256, 110),
    (12, 256, 144),
    (13, 256, 176),
    (14, 256, 210),
    (23, 256, 136),
    (24, 1, 1),
    (99, 1, 1),
];

fn width(kind: u32) -> usize {
    match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        _ => 8,
    }
}

impl Header {
    /// Reads a header; `None` where it is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut c = Cursor { bytes, at: 4 };
        let version = c.number(4)? as u32;
        let (n_tensors, n_pairs) = (c.number(8)?, c.number(8)?);
        let mut pairs = Vec::new();
        for _ in 0..n_pairs {
            let key = c.text()?;
            let kind = c.number(4)? as u32;
            let value = c.value(kind, 0)?;
            pairs.push((key, kind, value));
        }
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            let name = c.text()?;
            let n_dims = c.number(4)?.min(8);
            let dims = (0..n_dims).map(|_| c.number(8)).collect::<Option<Vec<_>>>()?;
            tensors.push(Entry { name, dims, kind: c.number(4)? as u32, offset: c.number(8)? });
        }
        Some(Self { version, pairs, tensors })
    }

    fn alignment(&self) -> u64 {
        let found = self.pairs.iter().find(|(key, ..)| key == b"general.alignment");
        let number = found.and_then(|(_, _, v)| match v {
            Meta::Number(bytes) => Some(bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b))),
            _ => None,
        });
        number.filter(|n| n.is_power_of_two() && *n <= 1 << 20).unwrap_or(32)
    }

    /// Gives the tensors offsets one behind the other.
    pub fn lay_out(&mut self) {
        let (alignment, mut at) = (self.alignment(), 0u64);
        for tensor in &mut self.tensors {
            tensor.offset = at;
            at = at.saturating_add(tensor.n_bytes()).checked_next_multiple_of(alignment).unwrap_or(at);
        }
    }

    /// The bytes up to the values, and the bytes of values that the tensors need.
    pub fn write(&self) -> (Vec<u8>, usize) {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.pairs {
            put_text(&mut out, key);
            out.extend(kind.to_le_bytes());
            put(&mut out, value);
        }
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        let alignment = usize::try_from(self.alignment()).unwrap_or(32);
        out.resize(out.len().next_multiple_of(alignment.min(1 << 16)), 0);
        let end = self.tensors.iter().map(|t| t.offset.saturating_add(t.n_bytes())).max().unwrap_or_default();
        (out, usize::try_from(end).unwrap_or(usize::MAX).min(MOST_VALUES))
    }

    fn change(&mut self, rng: &mut Rng) {
        let (n_pairs, n_tensors) = (self.pairs.len(), self.tensors.len());
        match rng.below(14) {
            0..=5 if n_pairs > 0 => {
                let (_, kind, value) = &mut self.pairs[rng.below(n_pairs)];
                change_value(value, kind, rng, 0);
            }
            6 if n_pairs > 0 => drop(self.pairs.remove(rng.below(n_pairs))),
            7 if n_pairs > 0 => {
                let (mut key, kind, value) = self.pairs[rng.below(n_pairs)].clone();
                // Another key of the same architecture, or a word at random.
                let head: Vec<u8> = key.iter().copied().take_while(|b| *b != b'.').collect();
                let word = rng.pick(KEYS);
                key = if word.contains('.') && !word.starts_with('.') {
                    word.as_bytes().to_vec()
                } else {
                    head.into_iter().chain(word.bytes()).collect()
                };
                if !self.pairs.iter().any(|(k, ..)| *k == key) || rng.one_in(8) {
                    self.pairs.push((key, kind, value));
                }
            }
            8 if n_pairs > 0 => self.rename_architecture(rng),
            9 if n_tensors > 0 => {
                let kind = rng.pick(KINDS).0;
                self.tensors.iter_mut().for_each(|t| t.kind = kind);
            }
            10 if n_tensors > 0 => self.tensors[rng.below(n_tensors)].kind = rng.pick(KINDS).0,
            11 if n_tensors > 0 => {
                let dims = &mut self.tensors[rng.below(n_tensors)].dims;
                match rng.below(4) {
                    0 => dims.reverse(),
                    1 if dims.len() < 6 => dims.push(1),
                    2 => drop(dims.pop()),
                    _ => {
                        let at = rng.below(dims.len());
                        if let Some(dim) = dims.get_mut(at) {
                            *dim = rng.whole(*dim);
                        }
                    }
                }
            }
            12 if n_tensors > 0 => {
                let tensor = self.tensors[rng.below(n_tensors)].clone();
                let name = String::from_utf8_lossy(&tensor.name).into_owned();
                let (old, new) = *rng.pick(RENAMES);
                let name = name.replace(old, new).into_bytes();
                self.tensors.push(Entry { name, ..tensor });
            }
            13 if n_tensors > 0 => {
                let at = rng.below(n_tensors);
                if rng.one_in(3) {
                    self.tensors[at].offset = rng.whole(self.tensors[at].offset);
                } else {
                    self.tensors.remove(at);
                }
            }
            _ => self.version = *rng.pick(&[1, 2, 3, 3, 4]),
        }
    }

    fn rename_architecture(&mut self, rng: &mut Rng) {
        let new = *rng.pick(ARCHITECTURES);
        let Some(old) = self.pairs.iter().find_map(|(key, _, value)| match value {
            Meta::Text(text) if key == b"general.architecture" => Some(text.clone()),
            _ => None,
        }) else {
            return;
        };
        for (key, _, value) in &mut self.pairs {
            if key == b"general.architecture" {
                *value = Meta::Text(new.into());
            } else if let Some(rest) = key.strip_prefix(old.as_slice()) {
                *key = new.bytes().chain(rest.iter().copied()).collect();
            }
        }
    }
}

impl Entry {
    fn n_bytes(&self) -> u64 {
        let (_, block, size) = *KINDS.iter().find(|row| row.0 == self.kind).unwrap_or(&(0, 1, 4));
        let n = self.dims.iter().fold(1u64, |n, d| n.saturating_mul(*d));
        (n / block).saturating_mul(size)
    }
}

const ARCHITECTURES: &[&str] = &[
    "llama", "gpt2", "gptneox", "qwen2", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "phi3", "olmo2", "smollm3",
];

/// Ends of keys; those without a leading point are whole.
const KEYS: &[&str] = &[
    ".block_count",
    ".context_length",
    ".embedding_length",
    ".feed_forward_length",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.value_length",
    ".attention.layer_norm_rms_epsilon",
    ".attention.sliding_window",
    ".attention.sliding_window_pattern",
    ".rope.freq_base",
    ".rope.dimension_count",
    ".rope.scaling.type",
    ".rope.scaling.factor",
    ".rope.scaling.original_context_length",
    ".rope.scaling.attn_factor",
    ".expert_count",
    ".expert_used_count",
    ".expert_feed_forward_length",
    ".vocab_size",
    ".use_parallel_residual",
    "general.alignment",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.chat_template",
];

const RENAMES: &[(&str, &str)] = &[
    ("blk.0", "blk.1"),
    ("blk.1", "blk.2"),
    ("weight", "bias"),
    ("attn_q", "attn_k"),
    ("token_embd", "output"),
    ("output_norm", "rope_freqs"),
    ("output_norm", "rope_factors_short"),
    ("output_norm", "rope_factors_long"),
    ("ffn_norm", "ffn_gate_inp"),
    ("e", "e"),
];

const TEXTS: &[&str] = &[
    "llama",
    "gpt2",
    "default",
    "gpt-2",
    "smollm",
    "linear",
    "longrope",
    "none",
    "yarn",
    "a b",
    "\u{2581}a",
    "<0x0A>",
];

fn change_value(value: &mut Meta, kind: &mut u32, rng: &mut Rng, depth: usize) {
    if rng.one_in(12) && depth == 0 {
        // A value of another kind under the same key.
        *kind = rng.below(14) as u32;
        *value = match *kind {
            8 => Meta::Text(rng.pick(TEXTS).as_bytes().to_vec()),
            9 => {
                let item = *rng.pick(&[0, 4, 6, 7, 8, 9]);
                let one = match item {
                    8 => Meta::Text(b"a".to_vec()),
                    9 => Meta::List(9, vec![Meta::List(0, Vec::new())]),
                    other => Meta::Number(vec![1; width(other)]),
                };
                let n = *rng.pick(&[0, 1, 2, 5, 300, 20_000]);
                Meta::List(item, vec![one; n])
            }
            other => Meta::Number(vec![1; width(other)]),
        };
        return;
    }
    match value {
        Meta::Number(bytes) => {
            let old = bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
            let new = match *kind {
                6 => u64::from((rng.float(f32::from_bits(old as u32).into()) as f32).to_bits()),
                12 => rng.float(f64::from_bits(old)).to_bits(),
                _ => rng.whole(old),
            };
            let special = rng.one_in(12);
            for (i, b) in bytes.iter_mut().enumerate() {
                *b = if special { 0xff } else { (new >> (8 * i)) as u8 };
            }
        }
        Meta::Text(text) => {
            if rng.one_in(3) {
                *text = rng.pick(TEXTS).as_bytes().to_vec();
            } else if rng.one_in(20) {
                text.push(0xff);
            } else {
                let mut changed = String::from_utf8_lossy(text).into_owned();
                let words = if rng.one_in(4) { words::JINJA } else { TEXTS };
                change_text(&mut changed, rng, words);
                *text = changed.into_bytes();
            }
        }
        Meta::List(item, items) => match rng.below(5) {
            0 if !items.is_empty() => drop(items.remove(rng.below(items.len()))),
            1 if !items.is_empty() => {
                let copy = items[rng.below(items.len())].clone();
                items.insert(rng.below(items.len() + 1), copy);
            }
            2 if !items.is_empty() && items.len() < 5000 => items.extend_from_within(..),
            3 if !items.is_empty() => {
                let (from, to) = (rng.below(items.len()), rng.below(items.len()));
                items.swap(from, to);
            }
            _ => {
                let at = rng.below(items.len());
                if let Some(one) = items.get_mut(at) {
                    change_value(one, item, rng, depth + 1);
                }
            }
        },
    }
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
}

fn put(out: &mut Vec<u8>, value: &Meta) {
    match value {
        Meta::Number(bytes) => out.extend_from_slice(bytes),
        Meta::Text(text) => put_text(out, text),
        Meta::List(kind, items) => {
            out.extend(kind.to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| put(out, item));
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, n: u64) -> Option<&[u8]> {
        let end = self.at.checked_add(usize::try_from(n).ok()?)?;
        let slice = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(slice)
    }

    fn number(&mut self, width: u64) -> Option<u64> {
        Some(self.take(width)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let len = self.number(8)?;
        Some(self.take(len)?.to_vec())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Option<Meta> {
        Some(match kind {
            8 => Meta::Text(self.text()?),
            9 if depth < 8 => {
                let item = self.number(4)? as u32;
                let len = self.number(8)?;
                let items = (0..len).map(|_| self.value(item, depth + 1)).collect::<Option<Vec<_>>>()?;
                Meta::List(item, items)
            }
            9 | 14.. => return None,
            other => Meta::Number(self.take(width(other) as u64)?.to_vec()),
        })
    }
}
