//! Element types of GGUF and safetensors, as f32. Block formats are llama.cpp's (ggml-quants).

use half::{bf16, f16};

/// An element type: how many values make a block, and how many bytes it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q8_0,
}

impl Encoding {
    /// By ggml's type number.
    pub(crate) fn from_ggml(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// (values, bytes) of a block.
    pub(crate) fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q8_0 => (32, 34),
        }
    }

    /// Decodes whole blocks; `bytes` holds a multiple of a block's bytes.
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let (values, size) = self.block();
        let mut out = Vec::with_capacity(bytes.len() / size * values);
        let half_at = |b: &[u8], at: usize| f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
        for b in bytes.chunks_exact(size) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
                Self::F16 => out.push(half_at(b, 0)),
                Self::Bf16 => out.push(bf16::from_le_bytes([b[0], b[1]]).to_f32()),
                Self::Q4_0 => {
                    let scale = half_at(b, 0);
                    out.extend(b[2..].iter().map(|q| (f32::from(q & 15) - 8.0) * scale));
                    out.extend(b[2..].iter().map(|q| (f32::from(q >> 4) - 8.0) * scale));
                }
                Self::Q4_1 => {
                    let (scale, min) = (half_at(b, 0), half_at(b, 2));
                    out.extend(b[4..].iter().map(|q| f32::from(q & 15) * scale + min));
                    out.extend(b[4..].iter().map(|q| f32::from(q >> 4) * scale + min));
                }
                Self::Q8_0 => {
                    let scale = half_at(b, 0);
                    out.extend(b[2..].iter().map(|q| f32::from(*q as i8) * scale));
                }
            }
        }
        out
    }
}
