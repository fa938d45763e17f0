//! Recomputation: a part of a computation whose inner values are not kept for the backward pass, but computed again.

use std::rc::Rc;

use crate::{Result, Tape, Value};

/// A part of a computation that can be run any number of times, with the same result.
pub type Part = Rc<dyn Fn(&Tape, &[Value]) -> Result<Value>>;

impl Tape {
    /// Runs `f` on `inputs` as one op: nothing inside is recorded, and the backward pass runs it again on a tape of its
    /// own (Chen et al. 2016, "Training deep nets with sublinear memory cost").
    ///
    /// # Errors
    /// Those of `f`.
    pub fn recompute(&self, inputs: &[&Value], f: Part) -> Result<Value> {
        let frozen: Vec<Value> = inputs.iter().map(|v| Value::from(&v.tensor)).collect();
        let out = f(&Tape::new(), &frozen)?.tensor;
        Ok(self.record(out, inputs, || {
            Box::new(move |grad, needs| {
                let tape = Tape::new();
                let again: Vec<Value> = frozen
                    .iter()
                    .zip(needs)
                    .map(|(v, needed)| if *needed { tape.watch(v) } else { v.clone() })
                    .collect();
                let out = f(&tape, &again)?;
                let wanted: Vec<&Value> = again.iter().filter(|v| v.is_recorded()).collect();
                let mut grads = if out.is_recorded() {
                    tape.gradients(&out, grad, &wanted)?.into_iter()
                } else {
                    Vec::new().into_iter()
                };
                Ok(needs.iter().map(|needed| if *needed { grads.next() } else { None }).collect())
            })
        }))
    }
}
