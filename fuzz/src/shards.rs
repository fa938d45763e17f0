//! Directories of safetensors files as inputs: their headers and their index as they are, the values made from a few
//! bytes, so that an input is a few kilobytes and a mutation meets what matters.

use serde_json::{Map, Value, json};

use crate::json;
use crate::rng::Rng;
use crate::words;

/// The most bytes of values that a shard is given.
const MOST_VALUES: usize = 1 << 20;

/// A directory of one file or two.
#[derive(Clone, Default)]
pub struct Shards {
    /// The tiny model whose `config.json` lies beside it; an unknown name stands for no such file.
    pub model: String,
    /// Whether there are two shards and an index.
    pub sharded: bool,
    /// Whether the model is opened with its weights left in the file.
    pub stored: bool,
    /// Where the values come from.
    pub fill: Fill,
    /// `model.safetensors.index.json`.
    pub index: Vec<u8>,
    /// The header of each file, with the eight bytes of its length.
    pub headers: [Vec<u8>; 2],
    /// Bytes behind each header.
    pub n_bytes: [usize; 2],
}

/// Values of tensors from a few bytes: repeated, or stretched to noise.
#[derive(Clone, Copy, Default)]
pub struct Fill {
    /// What is repeated or stretched.
    pub pattern: [u8; 8],
    /// Whether it is stretched.
    pub noise: bool,
}

impl Fill {
    /// `n` bytes.
    pub fn bytes(&self, n: usize) -> Vec<u8> {
        if !self.noise {
            return self.pattern.iter().copied().cycle().take(n).collect();
        }
        let mut rng = Rng::new(u32::from_le_bytes([0, 1, 2, 3].map(|i| self.pattern[i])));
        let mut out = Vec::new();
        while out.len() < n {
            out.extend(rng.bits().to_le_bytes());
        }
        out.truncate(n);
        out
    }

    /// Other values: small, ordinary, huge, not numbers.
    pub fn change(&mut self, rng: &mut Rng) {
        self.noise = rng.one_in(3);
        self.pattern = match rng.below(4) {
            0 => rng.bits().to_le_bytes(),
            1 => 0.02f64.to_le_bytes(),
            2 => [0x8f, 0xc2, 0xf5, 0x3c, 0x0a, 0xd7, 0xa3, 0xbc],
            _ => [*rng.pick(&[0x00, 0x7f, 0x80, 0xff, 0x3c]); 8],
        };
    }
}

impl Shards {
    /// The bytes of an input.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.model.len().min(255) as u8];
        out.extend(self.model.bytes().take(255));
        out.push(u8::from(self.sharded) | u8::from(self.stored) << 1 | u8::from(self.fill.noise) << 2);
        out.extend(self.fill.pattern);
        for n in [self.n_bytes[0], self.n_bytes[1], self.index.len(), self.headers[0].len()] {
            out.extend((n as u32).to_le_bytes());
        }
        out.extend_from_slice(&self.index);
        self.headers.iter().for_each(|h| out.extend_from_slice(h));
        out
    }

    /// An input read as far as it goes.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n.min(rest.len()));
            rest = tail;
            head
        };
        let len = take(1).first().copied().unwrap_or_default();
        let model = String::from_utf8_lossy(take(len.into())).into_owned();
        let flags = take(1).first().copied().unwrap_or_default();
        let mut pattern = [0; 8];
        take(8).iter().zip(&mut pattern).for_each(|(b, p)| *p = *b);
        let mut number = || take(4).iter().rev().fold(0usize, |n, b| n << 8 | usize::from(*b));
        let (n_bytes, n_index, n_first) = ([number(), number()], number(), number());
        let (index, first) = (take(n_index).to_vec(), take(n_first).to_vec());
        let second = take(usize::MAX).to_vec();
        Self {
            model,
            sharded: flags & 1 != 0,
            stored: flags & 2 != 0,
            fill: Fill { pattern, noise: flags & 4 != 0 },
            index,
            headers: [first, second],
            n_bytes: n_bytes.map(|n| n.min(MOST_VALUES)),
        }
    }

    /// A shard as a file.
    pub fn file(&self, shard: usize) -> Vec<u8> {
        let mut out = self.headers[shard].clone();
        out.extend(self.fill.bytes(self.n_bytes[shard]));
        out
    }

    /// Sets a header, its length told truly.
    fn set_header(&mut self, shard: usize, text: &[u8]) {
        self.headers[shard] = (text.len() as u64).to_le_bytes().into_iter().chain(text.iter().copied()).collect();
    }

    fn header(&self, shard: usize) -> Option<Map<String, Value>> {
        match serde_json::from_slice(self.headers[shard].get(8..)?).ok()? {
            Value::Object(map) => Some(map),
            _ => None,
        }
    }

    /// From a header of a real file; sharded, every second tensor goes to the second file.
    pub fn of_header(model: &str, text: &[u8], sharded: bool) -> Self {
        let mut this = Self { model: model.into(), sharded, ..Self::default() };
        this.fill.pattern = [0x8f, 0xc2, 0xf5, 0x3c, 0x0a, 0xd7, 0xa3, 0xbc];
        let Ok(Value::Object(map)) = serde_json::from_slice(text) else { return this };
        let mut headers = [Map::new(), Map::new()];
        for (i, (name, tensor)) in map.into_iter().enumerate() {
            headers[usize::from(sharded) * (i % 2)].insert(name, tensor);
        }
        for (shard, header) in headers.into_iter().enumerate() {
            this.lay_out(shard, header);
        }
        this.list_tensors();
        this
    }

    /// Writes a header with the offsets of its tensors one behind the other.
    fn lay_out(&mut self, shard: usize, mut header: Map<String, Value>) {
        let mut at = 0usize;
        for (name, tensor) in &mut header {
            if name == "__metadata__" || !tensor.is_object() {
                continue;
            }
            let bytes = n_bytes(tensor);
            tensor["data_offsets"] = json!([at, at.saturating_add(bytes)]);
            at = at.saturating_add(bytes);
        }
        self.n_bytes[shard] = at.min(MOST_VALUES);
        self.set_header(shard, Value::Object(header).to_string().as_bytes());
    }

    /// Writes the index that fits the headers.
    fn list_tensors(&mut self) {
        let mut map = Map::new();
        for (shard, file) in FILES.iter().enumerate() {
            let names = self.header(shard).unwrap_or_default();
            map.extend(names.keys().filter(|n| *n != "__metadata__").map(|n| (n.clone(), json!(file))));
        }
        self.index = json!({ "weight_map": map }).to_string().into_bytes();
    }

    /// A mutation; most of them keep lengths, offsets and index true, so that the readers get far.
    pub fn change(&mut self, rng: &mut Rng, models: &[String]) {
        let shard = usize::from(self.sharded && rng.one_in(2));
        match rng.below(12) {
            0 => self.model = if rng.one_in(6) { String::new() } else { rng.pick(models).clone() },
            1 => self.fill.change(rng),
            2 => self.stored = !self.stored,
            3 => {
                self.index = json::mutated(&self.index, rng, words::JSON).unwrap_or_default();
                return;
            }
            4 => {
                // A length or an amount that is not true.
                match rng.below(3) {
                    0 => self.n_bytes[shard] = rng.whole(self.n_bytes[shard] as u64) as usize,
                    1 => {
                        let len = self.headers[shard].len().saturating_sub(8) as u64;
                        let lie = rng.whole(len).to_le_bytes();
                        self.headers[shard].iter_mut().zip(lie).for_each(|(h, b)| *h = b);
                    }
                    _ => {
                        let mut text = self.headers[shard].get(8..).unwrap_or_default().to_vec();
                        for _ in 0..1 + rng.below(4) {
                            let at = rng.below(text.len());
                            if let Some(byte) = text.get_mut(at) {
                                *byte = rng.bits() as u8;
                            }
                        }
                        self.set_header(shard, &text);
                    }
                }
                return;
            }
            5 => {
                if let Some(text) = self.headers[shard].get(8..)
                    && let Some(text) = json::mutated(text, rng, words::JSON)
                {
                    self.set_header(shard, &text);
                }
                return;
            }
            _ => {
                let mut header = self.header(shard).unwrap_or_default();
                change_tensors(&mut header, rng);
                self.lay_out(shard, header);
            }
        }
        if !rng.one_in(10) {
            self.list_tensors();
        }
    }
}

/// The names of the files of a sharded directory.
pub const FILES: [&str; 2] = ["a.safetensors", "b.safetensors"];

const DTYPES: &[(&str, usize)] = &[("F32", 4), ("F16", 2), ("BF16", 2), ("F64", 8), ("I64", 8), ("U8", 1), ("BOOL", 1)];

/// Bytes of a tensor by its type and shape.
pub(crate) fn n_bytes(tensor: &Value) -> usize {
    let dtype = tensor["dtype"].as_str().unwrap_or_default();
    let size = DTYPES.iter().find(|(name, _)| *name == dtype).map_or(1, |(_, size)| *size);
    let dims = tensor["shape"].as_array().into_iter().flatten();
    dims.fold(size, |n, d| n.saturating_mul(usize::try_from(d.as_u64().unwrap_or(1)).unwrap_or(usize::MAX)))
}

/// Changes one tensor of a header: its type, its shape, its name.
pub(crate) fn change_tensors(header: &mut Map<String, Value>, rng: &mut Rng) {
    let names: Vec<String> = header.keys().cloned().collect();
    if names.is_empty() {
        header.insert("t".into(), json!({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}));
        return;
    }
    let name = rng.pick(&names).clone();
    let n_kinds = if rng.one_in(6) { DTYPES.len() } else { 4 };
    let dtype = *rng.pick(&DTYPES[..n_kinds]);
    match rng.below(8) {
        // The same type for all, or another for one.
        0 => header.values_mut().filter(|t| t.is_object()).for_each(|t| t["dtype"] = json!(dtype.0)),
        1 | 2 if header[&name].is_object() => header[&name]["dtype"] = json!(dtype.0),
        3 if header[&name].is_object() => {
            let mut shape = header[&name]["shape"].take();
            if let Some(dims) = shape.as_array_mut() {
                match rng.below(4) {
                    0 => dims.reverse(),
                    1 => dims.push(json!(1)),
                    2 => drop(dims.pop()),
                    _ => {
                        let at = rng.below(dims.len());
                        if let Some(dim) = dims.get_mut(at) {
                            *dim = json!(rng.whole(dim.as_u64().unwrap_or(1)));
                        }
                    }
                }
            }
            header[&name]["shape"] = shape;
        }
        4 => drop(header.shift_remove(&name)),
        5 => {
            let tensor = header[&name].clone();
            let mut copy = rng.pick(&names).clone();
            json::change_text(&mut copy, rng, words::JSON);
            header.insert(copy, tensor);
        }
        6 => {
            let notes = json!({"layout": "lecture", "n_layer": "1", "n_head": "2", "n_embd": "4", "block_size": "8",
                "vocab_size": "4"});
            let notes = header.entry("__metadata__").or_insert(notes);
            json::change(notes, rng, words::JSON);
        }
        _ => {
            let value = header.shift_remove(&name).unwrap_or_default();
            let mut fresh = name;
            json::change_text(&mut fresh, rng, words::JSON);
            header.insert(fresh, value);
        }
    }
}
