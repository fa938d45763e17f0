//! Files of named arrays as inputs: taken apart, changed, and put together with true lengths and sums.

use std::io::{Cursor, Read, Write};

use serde_json::{Map, Value, json};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use crate::rng::Rng;
use crate::shards::{change_tensors, n_bytes};
use crate::{json, memory, refs, tell, words};

/// The most bytes of a file that a mutation makes.
const MOST: usize = 1 << 16;

/// What a target feeds.
#[derive(Clone, Copy, PartialEq)]
pub enum Container {
    /// safetensors.
    Safetensors,
    /// NumPy's archive, or a single array of it.
    Npz,
    /// PyTorch's archive.
    Pickle,
}

/// What a reader of arrays may hold for files of `n` bytes: the bytes, which an archive may unpack to sixteen times as many
/// and 1 MiB; four times those, for values of one byte are read as four; the same again where arrays are turned and where a
/// dictionary is made of them. Beside that, tables of the allocator's and of the archive's entries.
pub fn granted(n: usize) -> usize {
    let unpacked = 16 * n + (1 << 20);
    13 * unpacked + (8 << 20)
}

/// Reads an input within its memory.
pub fn read(container: Container, data: &[u8]) {
    let read = memory::bounded(granted(data.len()), || exegete_sae::containers::from_bytes(data));
    match &read {
        Ok(arrays) => tell(&format!("{} arrays", arrays.arrays.len())),
        Err(e) => tell(&format!("refused: {e}")),
    }
    if container == Container::Pickle && read.is_ok() {
        refuses_calls(data);
    }
}

/// Names that a pickle of tensors has itself are no call.
const HARMLESS: &[&str] = &["collections", "builtins", "__builtin__", "torch", "torch._utils"];

/// Puts names to be called in front of the program of an archive that was read: each of them must be refused.
fn refuses_calls(data: &[u8]) {
    let Some(entries) = entries(data) else { return };
    let Some(program) = entries.iter().position(|(name, _)| name.ends_with("data.pkl")) else { return };
    let head = if entries[program].1.starts_with(&[0x80]) { 2 } else { 0 };
    // A name that the input chooses, and one that is known to do harm.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(['\n', '\r'], "");
    let of_input = text(data.get(data.len() / 2..data.len() / 2 + 6).unwrap_or_default());
    for module in ["os", "posix", "subprocess", &of_input] {
        if HARMLESS.contains(&module) {
            continue;
        }
        let by_line = format!("c{module}\nsystem\n(S'true'\ntR0").into_bytes();
        let short = |t: &str| [&[0x8c, t.len() as u8], t.as_bytes()].concat();
        let by_stack = [short(module), short("system"), vec![0x93], b"(S'true'\ntR0".to_vec()].concat();
        for call in [by_line, by_stack] {
            let mut with = entries.clone();
            with[program].1.splice(head..head, call);
            let Some(bytes) = archive(&with, false) else { continue };
            let read = memory::bounded(granted(bytes.len()), || exegete_sae::containers::from_bytes(&bytes));
            assert!(read.is_err(), "a pickle that calls {module}.system was read");
        }
    }
}

/// Entries of an archive, none of more than a mutation may make.
pub fn entries(data: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut zip = zip::ZipArchive::new(Cursor::new(data)).ok()?;
    let mut out = Vec::new();
    for i in 0..zip.len().min(64) {
        let mut file = zip.by_index(i).ok()?;
        let name = file.name().ok()?.into_owned();
        let mut bytes = Vec::new();
        file.by_ref().take(MOST as u64).read_to_end(&mut bytes).ok()?;
        out.push((name, bytes));
    }
    Some(out)
}

/// An archive of entries; `None` where there are two of one name.
pub fn archive(entries: &[(String, Vec<u8>)], packed: bool) -> Option<Vec<u8>> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let method = if packed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), SimpleFileOptions::default().compression_method(method)).ok()?;
        zip.write_all(bytes).ok()?;
    }
    Some(zip.finish().ok()?.into_inner())
}

/// A mutation of a file by what it is; `None` where it is left to libFuzzer.
pub fn mutated(file: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    match file {
        [b'P', b'K', ..] => {
            let mut entries = entries(file)?;
            for _ in 0..1 + rng.below(3) {
                change_entries(&mut entries, rng);
            }
            let bytes = archive(&entries, rng.one_in(6))?;
            (bytes.len() <= MOST).then_some(bytes)
        }
        [0x93, ..] => {
            let mut bytes = file.to_vec();
            change_array(&mut bytes, rng);
            Some(bytes)
        }
        [b'{', ..] => json::mutated(file, rng, words::DICTIONARY),
        [_, _, _, 0, 0, 0, 0, 0, b'{', ..] => tensors(file, rng),
        _ => {
            let mut text = String::from_utf8(file.to_vec()).ok()?;
            json::change_text(&mut text, rng, words::DICTIONARY);
            Some(text.into_bytes())
        }
    }
}

/// A changed header with offsets that fit, over values of the length that it needs.
fn tensors(file: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let len = usize::try_from(u64::from_le_bytes(file.get(..8)?.try_into().ok()?)).ok()?;
    let text = file.get(8..8usize.checked_add(len)?)?;
    let mut values = file[8 + len..].to_vec();
    if rng.one_in(6) {
        change_values(&mut values, rng);
    }
    let mut header: Map<String, Value> = serde_json::from_slice(text).ok()?;
    for _ in 0..rng.below(3) {
        match rng.below(3) {
            // Names that mean something are rarely found by chance.
            0 => {
                let name = header.keys().nth(rng.below(header.len()))?.clone();
                let tensor = if rng.one_in(2) { header.shift_remove(&name)? } else { header[&name].clone() };
                header.insert((*rng.pick(words::TENSORS)).to_owned(), tensor);
            }
            _ => change_tensors(&mut header, rng),
        }
    }
    if !rng.one_in(12) {
        let mut at = 0usize;
        for (_, tensor) in header.iter_mut().filter(|(name, t)| *name != "__metadata__" && t.is_object()) {
            let end = at.saturating_add(n_bytes(tensor));
            tensor["data_offsets"] = json!([at, end]);
            at = end;
        }
        let source = if values.is_empty() { vec![0x3c] } else { values };
        values = source.into_iter().cycle().take(at.min(MOST)).collect();
    }
    let text = serde_json::to_vec(&header).ok()?;
    let out = [&(text.len() as u64).to_le_bytes(), &text[..], &values].concat();
    (out.len() <= MOST).then_some(out)
}

/// Single bytes, or numbers of the kinds that readers trip over.
fn change_values(values: &mut [u8], rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(values.len().max(4) / 4) * 4;
        let number = *rng.pick(&[f32::NAN, f32::INFINITY, -1.0, 0.0, 1e30, f32::MIN_POSITIVE, 1.0, -0.0]);
        if let Some(place) = values.get_mut(at..at + 4) {
            place.copy_from_slice(&number.to_le_bytes());
        }
    }
}

fn change_entries(entries: &mut Vec<(String, Vec<u8>)>, rng: &mut Rng) {
    if entries.is_empty() {
        return;
    }
    let at = rng.below(entries.len());
    match rng.below(12) {
        0 => drop(entries.remove(at)),
        1 => {
            let (name, bytes) = entries[at].clone();
            entries.push((format!("{}{name}", rng.pick(&["x/", "a", "archive/data/"])), bytes));
        }
        2 => json::change_text(&mut entries[at].0, rng, words::TENSORS),
        3 => {
            let source = entries[rng.below(entries.len())].1.clone();
            entries[at].1 = source;
        }
        4 => {
            let n = rng.below(1 + entries[at].1.len());
            entries[at].1.truncate(n);
        }
        _ => {
            let (name, bytes) = &mut entries[at];
            match name {
                name if name.ends_with(".npy") => change_array(bytes, rng),
                name if name.ends_with(".pkl") => change_program(bytes, rng),
                _ => change_values(bytes, rng),
            }
            // Most arrays of numbers are alike: the program is where readers go wrong.
            if let Some((_, program)) = entries.iter_mut().find(|(name, _)| name.ends_with("data.pkl")) {
                change_program(program, rng);
            }
        }
    }
}

/// The header of a `.npy` array, its length told truly, or its values.
fn change_array(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let Some(len) = bytes.get(8..10).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]]))) else { return };
    let Some(header) = bytes.get(10..10 + len) else { return };
    if rng.one_in(3) {
        return change_values(&mut bytes[10 + len..], rng);
    }
    let mut text = String::from_utf8_lossy(header).into_owned();
    let (old, new) = *rng.pick(ARRAYS);
    match rng.below(3) {
        0 => json::change_text(&mut text, rng, words::DICTIONARY),
        _ if text.contains(old) => text = text.replacen(old, new, 1),
        _ => {
            // A shape of another number.
            let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(i, _)| i).collect();
            if !digits.is_empty() {
                let at = *rng.pick(&digits);
                text.replace_range(at..=at, &rng.whole(3).to_string());
            }
        }
    }
    let head = (text.len() as u16).to_le_bytes();
    bytes.splice(8..10 + len, head.into_iter().chain(text.bytes().take(usize::from(u16::MAX))));
}

const ARRAYS: &[(&str, &str)] = &[
    ("<f4", "<f8"),
    ("<f4", "<f2"),
    ("<f4", ">f4"),
    ("<f4", "|u1"),
    ("<f4", "|O"),
    ("<f8", "<f4"),
    ("False", "True"),
    ("(", "(1, "),
    (")", "0,)"),
    (", ", ""),
];

/// A pickle's program: numbers, operations, and pieces of it in other places.
fn change_program(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(bytes.len());
    match rng.below(7) {
        0 => bytes.splice(at..at, rng.pick(OPERATIONS).iter().copied()).for_each(drop),
        1 => bytes.truncate(at),
        2 => {
            let to = (at + rng.below(24)).min(bytes.len());
            bytes.drain(at..to).for_each(drop);
        }
        3 => {
            let to = (at + rng.below(40)).min(bytes.len());
            let piece = bytes[at..to].to_vec();
            let into = rng.below(bytes.len() + 1);
            bytes.splice(into..into, piece).for_each(drop);
        }
        4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.bits() as u8;
            }
        }
        // The numbers of shapes, strides, offsets and memo.
        _ => {
            let small = |(i, b): (usize, &u8)| matches!(b, b'K' | b'M' | b'J' | b'h' | b'q').then_some(i);
            let places: Vec<usize> = bytes.iter().enumerate().filter_map(small).collect();
            if !places.is_empty() {
                let at = *rng.pick(&places);
                let width = match bytes[at] {
                    b'M' => 2,
                    b'J' => 4,
                    _ => 1,
                };
                let number = rng.whole(3).to_le_bytes();
                if let Some(place) = bytes.get_mut(at + 1..at + 1 + width) {
                    place.copy_from_slice(&number[..width]);
                }
            }
        }
    }
}

const OPERATIONS: &[&[u8]] = &[
    b"0",
    b"1",
    b"2",
    b"(",
    b")",
    b"]",
    b"}",
    b".",
    b"N",
    b"t",
    b"s",
    b"u",
    b"a",
    b"e",
    b"R",
    b"Q",
    b"b",
    b"\x88",
    b"\x89",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x93",
    b"\x94",
    b"K\x01",
    b"M\xff\xff",
    b"J\xff\xff\xff\xff",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"G\x7f\xf8\x00\x00\x00\x00\x00\x00",
    b"X\xff\xff\xff\x7f",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"h\x00",
    b"q\x00",
    b"j\xff\xff\xff\xff",
    b"r\xff\xff\xff\xff",
    b"cos\nsystem\n(S'true'\ntR",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n)R",
    b"ctorch\nFloatStorage\n",
    b"cbuiltins\neval\n",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\x02",
    b"i",
    b"o",
];

/// Every file of a container in the goldens of dictionaries, and for archives of arrays one packed and one single array.
pub fn seeds(container: Container) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    let groups = crate::layouts::GROUPS.iter().map(|group| refs().join(group));
    let mut left: Vec<_> = groups.chain([refs().join("containers")]).collect();
    while let Some(dir) = left.pop() {
        for path in std::fs::read_dir(&dir).expect("refs/ is there").flatten().map(|e| e.path()) {
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("a golden can be read");
            let is_torch = || entries(&bytes).is_some_and(|all| all.iter().any(|(name, _)| name.ends_with("data.pkl")));
            let kind = match &bytes[..] {
                [b'P', b'K', ..] if is_torch() => Container::Pickle,
                [b'P', b'K' | 0x4e, ..] | [0x93, b'N', ..] => Container::Npz,
                [_, _, _, 0, 0, 0, 0, 0, b'{', ..] => Container::Safetensors,
                _ => continue,
            };
            if kind == container && bytes.len() <= MOST {
                let name = format!("{}-{}", out.len(), path.file_name().unwrap_or_default().to_string_lossy());
                if let ([b'P', ..], Some(entries)) = (&bytes[..], entries(&bytes)) {
                    out.extend(archive(&entries, true).map(|packed| (format!("{name}-packed"), packed)));
                    let single = entries.into_iter().filter(|(name, _)| name.ends_with(".npy"));
                    out.extend(single.map(|(entry, array)| (format!("{name}-{entry}"), array)));
                }
                out.push((name, bytes));
            }
        }
    }
    out
}

/// A target that feeds one container.
#[macro_export]
macro_rules! container_target {
    ($container:expr) => {
        #[global_allocator]
        static ALLOCATOR: $crate::memory::Counting = $crate::memory::Counting;

        libfuzzer_sys::fuzz_target!(
            init: {
                $crate::start();
                $crate::write_seeds($crate::containers::seeds($container));
            },
            |data: &[u8]| $crate::containers::read($container, data)
        );

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            let rng = &mut $crate::rng::Rng::new(seed);
            match $crate::containers::mutated(&data[..size], rng) {
                Some(out) if !rng.one_in(10) && out.len() <= max_size => {
                    data[..out.len()].copy_from_slice(&out);
                    out.len()
                }
                _ => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
            }
        });
    };
}
