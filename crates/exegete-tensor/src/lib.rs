//! The array engine: tensors, our ops with forward and backward, one gradient tape, CPU kernels.
//!
//! [`Tensor`] carries data (candle's, on whatever device); [`Tape`] runs ops on [`Value`]s and remembers what
//! the backward pass needs, for values that ask for a gradient and for nothing else. A frozen weight is a plain
//! tensor and costs nothing. The kernels themselves are in [`cpu`], on slices.
//!
//! This is the only crate that names the engine underneath.
#![deny(missing_docs)]

pub mod alloc;
pub mod cpu;
mod data;
mod device;
mod error;
mod ops;
pub mod optim;
mod site_fn;
mod tape;

pub use candle_core::{DType, Device, Shape, Tensor};
pub use cpu::activation::Act;
pub use cpu::packed::{Keep, Matrix, RowSource, Stack};
pub use data::{F32Ref, U32Ref, f32s, scalar, tensor, u32s, zeros};
pub use device::{DeviceMatrix, device_named};
pub use error::TensorError;
pub use ops::attention::KeySource;
pub use ops::recompute::Part;
pub use site_fn::{Place, SiteFn};
pub use tape::{Tape, Value};

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, TensorError>;
