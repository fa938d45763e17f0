//! Element types of GGUF and safetensors, as f32. Block formats are llama.cpp's (ggml-quants).

use half::{bf16, f16};

/// An element type: how many values make a block, and how many bytes it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are ggml's.
pub enum Encoding {
    F64,
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
}

/// (kind, ggml's number, ggml's name, values of a block, bytes of a block)
const TABLE: &[(Encoding, u32, &str, usize, usize)] = &[
    (Encoding::F64, 28, "F64", 1, 8),
    (Encoding::F32, 0, "F32", 1, 4),
    (Encoding::F16, 1, "F16", 1, 2),
    (Encoding::Bf16, 30, "BF16", 1, 2),
    (Encoding::Q4_0, 2, "Q4_0", 32, 18),
    (Encoding::Q4_1, 3, "Q4_1", 32, 20),
    (Encoding::Q5_0, 6, "Q5_0", 32, 22),
    (Encoding::Q5_1, 7, "Q5_1", 32, 24),
    (Encoding::Q8_0, 8, "Q8_0", 32, 34),
    (Encoding::Q2K, 10, "Q2_K", 256, 84),
    (Encoding::Q3K, 11, "Q3_K", 256, 110),
    (Encoding::Q4K, 12, "Q4_K", 256, 144),
    (Encoding::Q5K, 13, "Q5_K", 256, 176),
    (Encoding::Q6K, 14, "Q6_K", 256, 210),
    (Encoding::Iq4Nl, 20, "IQ4_NL", 32, 18),
    (Encoding::Iq4Xs, 23, "IQ4_XS", 256, 136),
];

/// The sixteen values of the non-linear four-bit formats.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Encoding {
    /// By ggml's type number.
    pub fn from_ggml(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// By ggml's name.
    pub fn by_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// What is handled, for messages.
    pub fn names() -> String {
        TABLE.iter().map(|row| format!("{} ({})", row.2, row.1)).collect::<Vec<_>>().join(", ")
    }

    /// (values, bytes) of a block.
    pub fn block(self) -> (usize, usize) {
        TABLE.iter().find(|row| row.0 == self).map_or((1, 1), |row| (row.3, row.4))
    }

    /// Decodes whole blocks into `out`; `bytes` holds exactly the blocks of `out.len()` values.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (values, size) = self.block();
        let blocks = bytes.chunks_exact(size).zip(out.chunks_exact_mut(values));
        match self {
            Self::F64 => blocks.for_each(|(b, o)| o[0] = f64::from_le_bytes(array(b)) as f32),
            Self::F32 => blocks.for_each(|(b, o)| o[0] = f32::from_le_bytes(array(b))),
            Self::F16 => blocks.for_each(|(b, o)| o[0] = half_at(b, 0)),
            Self::Bf16 => blocks.for_each(|(b, o)| o[0] = bf16::from_le_bytes(array(b)).to_f32()),
            Self::Q4_0 => blocks.for_each(|(b, o)| {
                let d = half_at(b, 0);
                nibbles(&b[2..], o, |q| (f32::from(q) - 8.0) * d);
            }),
            Self::Q4_1 => blocks.for_each(|(b, o)| {
                let (d, min) = (half_at(b, 0), half_at(b, 2));
                nibbles(&b[4..], o, |q| f32::from(q) * d + min);
            }),
            Self::Q5_0 => blocks.for_each(|(b, o)| {
                let d = half_at(b, 0);
                five_bits(&b[2..], o, |q| (f32::from(q) - 16.0) * d);
            }),
            Self::Q5_1 => blocks.for_each(|(b, o)| {
                let (d, min) = (half_at(b, 0), half_at(b, 2));
                five_bits(&b[4..], o, |q| f32::from(q) * d + min);
            }),
            Self::Q8_0 => blocks.for_each(|(b, o)| {
                let d = half_at(b, 0);
                o.iter_mut().zip(&b[2..]).for_each(|(o, q)| *o = f32::from(*q as i8) * d);
            }),
            Self::Q2K => blocks.for_each(|(b, o)| q2_k(b, o)),
            Self::Q3K => blocks.for_each(|(b, o)| q3_k(b, o)),
            Self::Q4K => blocks.for_each(|(b, o)| q4_k(b, o)),
            Self::Q5K => blocks.for_each(|(b, o)| q5_k(b, o)),
            Self::Q6K => blocks.for_each(|(b, o)| q6_k(b, o)),
            Self::Iq4Nl => blocks.for_each(|(b, o)| {
                let d = half_at(b, 0);
                nibbles(&b[2..], o, |q| d * f32::from(IQ4[usize::from(q)]));
            }),
            Self::Iq4Xs => blocks.for_each(|(b, o)| iq4_xs(b, o)),
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| bytes[i])
}

fn half_at(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

/// Low nibbles of all bytes, then their high nibbles.
#[inline(always)]
fn nibbles(bytes: &[u8], out: &mut [f32], f: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(bytes.len());
    for ((l, h), q) in low.iter_mut().zip(high).zip(bytes) {
        *l = f(q & 15);
        *h = f(q >> 4);
    }
}

/// As [`nibbles`], with a fifth bit of each value in the first four bytes.
fn five_bits(bytes: &[u8], out: &mut [f32], f: impl Fn(u8) -> f32) {
    let high = u32::from_le_bytes(array(bytes));
    let bit = |j: usize| ((high >> j) as u8 & 1) << 4;
    for (j, q) in bytes[4..20].iter().enumerate() {
        out[j] = f(q & 15 | bit(j));
        out[j + 16] = f(q >> 4 | bit(j + 16));
    }
}

fn q2_k(b: &[u8], out: &mut [f32]) {
    let (scales, qs, d, dmin) = (&b[..16], &b[16..80], half_at(b, 80), half_at(b, 82));
    // Groups of 16 values: 8 in each half, two to each of four shifts.
    for (g, out) in out.chunks_exact_mut(16).enumerate() {
        let (half, shift) = (g / 8, 2 * (g % 8 / 2));
        let q = &qs[half * 32 + g % 2 * 16..][..16];
        let (dl, ml) = (d * f32::from(scales[g] & 15), dmin * f32::from(scales[g] >> 4));
        out.iter_mut().zip(q).for_each(|(o, q)| *o = dl * f32::from(q >> shift & 3) - ml);
    }
}

fn q3_k(b: &[u8], out: &mut [f32]) {
    let (mask, qs, packed, d) = (&b[..32], &b[32..96], &b[96..108], half_at(b, 108));
    // Sixteen six-bit scales: four low bits in bytes 0..8, two high bits in bytes 8..12.
    let scale = |g: usize| {
        let low = packed[g % 8] >> (4 * (g / 8)) & 15;
        let high = packed[8 + g % 4] >> (2 * (g / 4)) & 3;
        f32::from((low | high << 4) as i8 - 32)
    };
    for (g, out) in out.chunks_exact_mut(16).enumerate() {
        let (half, shift) = (g / 8, 2 * (g % 8 / 2));
        let from = g % 2 * 16;
        let (q, m) = (&qs[half * 32 + from..][..16], &mask[from..from + 16]);
        let (dl, bit) = (d * scale(g), 1u8 << (half * 4 + g % 8 / 2));
        for ((o, q), m) in out.iter_mut().zip(q).zip(m) {
            let low = f32::from(q >> shift & 3);
            *o = dl * if m & bit != 0 { low } else { low - 4.0 };
        }
    }
}

/// The six-bit scale and minimum number `j` of the twelve packed bytes of Q4_K and Q5_K.
fn scale_and_min(q: &[u8], j: usize) -> (f32, f32) {
    let (d, m) = match j {
        0..4 => (q[j] & 63, q[j + 4] & 63),
        _ => (q[j + 4] & 15 | q[j - 4] >> 6 << 4, q[j + 4] >> 4 | q[j] >> 6 << 4),
    };
    (f32::from(d), f32::from(m))
}

fn q4_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin, scales, qs) = (half_at(b, 0), half_at(b, 2), &b[4..16], &b[16..144]);
    for (g, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, g);
        let (dl, ml, shift) = (d * scale, dmin * min, 4 * (g % 2));
        let q = &qs[g / 2 * 32..][..32];
        out.iter_mut().zip(q).for_each(|(o, q)| *o = dl * f32::from(q >> shift & 15) - ml);
    }
}

fn q5_k(b: &[u8], out: &mut [f32]) {
    let (d, dmin, scales, qh, qs) = (half_at(b, 0), half_at(b, 2), &b[4..16], &b[16..48], &b[48..176]);
    for (g, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(scales, g);
        let (dl, ml, shift) = (d * scale, dmin * min, 4 * (g % 2));
        let q = &qs[g / 2 * 32..][..32];
        for ((o, q), h) in out.iter_mut().zip(q).zip(qh) {
            *o = dl * f32::from(q >> shift & 15 | (h >> g & 1) << 4) - ml;
        }
    }
}

fn q6_k(b: &[u8], out: &mut [f32]) {
    let (ql, qh, scales, d) = (&b[..128], &b[128..192], &b[192..208], half_at(b, 208));
    for (g, out) in out.chunks_exact_mut(16).enumerate() {
        // Halves of 128 values; in each, four quarters of 32 share bytes: two by nibble, four by pairs of high bits.
        let (half, quarter, from) = (g / 8, g % 8 / 2, g % 2 * 16);
        let low = &ql[half * 64 + quarter % 2 * 32 + from..][..16];
        let high = &qh[half * 32 + from..][..16];
        let dl = d * f32::from(scales[g] as i8);
        for ((o, l), h) in out.iter_mut().zip(low).zip(high) {
            let q = l >> (4 * (quarter / 2)) & 15 | (h >> (2 * quarter) & 3) << 4;
            *o = dl * (f32::from(q) - 32.0);
        }
    }
}

fn iq4_xs(b: &[u8], out: &mut [f32]) {
    let (d, high, low, qs) = (half_at(b, 0), u16::from_le_bytes([b[2], b[3]]), &b[4..8], &b[8..136]);
    for (g, out) in out.chunks_exact_mut(32).enumerate() {
        let scale = low[g / 2] >> (4 * (g % 2)) & 15 | ((high >> (2 * g)) as u8 & 3) << 4;
        let dl = d * (f32::from(scale) - 32.0);
        nibbles(&qs[g * 16..][..16], out, |q| dl * f32::from(IQ4[usize::from(q)]));
    }
}
