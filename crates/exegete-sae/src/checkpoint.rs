//! A training state as bytes: a magic word, a version, sizes, then every array in order, little-endian.

use crate::train::{Param, TrainState};
use crate::{Result, SaeError};

const MAGIC: &[u8; 8] = b"EXGTRAIN";
const VERSION: u64 = 1;

impl TrainState {
    /// The state as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let numbers = [VERSION, self.d as u64, self.n_latents() as u64, self.step, u64::from(self.scale.to_bits())];
        numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
        for p in [&self.w_enc, &self.b_enc, &self.w_dec, &self.b_dec] {
            for array in [&p.w, &p.m, &p.v] {
                array.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
        }
        self.since_fired_F.iter().for_each(|n| out.extend(n.to_le_bytes()));
        out
    }

    /// The state that [`TrainState::to_bytes`] wrote.
    ///
    /// # Errors
    /// Bytes of another kind, version or length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong = |what: &str| SaeError::Shape(format!("not a training state of this version: {what}"));
        let (head, body) = bytes.split_at_checked(48).ok_or_else(|| wrong("cut off"))?;
        let number = |i: usize| u64::from_le_bytes(std::array::from_fn(|b| head[8 + i * 8 + b]));
        if head[..8] != MAGIC[..] || number(0) != VERSION {
            return Err(wrong("magic word or version differ"));
        }
        let size = |i: usize| usize::try_from(number(i)).ok().filter(|n| (1..1 << 32).contains(n));
        let (d, f) = size(1).zip(size(2)).ok_or_else(|| wrong("sizes out of range"))?;
        let floats = 3 * (2 * f as u128 * d as u128 + f as u128 + d as u128);
        if body.len() as u128 != 4 * floats + 8 * f as u128 {
            return Err(wrong("its length does not fit its sizes"));
        }
        let (params, since) = body.split_at(body.len() - 8 * f);
        let mut values = params.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let mut array = |n: usize| -> Vec<f32> { values.by_ref().take(n).collect() };
        let mut param = |n: usize| Param { w: array(n), m: array(n), v: array(n) };
        Ok(Self {
            d,
            scale: f32::from_bits(number(4) as u32),
            w_enc: param(f * d),
            b_enc: param(f),
            w_dec: param(f * d),
            b_dec: param(d),
            since_fired_F: since.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect(),
            step: number(3),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_and_damage_is_an_error() {
        let mut state = TrainState::init(5, 7, 0.3, &[1.0, 2.0, 3.0, 4.0, 5.0], 9);
        state.step = 123;
        state.since_fired_F[3] = u64::MAX;
        let bytes = state.to_bytes();
        assert_eq!(TrainState::from_bytes(&bytes).unwrap(), state);
        for cut in [0, 7, 47, 48, bytes.len() - 1] {
            assert!(TrainState::from_bytes(&bytes[..cut]).is_err());
        }
        for at in 0..32 {
            let mut bad = bytes.clone();
            bad[at] ^= 0xff;
            assert!(TrainState::from_bytes(&bad).is_err(), "byte {at}");
        }
    }
}
