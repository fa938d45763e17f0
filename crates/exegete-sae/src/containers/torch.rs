//! PyTorch's zip: `NAME/data.pkl` and one entry a storage, `NAME/data/KEY`. Source: torch/serialization.py.

use std::collections::HashMap;

use serde_json::Value;

use super::pickle::{self, Id, Known, Node, Pickle};
use super::{Array, Arrays, Element, archive, elements, entry, unpacked};

type Result<T> = std::result::Result<T, String>;

/// How deep dictionaries lie in each other, at most.
const DEEPEST: usize = 16;
/// Bytes of a text that is kept as a fact, at most.
const LONGEST: usize = 4096;
/// Bytes of a name, with those of the dictionaries that it is in, at most: a long key could be that of thousands.
const LONGEST_NAME: usize = 256;
/// A program is never packed by PyTorch, and each of its bytes may be a value. Packed by others it may be this much longer
/// than its archive.
const PACKED_PROGRAM: usize = 1 << 16;
/// A storage that several names share is read once for each; all tensors take this many times the storages' bytes at most.
const SHARED: usize = 4;

/// Whether a zip archive is PyTorch's.
pub(super) fn is_torch(bytes: &[u8]) -> Result<bool> {
    Ok(archive(bytes)?.file_names().any(|name| name.is_ok_and(|name| name.ends_with("data.pkl"))))
}

/// Reads all tensors. Dictionaries in dictionaries join their keys by dots.
pub(super) fn read(bytes: &[u8]) -> Result<Arrays> {
    let mut zip = archive(bytes)?;
    let mut storages = HashMap::new();
    let (packed, mut left) = (bytes.len(), unpacked(bytes.len()));
    let (mut program, mut is_big) = (None, false);
    for i in 0..zip.len() {
        let (name, unpacked) = entry(&mut zip, i, &mut left)?;
        if name.ends_with("data.pkl") {
            if unpacked.len() > packed.saturating_add(PACKED_PROGRAM) {
                return Err(format!("{name:?} is {} bytes long in an archive of {packed}; refused", unpacked.len()));
            }
            if program.replace(unpacked).is_some() {
                return Err(format!("{name:?} is its second program, and which of them counts is not said"));
            }
        } else if let Some((_, key)) = name.rsplit_once("/data/") {
            if storages.insert(key.to_owned(), unpacked).is_some() {
                return Err(format!("{name:?} is the second storage of this name"));
            }
        } else if name.ends_with("/byteorder") {
            is_big = unpacked.starts_with(b"big");
        }
    }
    if is_big {
        return Err("its numbers were written on a big-endian machine, which is not handled".into());
    }
    let program = program.ok_or("there is no data.pkl in it")?;
    let pickle = pickle::read(&program)?;
    let mut out = Arrays::default();
    let bytes: usize = storages.values().map(Vec::len).sum();
    let mut left = Left { visits: pickle.nodes.len(), bytes: SHARED.saturating_mul(bytes), text: program.len() };
    collect(&pickle, pickle.root, String::new(), &storages, &mut out, 0, &mut left)?;
    match out.arrays.is_empty() {
        true => Err("it holds no tensors".into()),
        false => Ok(out),
    }
}

/// What a walk may still cost. One value can be in many places, and a pickle could be made to be walked for ever.
struct Left {
    visits: usize,
    /// Of tensors.
    bytes: usize,
    /// Of texts that are kept.
    text: usize,
}

/// Walks through dictionaries and lists.
fn collect(
    pickle: &Pickle,
    id: Id,
    name: String,
    storages: &HashMap<String, Vec<u8>>,
    out: &mut Arrays,
    depth: usize,
    left: &mut Left,
) -> Result<()> {
    if depth > DEEPEST {
        return Err(format!("{name:?} lies deeper than {DEEPEST} dictionaries"));
    }
    if name.len() > LONGEST_NAME {
        return Err(format!("a name of {} bytes; {LONGEST_NAME} are handled", name.len()));
    }
    left.visits = left.visits.checked_sub(1).ok_or("its values refer to each other without end")?;
    let joined = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match pickle.node(id) {
        Node::Dict(pairs) => {
            for (key, value) in pairs {
                let key = match pickle.node(*key) {
                    Node::Text(key) => key.clone(),
                    Node::Int(key) => key.to_string(),
                    other => return Err(format!("{} as a key of {name:?}", other.what())),
                };
                collect(pickle, *value, joined(&key), storages, out, depth + 1, left)?;
            }
        }
        Node::List(items) | Node::Tuple(items) => {
            for (i, item) in items.iter().enumerate() {
                collect(pickle, *item, joined(&i.to_string()), storages, out, depth + 1, left)?;
            }
        }
        Node::Tensor { .. } => {
            let array = tensor(pickle, id, storages).map_err(|detail| format!("tensor {name:?}: {detail}"))?;
            let size = array.values.len() * size_of::<f32>();
            left.bytes = left.bytes.checked_sub(size).ok_or("its tensors share their storages without end")?;
            out.arrays.insert(name, array);
        }
        Node::Bool(b) => drop(out.facts.insert(name, Value::from(*b))),
        Node::Int(i) => drop(out.facts.insert(name, Value::from(*i))),
        Node::Float(x) => drop(out.facts.insert(name, Value::from(*x))),
        Node::Text(text) if text.len() > LONGEST => {}
        Node::Text(text) => {
            left.text = left.text.checked_sub(text.len()).ok_or("its values refer to each other without end")?;
            out.facts.insert(name, Value::from(text.clone()));
        }
        Node::None | Node::Known(_) => {}
        Node::Persistent(_) => return Err(format!("{name:?} is a storage without a tensor")),
    }
    Ok(())
}

fn tensor(pickle: &Pickle, id: Id, storages: &HashMap<String, Vec<u8>>) -> Result<Array> {
    let Node::Tensor { storage, offset, shape, stride } = pickle.node(id) else { return Err("no tensor".into()) };
    let (element, bytes) = storage_of(pickle, *storage, storages)?;
    let (offset, shape, stride) = (pickle.int(*offset)?, pickle.sizes(*shape)?, pickle.sizes(*stride)?);
    if shape.len() != stride.len() || shape.len() > 8 {
        return Err(format!("shape {shape:?} with strides {stride:?}"));
    }
    // Not larger than its storage: a view that repeats its elements is nothing that anyone saves.
    let n = elements(&shape, element, bytes.len())
        .ok_or_else(|| format!("shape {shape:?} does not fit into a storage of {} bytes", bytes.len()))?;
    let size = element.size();
    let in_storage = bytes.len() / size;
    let reach =
        shape.iter().zip(&stride).try_fold(offset, |at, (d, s)| at.checked_add(d.checked_sub(1)?.checked_mul(*s)?));
    if n > 0 && reach.is_none_or(|last| last >= in_storage) {
        return Err(format!(
            "shape {shape:?} with strides {stride:?} from {offset} leaves its storage of {in_storage}"
        ));
    }
    let mut values = Vec::with_capacity(n);
    let mut index = vec![0usize; shape.len()];
    for _ in 0..n {
        let at = offset + index.iter().zip(&stride).map(|(i, s)| i * s).sum::<usize>();
        values.push(element.value(&bytes[at * size..(at + 1) * size]));
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(Array { shape, element, values })
}

/// A storage is named by `("storage", type, key, device, length)`.
fn storage_of<'a>(pickle: &Pickle, id: Id, storages: &'a HashMap<String, Vec<u8>>) -> Result<(Element, &'a [u8])> {
    let Node::Persistent(parts) = pickle.node(id) else { return Err("it has no storage".into()) };
    let &[tag, kind, key, _, len] = &parts[..] else { return Err(format!("its storage has {} parts", parts.len())) };
    let (Node::Text(tag), Node::Known(Known::Storage(element)), Node::Text(key)) =
        (pickle.node(tag), pickle.node(kind), pickle.node(key))
    else {
        return Err("its storage is not named as storages are".into());
    };
    let bytes =
        storages.get(key).filter(|_| tag == "storage").ok_or_else(|| format!("its storage {key:?} is missing"))?;
    let wanted = pickle.int(len)?.checked_mul(element.size());
    if wanted.is_none_or(|n| bytes.len() < n) {
        return Err(format!("its storage {key:?} has {} bytes, fewer than it says; get the file again", bytes.len()));
    }
    Ok((*element, bytes))
}
