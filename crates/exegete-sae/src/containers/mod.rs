//! Files of named arrays, as other programs write them, one file each: safetensors, NumPy's npz, PyTorch's zip.
//!
//! A container knows nothing of dictionaries. It gives arrays by name and refuses what it cannot read rightly; what the
//! arrays mean is the business of [`formats`](crate::formats).

mod npz;
mod pickle;
mod safetensors;
mod torch;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;

use crate::{Result, SaeError};

/// Elements of an array on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision, rounded to single on reading.
    F64,
    /// Unsigned byte, and truth values.
    U8,
    /// Signed integers of 1, 2, 4 and 8 bytes.
    I8,
    /// 16 bits.
    I16,
    /// 32 bits.
    I32,
    /// 64 bits.
    I64,
}

impl Element {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// One value from its little-endian bytes, of which there are [`Element::size`].
    fn value(self, b: &[u8]) -> f32 {
        match self {
            Self::U8 => f32::from(b[0]),
            Self::I8 => f32::from(b[0] as i8),
            Self::F16 => half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
            Self::Bf16 => half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
            Self::I16 => f32::from(i16::from_le_bytes([b[0], b[1]])),
            Self::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Self::I32 => i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32,
            Self::F64 => f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32,
            Self::I64 => i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32,
        }
    }
}

/// An array in f32, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its shape; none for a single number.
    pub shape: Vec<usize>,
    /// What its elements were on disk.
    pub element: Element,
    /// Its values.
    pub values: Vec<f32>,
}

/// The arrays of a file by name, and the plain facts (numbers, texts, truth values) that lay beside them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Arrays {
    /// Arrays.
    pub arrays: BTreeMap<String, Array>,
    /// Facts.
    pub facts: BTreeMap<String, serde_json::Value>,
}

pub(crate) use npz::write as npz_of;

/// Reads a file by what it is: its ending is not asked, for endings are often wrong.
///
/// # Errors
/// A file of another kind, a damaged one, one that would run a program.
pub fn read(path: &Path) -> Result<Arrays> {
    let bytes = std::fs::read(path).map_err(|source| SaeError::Io { path: path.to_owned(), source })?;
    from_bytes(&bytes).map_err(|detail| SaeError::format(path, detail))
}

/// As [`read`], from bytes that are there already; the error is a sentence.
///
/// # Errors
/// As for [`read`].
pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Arrays, String> {
    match bytes {
        [b'P', b'K', 3, 4, ..] => match torch::is_torch(bytes)? {
            true => torch::read(bytes),
            false => npz::read(bytes),
        },
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            let array = npz::array(bytes)?;
            Ok(Arrays { arrays: BTreeMap::from([(String::new(), array)]), facts: BTreeMap::new() })
        }
        [0x80, 2..=5, ..] => {
            Err("a bare pickle, as PyTorch wrote before version 1.6; save it again with torch.save".into())
        }
        _ => safetensors::read(bytes),
    }
}

/// The product of a shape, if the array of that many elements fits into `bytes`.
fn elements(shape: &[usize], element: Element, bytes: usize) -> Option<usize> {
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    n.checked_mul(element.size()).filter(|size| *size <= bytes).map(|_| n)
}

type Archive<'a> = zip::ZipArchive<Cursor<&'a [u8]>>;

/// How many times its archive's length all entries may have together, beside [`FREE`].
const MOST_PACKED: usize = 16;
const FREE: usize = 1 << 20;

/// Bytes that may be unpacked from an archive of so many. Entries may lie over each other, so that their number is no bound.
fn unpacked(packed: usize) -> usize {
    packed.saturating_mul(MOST_PACKED).saturating_add(FREE)
}

/// Opens a zip archive in memory.
fn archive(bytes: &[u8]) -> std::result::Result<Archive<'_>, String> {
    zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("not a whole zip archive ({e}); get it again"))
}

/// An entry of a zip archive, whole. A stored entry is no longer than the archive; a packed one may be a thousand times
/// longer, so what it says of itself is a bound and never a promise, and comes off what is `left`.
fn entry(archive: &mut Archive, index: usize, left: &mut usize) -> std::result::Result<(String, Vec<u8>), String> {
    let mut file = archive.by_index(index).map_err(|e| format!("entry {index} of the archive: {e}"))?;
    let name = file.name().map_err(|e| format!("entry {index} of the archive: {e}"))?.into_owned();
    let mut bytes = Vec::new();
    let most = file.size();
    // Weights are numbers without a pattern, and never packed into a small part of themselves.
    *left = usize::try_from(most).ok().and_then(|most| left.checked_sub(most)).ok_or_else(|| {
        let bound = format!("more than {MOST_PACKED} times its archive's length");
        format!("entry {name:?} says it is {most} bytes long, with the entries before it {bound}; refused")
    })?;
    file.by_ref().take(most).read_to_end(&mut bytes).map_err(|e| format!("entry {name:?}: {e}"))?;
    if bytes.len() as u64 != most {
        return Err(format!(
            "entry {name:?} is {} bytes long, not the {most} it says; get the file again",
            bytes.len()
        ));
    }
    Ok((name, bytes))
}
