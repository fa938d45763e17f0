//! Causal grouped-query attention.

use candle_core::Tensor;

use crate::cpu::attention::{AttentionShape, attention, attention_back};
use crate::cpu::buffer;
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

/// Keys and values of earlier positions and of this call, in one buffer each.
///
/// # Shapes
/// `keys, values [B, capacity, G * C]`
pub struct KvView<'a> {
    /// Keys, after rotation.
    pub keys: &'a Value,
    /// Values.
    pub values: &'a Value,
}

impl Tape {
    /// Attention of `shape.n_queries` new positions over `shape.past` earlier ones and themselves.
    ///
    /// # Shapes
    /// `q [B, T, H * C] -> z [B, T, H * C]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn attention(&self, q: &Value, kv: KvView, shape: &AttentionShape) -> Result<Value> {
        let s = shape;
        let q_len = s.batch * s.n_queries * s.n_heads * s.d_head;
        let kv_len = s.batch * s.capacity * s.n_kv_heads * s.d_head;
        let fits = |t: &Tensor, len: usize| t.elem_count() == len;
        if !fits(&q.tensor, q_len)
            || !fits(&kv.keys.tensor, kv_len)
            || !fits(&kv.values.tensor, kv_len)
            || s.past + s.n_queries > s.capacity
            || s.n_kv_heads == 0
            || !s.n_heads.is_multiple_of(s.n_kv_heads)
        {
            let dims = (q.tensor.dims(), kv.keys.tensor.dims(), kv.values.tensor.dims());
            return Err(TensorError::shape("attention", format!("{dims:?} for {s:?}")));
        }
        let (mut z, mut lse) = (buffer(q_len), buffer(s.batch * s.n_heads * s.n_queries));
        attention(s, &f32s(&q.tensor)?, &f32s(&kv.keys.tensor)?, &f32s(&kv.values.tensor)?, &mut z, &mut lse);
        let z = tensor(z, q.tensor.dims())?;
        Ok(self.record(z.clone(), &[q, kv.keys, kv.values], || {
            let (s, q, k, v) = (s.clone(), q.tensor.clone(), kv.keys.tensor.clone(), kv.values.tensor.clone());
            Box::new(move |grad, _| {
                let (mut dq, mut dk, mut dv) = (buffer(q_len), buffer(kv_len), buffer(kv_len));
                let (zs, dz) = (f32s(&z)?, f32s(grad)?);
                let qkv = (&*f32s(&q)?, &*f32s(&k)?, &*f32s(&v)?);
                attention_back(&s, qkv, (&zs, &lse), &dz, (&mut dq, &mut dk, &mut dv));
                Ok(vec![Some(tensor(dq, q.dims())?), Some(tensor(dk, k.dims())?), Some(tensor(dv, v.dims())?)])
            })
        }))
    }
}
