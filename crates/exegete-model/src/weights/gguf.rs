//! GGUF files (versions 2 and 3): metadata and tensors, read with every length checked against the file.
//!
//! Source of the layout: ggml's `docs/gguf.md`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::quant::Encoding;
use super::tensor_bytes::TensorBytes;
use super::{WeightSource, map_file};
use crate::{ModelError, Result};

/// A metadata value. Lists of numbers and of texts, which are as long as the vocabulary, stay in the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Meta {
    /// Any whole number.
    Int(i128),
    /// Any float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Texts),
    /// A list of truth values.
    Flags(Vec<bool>),
    /// A list of numbers, as they are in the file.
    Numbers(Numbers),
    /// A list of lists, of which nothing but the length is known: no key that is read has one.
    Lists(usize),
}

/// Bytes of the mapped file.
#[derive(Debug, Clone)]
struct Mapped {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl Mapped {
    fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl PartialEq for Mapped {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

/// Texts, each behind its length in 64 bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Texts {
    len: usize,
    mapped: Mapped,
}

impl Texts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The texts, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.mapped.bytes();
        // Opening the file checked every length and every text, so this ends early only if the file was changed since.
        (0..self.len).map_while(move |_| {
            let (len, behind) = rest.split_first_chunk()?;
            let (text, behind) = behind.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
            rest = behind;
            std::str::from_utf8(text).ok()
        })
    }
}

/// Numbers of one kind, little-endian.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    kind: u32,
    mapped: Mapped,
}

impl Numbers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.mapped.bytes().len() / width(self.kind)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mapped.bytes().is_empty()
    }

    /// The numbers, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        let meta = |b: &[u8]| number(self.kind, b).map_or(f64::NAN, |m| m.as_number().unwrap_or(f64::NAN));
        self.mapped.bytes().chunks_exact(width(self.kind)).map(meta)
    }
}

impl Meta {
    fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }
}

/// Bytes of a number of a kind.
fn width(kind: u32) -> usize {
    match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        _ => 8,
    }
}

/// A number of a kind from exactly its bytes.
fn number(kind: u32, bytes: &[u8]) -> Option<Meta> {
    Some(match kind {
        0 => Meta::Int(u8::from_le_bytes(bytes.try_into().ok()?).into()),
        1 => Meta::Int(i8::from_le_bytes(bytes.try_into().ok()?).into()),
        2 => Meta::Int(u16::from_le_bytes(bytes.try_into().ok()?).into()),
        3 => Meta::Int(i16::from_le_bytes(bytes.try_into().ok()?).into()),
        4 => Meta::Int(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        5 => Meta::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        6 => Meta::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        10 => Meta::Int(u64::from_le_bytes(bytes.try_into().ok()?).into()),
        11 => Meta::Int(i64::from_le_bytes(bytes.try_into().ok()?).into()),
        12 => Meta::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

/// The key-value section of a file, and the names of its tensors.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    values: BTreeMap<String, Meta>,
}

impl Metadata {
    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&Meta> {
        self.values.get(key)
    }

    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Meta::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn size(&self, key: &str) -> Option<usize> {
        match self.get(key)? {
            Meta::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_number()
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Meta::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Option<&Texts> {
        match self.get(key)? {
            Meta::Texts(items) => Some(items),
            _ => None,
        }
    }

    /// A list of numbers.
    pub fn numbers(&self, key: &str) -> Option<&Numbers> {
        match self.get(key)? {
            Meta::Numbers(items) => Some(items),
            _ => None,
        }
    }
}

/// An open GGUF file.
pub struct Gguf {
    path: PathBuf,
    tensors: BTreeMap<String, TensorBytes>,
    /// The key-value section.
    pub metadata: Metadata,
}

impl Gguf {
    /// Opens a file and reads everything but the tensors' values.
    ///
    /// # Errors
    /// Anything that is not a whole, well-formed file, with the byte offset.
    pub fn open(path: &Path) -> Result<Self> {
        let map = Arc::new(map_file(path)?);
        let mut c = Cursor { path, map: &map, at: 0 };
        if c.take(4)? != b"GGUF" {
            return Err(ModelError::format(path, "not a GGUF file: it does not start with \"GGUF\""));
        }
        let version = c.u32()?;
        if !(2..=3).contains(&version) {
            return Err(ModelError::format(path, format!("GGUF version {version}; versions 2 and 3 are handled")));
        }
        // The smallest tensor entry takes 24 bytes and the smallest pair 13, which bounds both counts.
        let n_tensors = c.count(24, "tensors")?;
        let n_pairs = c.count(13, "metadata pairs")?;
        let mut metadata = Metadata::default();
        for _ in 0..n_pairs {
            let key = c.text()?.to_owned();
            let kind = c.u32()?;
            let value = c.value(kind)?;
            if metadata.values.insert(key.clone(), value).is_some() {
                return Err(c.error(format!("metadata key {key:?} stands twice")));
            }
        }
        let mut entries = Vec::new();
        for _ in 0..n_tensors {
            entries.push(c.tensor_entry()?);
        }
        let alignment = metadata.size("general.alignment").unwrap_or(32);
        if alignment == 0 || !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(c.error(format!("general.alignment is {alignment}, not a power of two up to 2^20")));
        }
        let data = c.at.next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, shape, encoding, offset) in entries {
            let (block, size) = encoding.block();
            let n_values = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            let range = n_values.and_then(|n| (n / block).checked_mul(size)).and_then(|len| {
                let from = data.checked_add(usize::try_from(offset).ok()?)?;
                Some(from..from.checked_add(len)?)
            });
            let tensor = range.and_then(|range| TensorBytes::new(map.clone(), range, encoding, shape.clone()));
            let Some(tensor) = tensor else {
                let detail = format!(
                    "tensor {name:?} of shape {shape:?} at offset {offset} does not fit in a file of {} bytes: \
                     truncated or damaged, get it again",
                    map.len()
                );
                return Err(ModelError::format(path, detail));
            };
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(ModelError::format(path, format!("tensor {name:?} stands twice")));
            }
        }
        Ok(Self { path: path.into(), tensors, metadata })
    }
}

impl WeightSource for Gguf {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn find(&self, name: &str) -> Option<&TensorBytes> {
        self.tensors.get(name)
    }
}

type Entry = (String, Vec<usize>, Encoding, u64);

struct Cursor<'a> {
    path: &'a Path,
    map: &'a Arc<Mmap>,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn error(&self, detail: impl std::fmt::Display) -> ModelError {
        ModelError::format(self.path, format!("at byte {}: {detail}", self.at))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.map.len());
        let end =
            end.ok_or_else(|| self.error(format!("{len} bytes wanted, the file ends after {}", self.map.len())))?;
        let slice = &self.map[self.at..end];
        self.at = end;
        Ok(slice)
    }

    /// What was read since byte `start`.
    fn mapped_since(&self, start: usize) -> Mapped {
        Mapped { map: self.map.clone(), range: start..self.at }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things that take at least `least` bytes each.
    fn count(&mut self, least: usize, what: &str) -> Result<usize> {
        let count = self.u64()?;
        let room = (self.map.len() - self.at) / least.max(1);
        usize::try_from(count).ok().filter(|n| *n <= room).ok_or_else(|| {
            self.error(format!("{count} {what} are announced, the rest of the file holds at most {room}"))
        })
    }

    fn text(&mut self) -> Result<&'a str> {
        let len = self.count(1, "bytes of text")?;
        std::str::from_utf8(self.take(len)?).map_err(|e| self.error(format!("text is not UTF-8: {e}")))
    }

    fn value(&mut self, kind: u32) -> Result<Meta> {
        match kind {
            7 => Ok(Meta::Bool(self.array::<1>()?[0] != 0)),
            8 => Ok(Meta::Text(self.text()?.to_owned())),
            9 => self.list(0),
            0..=6 | 10..=12 => {
                let bytes = self.take(width(kind))?;
                number(kind, bytes).ok_or_else(|| self.error("a number was expected"))
            }
            other => Err(self.error(format!("metadata type {other} is not known"))),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Meta> {
        let item = self.u32()?;
        let len = self.count(width(item), "list items")?;
        let start = self.at;
        Ok(match item {
            7 => Meta::Flags(self.take(len)?.iter().map(|b| *b != 0).collect()),
            8 => {
                for _ in 0..len {
                    self.text()?;
                }
                Meta::Texts(Texts { len, mapped: self.mapped_since(start) })
            }
            9 if depth < 4 => {
                for _ in 0..len {
                    self.list(depth + 1)?;
                }
                Meta::Lists(len)
            }
            0..=6 | 10..=12 => {
                self.take(len * width(item))?;
                Meta::Numbers(Numbers { kind: item, mapped: self.mapped_since(start) })
            }
            other => return Err(self.error(format!("list of type {other} is not known or nested too deep"))),
        })
    }

    fn tensor_entry(&mut self) -> Result<Entry> {
        let name = self.text()?.to_owned();
        let n_dims = self.u32()?;
        if n_dims > 4 {
            return Err(self.error(format!("tensor {name:?} has {n_dims} axes; at most 4 are possible")));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            let dim = self.u64()?;
            let fits = usize::try_from(dim).ok().filter(|d| *d > 0);
            shape.push(fits.ok_or_else(|| self.error(format!("tensor {name:?} has an axis of length {dim}")))?);
        }
        // The file lists the innermost axis first.
        shape.reverse();
        let kind = self.u32()?;
        let encoding = Encoding::from_ggml(kind).ok_or_else(|| {
            self.error(format!("tensor {name:?} has element type {kind}; handled are {}", Encoding::names()))
        })?;
        Ok((name, shape, encoding, self.u64()?))
    }
}
