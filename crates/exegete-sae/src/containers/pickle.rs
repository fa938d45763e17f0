//! The part of Python's pickle that `torch.save` writes, and nothing that could run a program.
//!
//! A pickle is a program for a stack machine, and `REDUCE` calls whatever it has named. Here names are data: only those
//! of [`Known`] are understood, and any other is refused by its name. Values live in one list and refer to each other
//! by number, so that a pickle that refers to itself a thousand times costs what it is long. Source: Lib/pickletools.py.

use std::collections::HashMap;

/// Arguments of a call, at most.
const MOST_ARGUMENTS: usize = 16;

/// Number of a value.
pub(super) type Id = usize;

type Result<T> = std::result::Result<T, String>;

/// What may be called or named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// `collections.OrderedDict`, `dict`.
    Dict,
    /// `torch._utils._rebuild_tensor_v2`.
    Tensor,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
    /// `torch.FloatStorage` and its kin: the type of a storage's elements.
    Storage(super::Element),
    /// `torch.float32`, `torch.device`, `torch.Size`: facts that are passed over.
    Fact,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Known(Known),
    /// A tuple that names what lies outside: a storage.
    Persistent(Vec<Id>),
    /// A tensor: its storage, where in it, shape and strides.
    Tensor {
        storage: Id,
        offset: Id,
        shape: Id,
        stride: Id,
    },
}

impl Node {
    /// What it is, for errors: its content could be long.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Known(_) => "a name",
            Self::Persistent(_) => "a storage",
            Self::Tensor { .. } => "a tensor",
        }
    }
}

/// A pickle that has been read: its values, and which of them is the whole.
pub(super) struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
}

impl Pickle {
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn int(&self, id: Id) -> Result<usize> {
        match self.node(id) {
            Node::Int(i) => usize::try_from(*i).map_err(|_| format!("{i} where a size is expected")),
            other => Err(format!("{} where a size is expected", other.what())),
        }
    }

    pub(super) fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        match self.node(id) {
            Node::Tuple(items) | Node::List(items) => items.iter().map(|i| self.int(*i)).collect(),
            other => Err(format!("{} where sizes are expected", other.what())),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

/// Reads a pickle.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle> {
    let mut reader = Reader { bytes, at: 0, nodes: vec![], stack: vec![], marks: vec![], memo: HashMap::new() };
    reader.run().map_err(|detail| format!("the pickle, at byte {}: {detail}", reader.at))
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end =
            self.at.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or("cut short; get the file again")?;
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    fn byte(&mut self) -> Result<usize> {
        Ok(usize::from(self.take(1)?[0]))
    }

    fn u16(&mut self) -> Result<usize> {
        let b = self.take(2)?;
        Ok(usize::from(u16::from_le_bytes([b[0], b[1]])))
    }

    fn u32(&mut self) -> Result<usize> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)
    }

    fn u64(&mut self) -> Result<usize> {
        let b = self.take(8)?;
        let n = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        usize::try_from(n).map_err(|_| format!("a length of {n}"))
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|b| *b == b'\n').ok_or("a line without an end")?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| "a line that is no text".into())
    }

    fn text(&mut self, len: usize) -> Result<Node> {
        let bytes = self.take(len)?;
        Ok(Node::Text(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    fn pop(&mut self) -> Result<Id> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > bottom {
            true => self.stack.pop().ok_or_else(|| "nothing on the stack".into()),
            false => Err("nothing on the stack".into()),
        }
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| "nothing on the stack".into())
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, n: usize) -> Result<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<Id>>>()?;
        items.reverse();
        self.push(Node::Tuple(items));
        Ok(())
    }

    fn remember(&mut self, key: usize) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<()> {
        let id = *self.memo.get(&key).ok_or_else(|| format!("memo {key} was never written"))?;
        self.stack.push(id);
        Ok(())
    }

    fn add_items(&mut self, items: Vec<Id>) -> Result<()> {
        let dict = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        match &mut self.nodes[dict] {
            Node::Dict(pairs) => pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            other => return Err(format!("items are put into {}", other.what())),
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(all) => all.extend(items),
            other => return Err(format!("items are appended to {}", other.what())),
        }
        Ok(())
    }

    /// The items of a tuple that is as short as those of calls and storages are: a long one that is taken again and again
    /// would cost more than the pickle is long.
    fn few(&self, id: Id) -> Result<Vec<Id>> {
        match &self.nodes[id] {
            Node::Tuple(items) if items.len() <= MOST_ARGUMENTS => Ok(items.clone()),
            other => Err(format!("no arguments of a call or a storage: {}", other.what())),
        }
    }

    /// Calls what is known with arguments.
    fn call(&mut self) -> Result<()> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let args = self.few(args)?;
        match (&self.nodes[callee], &args[..]) {
            (Node::Known(Known::Dict), []) => self.push(Node::Dict(vec![])),
            (Node::Known(Known::Tensor), [storage, offset, shape, stride, ..]) => {
                let (storage, offset, shape, stride) = (*storage, *offset, *shape, *stride);
                self.push(Node::Tensor { storage, offset, shape, stride });
            }
            (Node::Known(Known::Parameter), [tensor, ..]) => self.stack.push(*tensor),
            (Node::Known(Known::Fact), _) => self.push(Node::None),
            (callee, args) => return Err(format!("{} is called with {} arguments", callee.what(), args.len())),
        }
        Ok(())
    }

    fn run(&mut self) -> Result<Pickle> {
        loop {
            let code = self.take(1)?[0];
            match code {
                // PROTO, FRAME: no more than said already.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { nodes: std::mem::take(&mut self.nodes), root });
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'N' => self.push(Node::None),
                0x88 => self.push(Node::Bool(true)),
                0x89 => self.push(Node::Bool(false)),
                b'J' => {
                    let n = self.u32()? as u32 as i32;
                    self.push(Node::Int(n.into()));
                }
                b'K' => {
                    let n = self.byte()?;
                    self.push(Node::Int(n as i64));
                }
                b'M' => {
                    let n = self.u16()?;
                    self.push(Node::Int(n as i64));
                }
                0x8a => {
                    let len = self.byte()?;
                    let bytes = self.take(len)?;
                    if len > 8 {
                        return Err(format!("a whole number of {len} bytes"));
                    }
                    // Two's complement, the sign in the last byte.
                    let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
                    let mut all = [fill; 8];
                    all[..len].copy_from_slice(bytes);
                    self.push(Node::Int(i64::from_le_bytes(all)));
                }
                b'G' => {
                    let b = self.take(8)?;
                    let x = f64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
                    self.push(Node::Float(x));
                }
                b'X' | b'T' | b'B' => {
                    let len = self.u32()?;
                    let node = self.text(len)?;
                    self.push(node);
                }
                0x8c | b'U' | b'C' => {
                    let len = self.byte()?;
                    let node = self.text(len)?;
                    self.push(node);
                }
                0x8d => {
                    let len = self.u64()?;
                    let node = self.text(len)?;
                    self.push(node);
                }
                b')' => self.push(Node::Tuple(vec![])),
                b't' => {
                    let items = self.since_mark()?;
                    self.push(Node::Tuple(items));
                }
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b']' => self.push(Node::List(vec![])),
                b'l' => {
                    let items = self.since_mark()?;
                    self.push(Node::List(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                b'}' => self.push(Node::Dict(vec![])),
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.add_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.add_items(items)?;
                }
                b'q' => {
                    let key = self.byte()?;
                    self.remember(key)?;
                }
                b'r' => {
                    let key = self.u32()?;
                    self.remember(key)?;
                }
                0x94 => self.remember(self.memo.len())?,
                b'h' => {
                    let key = self.byte()?;
                    self.recall(key)?;
                }
                b'j' => {
                    let key = self.u32()?;
                    self.recall(key)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let known = named(module, name)?;
                    self.push(Node::Known(known));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Node::Text(module), Node::Text(name)) = (&self.nodes[module], &self.nodes[name]) else {
                        return Err("a name that is no text".into());
                    };
                    let known = named(module, name)?;
                    self.push(Node::Known(known));
                }
                b'Q' => {
                    let id = self.pop()?;
                    let items = self.few(id)?;
                    self.push(Node::Persistent(items));
                }
                b'R' => self.call()?,
                // BUILD gives an object its attributes. Those of a dictionary (`_metadata`) say nothing of its content.
                b'b' => drop(self.pop()?),
                other => return Err(format!("operation {other:#04x} is no part of saved tensors; refused")),
            }
        }
    }
}

fn named(module: &str, name: &str) -> Result<Known> {
    known(module, name).ok_or_else(|| {
        format!("it names {module}.{name}, which is no part of saved tensors and could run a program; refused")
    })
}

fn known(module: &str, name: &str) -> Option<Known> {
    use super::Element::*;
    Some(match (module, name) {
        ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => Known::Dict,
        ("torch._utils", "_rebuild_tensor_v2") => Known::Tensor,
        ("torch._utils", "_rebuild_parameter") => Known::Parameter,
        ("torch", "FloatStorage") => Known::Storage(F32),
        ("torch", "HalfStorage") => Known::Storage(F16),
        ("torch", "BFloat16Storage") => Known::Storage(Bf16),
        ("torch", "DoubleStorage") => Known::Storage(F64),
        ("torch", "LongStorage") => Known::Storage(I64),
        ("torch", "IntStorage") => Known::Storage(I32),
        ("torch", "ShortStorage") => Known::Storage(I16),
        ("torch", "CharStorage") => Known::Storage(I8),
        ("torch", "ByteStorage" | "BoolStorage") => Known::Storage(U8),
        ("torch", "device" | "Size" | "float32" | "float16" | "bfloat16" | "float64" | "int64" | "int32") => {
            Known::Fact
        }
        _ => return None,
    })
}
