//! Causal grouped-query attention: in one op, or as scores, pattern and mix for those who look inside.

use candle_core::Tensor;

use crate::cpu::attention::{
    AttentionShape, KeySpan, Keys, attention, attention_back, attention_mix, attention_mix_back, attention_scores,
    attention_scores_back,
};
use crate::cpu::buffer;
use crate::cpu::loss::{softmax_rows, softmax_rows_back};
use crate::{F32Ref, Result, Tape, TensorError, Value, f32s, tensor};

/// Keys and values that are looked at.
pub enum KeySource<'a> {
    /// Those of this call alone, `[N, G * C]` each, through which gradients flow.
    Run {
        /// Keys, after rotation.
        keys: &'a Value,
        /// Values.
        values: &'a Value,
    },
    /// Those of a cache, this call's included: the spans of each row from position 0 on. Constants.
    Cache(Vec<Vec<KeySpan<'a>>>),
}

/// The slices behind a source, borrowed.
enum Held<'a> {
    Run(F32Ref<'a>, F32Ref<'a>),
    Cache(&'a [Vec<KeySpan<'a>>]),
}

impl<'a> KeySource<'a> {
    fn held(&'a self) -> Result<Held<'a>> {
        Ok(match self {
            Self::Run { keys, values } => Held::Run(f32s(&keys.tensor)?, f32s(&values.tensor)?),
            Self::Cache(rows) => Held::Cache(rows),
        })
    }

    /// The operands of an op on these keys, or constants in their place.
    fn operands(&self) -> Option<(&'a Value, &'a Value)> {
        match self {
            Self::Run { keys, values } => Some((keys, values)),
            Self::Cache(_) => None,
        }
    }
}

impl Held<'_> {
    fn keys(&self, s: &AttentionShape) -> Result<Keys<'_>> {
        if let Held::Run(k, v) = self
            && (s.rows.iter().any(|r| r.past > 0) || [k.len(), v.len()] != [s.n_tokens() * s.kv_stride(); 2])
        {
            return Err(TensorError::shape("attention", format!("{} keys, {} values for {s:?}", k.len(), v.len())));
        }
        let keys = match self {
            Held::Run(k, v) => Keys::of_tokens(s, k, v),
            Held::Cache(rows) => Keys::new(rows.iter().cloned()),
        };
        match keys.fit(s) {
            true => Ok(keys),
            false => Err(TensorError::shape("attention", format!("the cache does not hold the keys of {s:?}"))),
        }
    }
}

fn check(s: &AttentionShape, op: &'static str, x: &Tensor, per_token: usize) -> Result<()> {
    let heads = s.n_kv_heads > 0 && s.n_heads.is_multiple_of(s.n_kv_heads);
    let in_order = s.rows.iter().scan(0, |at, r| {
        let fits = r.first == *at && r.n > 0;
        *at += r.n;
        Some(fits)
    });
    match heads && x.elem_count() == s.n_tokens() * per_token && in_order.into_iter().all(|fits| fits) {
        true => Ok(()),
        false => Err(TensorError::shape(op, format!("{:?} for {s:?}", x.dims()))),
    }
}

impl Tape {
    /// Attention of the shape's queries over their keys.
    ///
    /// # Shapes
    /// `q [N, H * C] -> z [N, H * C]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn attention(&self, q: &Value, source: &KeySource, shape: &AttentionShape) -> Result<Value> {
        let s = shape;
        check(s, "attention", &q.tensor, s.n_heads * s.d_head)?;
        let (mut z, mut lse) = (buffer(q.tensor.elem_count()), buffer(s.n_tokens() * s.n_heads));
        attention(s, &f32s(&q.tensor)?, &source.held()?.keys(s)?, &mut z, &mut lse);
        let z = tensor(z, q.tensor.dims())?;
        let Some((keys, values)) = source.operands() else { return self.constant_keys(z, q) };
        Ok(self.record(z.clone(), &[q, keys, values], || {
            let (s, q, k, v) = (s.clone(), q.tensor.clone(), keys.tensor.clone(), values.tensor.clone());
            Box::new(move |grad, _| {
                let (mut dq, mut dk, mut dv) = (buffer(q.elem_count()), buffer(k.elem_count()), buffer(v.elem_count()));
                let (zs, dz) = (f32s(&z)?, f32s(grad)?);
                let qkv = (&*f32s(&q)?, &*f32s(&k)?, &*f32s(&v)?);
                attention_back(&s, qkv, (&zs, &lse), &dz, (&mut dq, &mut dk, &mut dv));
                Ok(vec![Some(tensor(dq, q.dims())?), Some(tensor(dk, k.dims())?), Some(tensor(dv, v.dims())?)])
            })
        }))
    }

    /// Scores, scaled, soft-capped and masked with -inf.
    ///
    /// # Shapes
    /// `q [N, H * C] -> scores [N, H * S]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn attention_scores(&self, q: &Value, source: &KeySource, shape: &AttentionShape) -> Result<Value> {
        let s = shape;
        check(s, "attention_scores", &q.tensor, s.n_heads * s.d_head)?;
        let width = s.n_heads * s.n_keys();
        let mut scores = buffer(s.n_tokens() * width);
        attention_scores(s, &f32s(&q.tensor)?, &source.held()?.keys(s)?, &mut scores);
        let scores = tensor(scores, (s.n_tokens(), width))?;
        let Some((keys, _)) = source.operands() else { return self.constant_keys(scores, q) };
        Ok(self.record(scores.clone(), &[q, keys], || {
            let (s, q, k) = (s.clone(), q.tensor.clone(), keys.tensor.clone());
            Box::new(move |grad, _| {
                let (mut dq, mut dk) = (buffer(q.elem_count()), buffer(k.elem_count()));
                let both = (&*f32s(&scores)?, &*f32s(grad)?);
                attention_scores_back(&s, (&f32s(&q)?, &f32s(&k)?), both, (&mut dq, &mut dk));
                Ok(vec![Some(tensor(dq, q.dims())?), Some(tensor(dk, k.dims())?)])
            })
        }))
    }

    /// `z = pattern values`.
    ///
    /// # Shapes
    /// `pattern [N, H * S] -> z [N, H * C]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn attention_mix(&self, pattern: &Value, source: &KeySource, shape: &AttentionShape) -> Result<Value> {
        let s = shape;
        check(s, "attention_mix", &pattern.tensor, s.n_heads * s.n_keys())?;
        let mut z = buffer(s.n_tokens() * s.n_heads * s.d_head);
        attention_mix(s, &f32s(&pattern.tensor)?, &source.held()?.keys(s)?, &mut z);
        let z = tensor(z, (s.n_tokens(), s.n_heads * s.d_head))?;
        let Some((_, values)) = source.operands() else { return self.constant_keys(z, pattern) };
        Ok(self.record(z, &[pattern, values], || {
            let (s, p, v) = (s.clone(), pattern.tensor.clone(), values.tensor.clone());
            Box::new(move |grad, _| {
                let (mut dp, mut dv) = (buffer(p.elem_count()), buffer(v.elem_count()));
                attention_mix_back(&s, (&f32s(&p)?, &f32s(&v)?), &f32s(grad)?, (&mut dp, &mut dv));
                Ok(vec![Some(tensor(dp, p.dims())?), Some(tensor(dv, v.dims())?)])
            })
        }))
    }

    /// Softmax over the last `width` values each; a row of -inf alone becomes zeros.
    ///
    /// # Shapes
    /// `x [.., a multiple of width] -> the shape of x`
    ///
    /// # Errors
    /// A last axis that is no multiple of `width`.
    pub fn softmax(&self, x: &Value, width: usize) -> Result<Value> {
        if width == 0 || !x.tensor.dims().last().is_some_and(|d| d.is_multiple_of(width)) {
            return Err(TensorError::shape("softmax", format!("rows of {width} in {:?}", x.tensor.dims())));
        }
        let mut out = buffer(x.tensor.elem_count());
        softmax_rows(&f32s(&x.tensor)?, width, &mut out);
        let out = tensor(out, x.tensor.dims())?;
        Ok(self.record(out.clone(), &[x], || {
            Box::new(move |grad, _| {
                let mut dx = buffer(out.elem_count());
                softmax_rows_back(&f32s(&out)?, width, &f32s(grad)?, &mut dx);
                Ok(vec![Some(tensor(dx, out.dims())?)])
            })
        }))
    }

    /// A result whose keys are constants: no gradient could be complete, so none is promised.
    fn constant_keys(&self, out: Tensor, query: &Value) -> Result<Value> {
        match query.is_recorded() {
            true => Err(TensorError::NoGradient("gradients do not flow through a key-value cache; run without one")),
            false => Ok(out.into()),
        }
    }
}
