//! NumPy's `.npz`: a zip archive of `.npy` arrays. Source: numpy/lib/format.py.

use std::io::{Cursor, Write};

use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use super::{Array, Arrays, Element, archive, elements, entry, unpacked};

type Result<T> = std::result::Result<T, String>;

/// Reads all arrays of an archive; a name loses its `.npy`.
pub(super) fn read(bytes: &[u8]) -> Result<Arrays> {
    let mut zip = archive(bytes)?;
    let (mut out, mut left) = (Arrays::default(), unpacked(bytes.len()));
    for i in 0..zip.len() {
        let (name, bytes) = entry(&mut zip, i, &mut left)?;
        let Some(stem) = name.strip_suffix(".npy") else {
            return Err(format!("entry {name:?} is no .npy array, and no archive of PyTorch's holds it"));
        };
        let array = array(&bytes).map_err(|detail| format!("array {stem:?}: {detail}"))?;
        if out.arrays.insert(stem.to_owned(), array).is_some() {
            return Err(format!("array {stem:?} is there twice"));
        }
    }
    Ok(out)
}

/// An archive of f32 arrays, as `numpy.savez` writes it: each begins at a multiple of 64 bytes behind its header.
pub(crate) fn write(arrays: &[(&str, Vec<usize>, Vec<f32>)]) -> Result<Vec<u8>> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, shape, values) in arrays {
        let is_large = values.len() * 4 > u32::MAX as usize / 2;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(is_large);
        zip.start_file(format!("{name}.npy"), options).map_err(|e| e.to_string())?;
        let axes: String = shape.iter().map(|n| format!("{n}, ")).collect();
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", axes.trim_end());
        let width = (10 + header.len() + 1).next_multiple_of(64) - 11;
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(((width + 1) as u16).to_le_bytes());
        bytes.extend(format!("{header:width$}\n").bytes());
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        zip.write_all(&bytes).map_err(|e| e.to_string())?;
    }
    Ok(zip.finish().map_err(|e| e.to_string())?.into_inner())
}

/// One `.npy` array.
pub(super) fn array(bytes: &[u8]) -> Result<Array> {
    let short = || "cut short; get the file again".to_owned();
    let version = *bytes.get(6).ok_or_else(short)?;
    let (len_size, len): (usize, _) = match version {
        1 => (2, bytes.get(8..10).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))),
        2 | 3 => (4, bytes.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)),
        other => return Err(format!("version {other} of the .npy format is not handled")),
    };
    let from = 8 + len_size;
    let header = len.and_then(|len| bytes.get(from..from.checked_add(len)?)).ok_or_else(short)?;
    let data = &bytes[from + header.len()..];
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text".to_owned())?;
    let Header { element, is_big, is_fortran, shape } = Header::parse(header)?;
    let size = element.size();
    let n = elements(&shape, element, data.len()).ok_or_else(|| {
        format!("{} bytes of values are too few for the shape {shape:?}; get the file again", data.len())
    })?;
    if data.len() != n * size {
        return Err(format!("{} bytes of values, but the shape {shape:?} needs {}", data.len(), n * size));
    }
    let value = |b: &[u8]| match is_big {
        false => element.value(b),
        true => {
            let mut turned = [0u8; 8];
            turned[..size].iter_mut().zip(b.iter().rev()).for_each(|(t, b)| *t = *b);
            element.value(&turned[..size])
        }
    };
    let read: Vec<f32> = data.chunks_exact(size).map(value).collect();
    let values = if is_fortran { from_columns(&read, &shape) } else { read };
    Ok(Array { shape, element, values })
}

/// The first axis varies fastest in `x`; in the result the last does.
fn from_columns(x: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    let mut index = vec![0usize; shape.len()];
    for value in x {
        let at = index.iter().zip(shape).fold(0, |at, (i, d)| at * d + i);
        out[at] = *value;
        for (i, d) in index.iter_mut().zip(shape) {
            *i += 1;
            if *i < *d {
                break;
            }
            *i = 0;
        }
    }
    out
}

struct Header {
    element: Element,
    is_big: bool,
    is_fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// A header is a Python dictionary of three keys, written by `repr`.
    fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| format!("its header has no {what}: {:?}", text.trim_end());
        let after = |key: &str| {
            let at = text.find(&format!("'{key}'")).or_else(|| text.find(&format!("\"{key}\"")));
            at.map(|at| text[at + key.len() + 2..].trim_start_matches([':', ' ']))
        };
        let descr = after("descr").ok_or_else(|| wrong("'descr'"))?;
        let descr = descr
            .strip_prefix(['\'', '"'])
            .and_then(|d| d.split(['\'', '"']).next())
            .ok_or_else(|| wrong("plain 'descr'"))?;
        let order = after("fortran_order").ok_or_else(|| wrong("'fortran_order'"))?;
        let shape =
            after("shape").and_then(|s| s.strip_prefix('(')?.split(')').next()).ok_or_else(|| wrong("'shape'"))?;
        let size = |d: &str| d.trim().parse::<usize>().map_err(|_| format!("its shape is ({shape})"));
        let shape = shape.split(',').filter(|d| !d.trim().is_empty()).map(size).collect::<Result<Vec<usize>>>()?;
        if shape.len() > 8 {
            return Err(format!("its shape has {} axes; 8 are handled", shape.len()));
        }
        let element = match descr.trim_start_matches(['<', '>', '=', '|']) {
            "f2" => Element::F16,
            "f4" => Element::F32,
            "f8" => Element::F64,
            "u1" | "b1" | "?" => Element::U8,
            "i1" => Element::I8,
            "i2" => Element::I16,
            "i4" => Element::I32,
            "i8" => Element::I64,
            _ if descr.contains('O') => {
                return Err("its elements are Python objects, which could run a program; refused".into());
            }
            _ => return Err(format!("elements of type {descr:?} are not handled")),
        };
        Ok(Self { element, is_big: descr.starts_with('>'), is_fortran: order.starts_with("True"), shape })
    }
}
