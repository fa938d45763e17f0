//! Cross-entropy.

use crate::cpu::buffer;
use crate::cpu::loss::{cross_entropy, cross_entropy_back};
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

use super::rows_of;

impl Tape {
    /// Softmax cross-entropy of each row against its target, in nats.
    ///
    /// # Shapes
    /// `logits [.., V] with N rows, N targets -> [N]`
    ///
    /// # Errors
    /// Shapes that do not fit, a target outside the vocabulary.
    pub fn cross_entropy(&self, logits: &Value, targets_N: &[u32]) -> Result<Value> {
        let v = *logits.tensor.dims().last().unwrap_or(&0);
        let n = rows_of("cross_entropy", &logits.tensor, v)?;
        if n != targets_N.len() {
            return Err(TensorError::shape("cross_entropy", format!("{n} rows, {} targets", targets_N.len())));
        }
        if let Some(t) = targets_N.iter().find(|t| **t as usize >= v) {
            return Err(TensorError::Index { op: "cross_entropy", index: u64::from(*t), len: v });
        }
        let (mut loss_N, mut lse_N) = (buffer(n), buffer(n));
        cross_entropy(&f32s(&logits.tensor)?, v, targets_N, &mut loss_N, &mut lse_N);
        Ok(self.record(tensor(loss_N, n)?, &[logits], || {
            let (logits, targets_N) = (logits.tensor.clone(), targets_N.to_vec());
            Box::new(move |grad, _| {
                let mut dlogits = buffer(n * v);
                cross_entropy_back(&f32s(&logits)?, v, &targets_N, &lse_N, &f32s(grad)?, &mut dlogits);
                Ok(vec![Some(tensor(dlogits, logits.dims())?)])
            })
        }))
    }
}
