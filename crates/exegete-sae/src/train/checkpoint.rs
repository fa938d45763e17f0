//! A training state as bytes: a magic word, a version, sizes, then every array in order, little-endian.

use exegete_tensor::optim::Parameter;

use super::TrainState;
use crate::{Result, SaeError};

const MAGIC: &[u8; 8] = b"EXGTRAIN";
const VERSION: u64 = 5;
/// Numbers behind the magic word.
const NUMBERS: usize = 15;

impl TrainState {
    /// Arrays in their order.
    fn params(&self) -> impl Iterator<Item = &Parameter> {
        [&self.w_enc, &self.b_enc, &self.w_dec, &self.b_dec].into_iter().chain(&self.extras).chain(&self.w_skip)
    }

    /// The state as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let floats: usize = self.params().map(|p| 3 * p.values.len()).sum();
        let mut out = Vec::with_capacity(8 + 8 * NUMBERS + 4 * floats + 16 * self.n_latents());
        out.extend(MAGIC);
        let sizes = [VERSION, self.d as u64, self.d_out as u64, self.n_latents() as u64, self.extras.len() as u64];
        let [scale, reached] = [self.scale, self.reached].map(|x| u64::from(x.to_bits()));
        let both = scale << 32 | reached;
        let flags = [self.transcodes, self.centres, self.w_skip.is_some()];
        let flags = flags.iter().enumerate().fold(0u64, |all, (i, flag)| all | u64::from(*flag) << i);
        let shape = [u64::from(self.scale_out.to_bits()) << 32 | flags, self.blocks as u64, self.seed];
        let numbers = [self.step, both, self.steering.to_bits(), self.l0.to_bits()].into_iter().chain(shape);
        let numbers = sizes.into_iter().chain(numbers).chain([
            self.counted,
            self.steering_rate.to_bits(),
            self.most_steering.to_bits(),
        ]);
        numbers.for_each(|n| out.extend(n.to_le_bytes()));
        for array in self.params().flat_map(|p| [&p.values, &p.m, &p.v]) {
            array.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
        self.since_fired_F.iter().chain(&self.fired_F).for_each(|n| out.extend(n.to_le_bytes()));
        out
    }

    /// The state that [`TrainState::to_bytes`] wrote.
    ///
    /// # Errors
    /// Bytes of another kind, version or length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let wrong = |what: &str| SaeError::Shape(format!("not a training state of this version: {what}"));
        let (head, body) = bytes.split_at_checked(8 + 8 * NUMBERS).ok_or_else(|| wrong("cut off"))?;
        let number = |i: usize| u64::from_le_bytes(std::array::from_fn(|b| head[8 + i * 8 + b]));
        if head[..8] != MAGIC[..] || number(0) != VERSION {
            return Err(wrong("magic word or version differ"));
        }
        let size =
            |i: usize, least: u64| usize::try_from(number(i)).ok().filter(|n| (least..1 << 32).contains(&(*n as u64)));
        let (Some(d), Some(o), Some(f), Some(extras)) = (size(1, 1), size(2, 1), size(3, 1), size(4, 0)) else {
            return Err(wrong("sizes out of range"));
        };
        let (flags, blocks) = (number(9) as u32, usize::try_from(number(10)).unwrap_or(0));
        if flags >= 8 || blocks == 0 || !o.is_multiple_of(blocks) {
            return Err(wrong("shape out of range"));
        }
        let [transcodes, centres, skips] = std::array::from_fn(|i| flags >> i & 1 == 1);
        let skip = if skips { d as u128 * o as u128 } else { 0 };
        let (wide, narrow) = ((d as u128 + o as u128) * f as u128, (1 + extras as u128) * f as u128 + o as u128);
        if body.len() as u128 != 4 * 3 * (wide + narrow + skip) + 16 * f as u128 {
            return Err(wrong("its length does not fit its sizes"));
        }
        let (params, counts) = body.split_at(body.len() - 16 * f);
        let mut counts = counts.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
        let mut values = params.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let mut array = |n: usize| -> Vec<f32> { values.by_ref().take(n).collect() };
        let mut param = |n: usize| Parameter { values: array(n), m: array(n), v: array(n) };
        Ok(Self {
            d,
            d_out: o,
            scale: f32::from_bits((number(6) >> 32) as u32),
            scale_out: f32::from_bits((number(9) >> 32) as u32),
            transcodes,
            centres,
            blocks,
            w_enc: param(f * d),
            b_enc: param(f),
            w_dec: param(f * o),
            b_dec: param(o),
            extras: (0..extras).map(|_| param(f)).collect(),
            w_skip: skips.then(|| param(d * o)),
            since_fired_F: counts.by_ref().take(f).collect(),
            fired_F: counts.collect(),
            counted: number(12),
            steering_rate: f64::from_bits(number(13)),
            most_steering: f64::from_bits(number(14)),
            seed: number(11),
            step: number(5),
            steering: f64::from_bits(number(7)),
            l0: f64::from_bits(number(8)),
            reached: f32::from_bits(number(6) as u32),
        })
    }
}

#[cfg(test)]
mod tests {
    use exegete_base::settings::{Activation, TrainSettings};

    use super::super::Side;
    use super::*;

    #[test]
    fn states_round_trip_and_damage_is_an_error() {
        let settings = TrainSettings { latents: 7, activation: Activation::Gated, ..TrainSettings::default() };
        round_trip(TrainState::init(&settings, 5, 0.3, &[1.0, 2.0, 3.0, 4.0, 5.0], 9));
        let side = |scale, mean_D| Side { scale, mean_D };
        let settings = TrainSettings { skip: true, ..settings };
        let state =
            TrainState::init_transcoder(&settings, side(0.3, &[1.0, 2.0, 3.0]), side(0.7, &[4.0, 5.0, 6.0, 7.0]), 9);
        round_trip(TrainState { blocks: 2, ..state });
    }

    fn round_trip(mut state: TrainState) {
        (state.reached, state.steering, state.l0) = (0.25, 1.5, 31.25);
        state.step = 123;
        state.since_fired_F[3] = u64::MAX;
        (state.fired_F[5], state.counted) = (7, 640);
        let bytes = state.to_bytes();
        assert_eq!(TrainState::from_bytes(&bytes).unwrap(), state);
        for cut in [0, 7, 111, 112, bytes.len() - 1] {
            assert!(TrainState::from_bytes(&bytes[..cut]).is_err());
        }
        for at in 0..48 {
            let mut bad = bytes.clone();
            bad[at] ^= 0xff;
            assert!(TrainState::from_bytes(&bad).is_err(), "byte {at}");
        }
    }
}
