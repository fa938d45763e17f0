//! Between tensors and slices, without copies.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Device, Shape, Storage, StorageRef, Tensor, WithDType};

use crate::{Result, TensorError};

/// Values of a contiguous CPU tensor, borrowed.
pub struct Ref<'a, T> {
    guard: StorageRef<'a>,
    range: Range<usize>,
    element: std::marker::PhantomData<T>,
}

/// Borrowed `f32` values.
pub type F32Ref<'a> = Ref<'a, f32>;
/// Borrowed `u32` values.
pub type U32Ref<'a> = Ref<'a, u32>;

fn cpu_slice<T: WithDType>(storage: &Storage) -> Result<&[T]> {
    let unsupported = |what: String| TensorError::Unsupported { op: "read", what };
    match storage {
        Storage::Cpu(cpu) => CpuStorage::as_slice(cpu).map_err(|_| unsupported(format!("{:?}", storage.dtype()))),
        other => Err(unsupported(format!("{:?}", other.device().location()))),
    }
}

impl<T: WithDType> Deref for Ref<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // `borrow` looked at the same storage under the same lock, so this cannot fail.
        cpu_slice(&self.guard).map_or(&[], |s| &s[self.range.clone()])
    }
}

fn borrow<T: WithDType>(t: &Tensor) -> Result<Ref<'_, T>> {
    let (guard, layout) = t.storage_and_layout();
    let (from, to) = layout
        .contiguous_offsets()
        .ok_or_else(|| TensorError::shape("read", format!("a contiguous tensor is needed, got {layout:?}")))?;
    cpu_slice::<T>(&guard)?;
    Ok(Ref { guard, range: from..to, element: std::marker::PhantomData })
}

/// The `f32` values of a contiguous CPU tensor.
///
/// # Errors
/// The tensor is not contiguous, not `f32` or not on the CPU.
pub fn f32s(t: &Tensor) -> Result<F32Ref<'_>> {
    borrow(t)
}

/// The `u32` values of a contiguous CPU tensor.
///
/// # Errors
/// As [`f32s`].
pub fn u32s(t: &Tensor) -> Result<U32Ref<'_>> {
    borrow(t)
}

/// A CPU tensor that takes over a vector, without a copy.
///
/// # Errors
/// The shape does not hold `data.len()` values.
pub fn tensor<T: WithDType>(data: Vec<T>, shape: impl std::convert::Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(data, shape.into(), &Device::Cpu)?)
}

/// A CPU tensor of zeros.
///
/// # Errors
/// The engine's.
pub fn zeros(shape: impl std::convert::Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    tensor(vec![0f32; shape.elem_count()], shape)
}

/// The only value of a tensor of one element.
///
/// # Errors
/// The tensor has another number of elements.
pub fn scalar(t: &Tensor) -> Result<f32> {
    match &*f32s(t)? {
        [value] => Ok(*value),
        other => Err(TensorError::shape("scalar", format!("one value is needed, got {}", other.len()))),
    }
}
