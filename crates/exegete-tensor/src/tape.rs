//! The one gradient tape.
//!
//! An op on [`Value`]s is recorded only if one of its operands asked for a gradient (it, or something it was
//! computed from, was [`Tape::watch`]ed). A record holds the tensors that its backward pass reads and nothing
//! else. [`Tape::gradients`] may be called any number of times, for any recorded values.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;

use crate::{Result, TensorError, ops};

/// A tensor on its way through a computation.
#[derive(Debug, Clone)]
pub struct Value {
    pub(crate) tensor: Tensor,
    /// The tape that recorded it, and its place there.
    node: Option<(u64, usize)>,
}

impl Value {
    /// The tensor.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Whether gradients flow through this value.
    pub fn is_recorded(&self) -> bool {
        self.node.is_some()
    }
}

impl From<Tensor> for Value {
    /// A constant.
    fn from(tensor: Tensor) -> Self {
        Self { tensor, node: None }
    }
}

impl From<&Tensor> for Value {
    fn from(tensor: &Tensor) -> Self {
        Self { tensor: tensor.clone(), node: None }
    }
}

/// Given the gradient of an op's output and which operands want one, the gradients of its operands.
pub(crate) type Backward = Box<dyn Fn(&Tensor, &[bool]) -> Result<Vec<Option<Tensor>>>>;

struct Node {
    operands: Vec<Option<usize>>,
    backward: Option<Backward>,
}

/// Records ops for the backward pass. To one tape, what another recorded is a constant.
pub struct Tape {
    id: u64,
    nodes: RefCell<Vec<Node>>,
}

impl Default for Tape {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), nodes: RefCell::default() }
    }
}

impl Tape {
    /// An empty tape. Ops on it record nothing until a value is watched.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value whose gradient can be asked for, and through which gradients flow on.
    ///
    /// A value that this tape has already recorded is returned as it is.
    pub fn watch(&self, value: &Value) -> Value {
        if self.node(value).is_some() {
            return value.clone();
        }
        self.push(value.tensor.clone(), Vec::new(), None)
    }

    /// Records `output = op(operands)` if any operand is recorded; `backward` is built only then.
    pub(crate) fn record(&self, output: Tensor, operands: &[&Value], backward: impl FnOnce() -> Backward) -> Value {
        let nodes: Vec<Option<usize>> = operands.iter().map(|v| self.node(v)).collect();
        if nodes.iter().all(Option::is_none) {
            return output.into();
        }
        self.push(output, nodes, Some(backward()))
    }

    /// Where this tape recorded a value.
    fn node(&self, value: &Value) -> Option<usize> {
        value.node.filter(|(tape, _)| *tape == self.id).map(|(_, node)| node)
    }

    fn push(&self, tensor: Tensor, operands: Vec<Option<usize>>, backward: Option<Backward>) -> Value {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { operands, backward });
        Value { tensor, node: Some((self.id, nodes.len() - 1)) }
    }

    /// Number of recorded ops, watched values included.
    pub fn len(&self) -> usize {
        self.nodes.borrow().len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gradients of `sum(output * seed)` with respect to `wrt`, in its order; zeros where `output` does not depend
    /// on a value. Only records between `output` and `wrt` are visited.
    ///
    /// # Errors
    /// `output` or a member of `wrt` is not recorded, or `seed` has another shape than `output`.
    pub fn gradients(&self, output: &Value, seed: &Tensor, wrt: &[&Value]) -> Result<Vec<Tensor>> {
        let nodes = self.nodes.borrow();
        let last = self.node(output).ok_or(TensorError::NoGradient("the output depends on no watched value"))?;
        if seed.dims() != output.tensor.dims() {
            let detail = format!("seed {:?} for an output {:?}", seed.dims(), output.tensor.dims());
            return Err(TensorError::shape("gradients", detail));
        }
        let mut wanted = vec![false; last + 1];
        for value in wrt {
            let node = self.node(value).ok_or(TensorError::NoGradient("a value asked for was not watched"))?;
            if node <= last {
                wanted[node] = true;
            }
        }
        let mut on_path = wanted.clone();
        for i in 0..=last {
            on_path[i] |= nodes[i].operands.iter().flatten().any(|o| on_path[*o]);
        }
        let mut grads: Vec<Option<Tensor>> = vec![None; last + 1];
        grads[last] = Some(seed.clone());
        for i in (0..=last).rev() {
            if !on_path[i] {
                continue;
            }
            let grad = if wanted[i] { grads[i].clone() } else { grads[i].take() };
            let (Some(grad), Some(backward)) = (grad, &nodes[i].backward) else { continue };
            let needs: Vec<bool> = nodes[i].operands.iter().map(|o| o.is_some_and(|o| on_path[o])).collect();
            for (operand, part) in nodes[i].operands.iter().zip(backward(&grad, &needs)?) {
                if let (Some(operand), Some(part)) = (operand, part)
                    && on_path[*operand]
                {
                    grads[*operand] = Some(match grads[*operand].take() {
                        Some(sum) => ops::elementwise::add_tensors(&sum, &part)?,
                        None => part,
                    });
                }
            }
        }
        wrt.iter()
            .map(|v| match self.node(v).and_then(|n| grads.get(n).cloned().flatten()) {
                Some(grad) => Ok(grad),
                None => crate::zeros(v.tensor.dims()),
            })
            .collect()
    }
}
