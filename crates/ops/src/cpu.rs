//! The door between candle's tensors and plain slices: everything that a kernel reads or writes passes here.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Shape, Storage, StorageRef, WithDType};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;

use crate::Data;

/// A read-only view of a contiguous tensor in host memory.
pub struct View<'a, T> {
    guard: StorageRef<'a>,
    start: usize,
    len: usize,
    kind: PhantomData<T>,
}

/// Views `data` as a slice; an error if it is not contiguous, not on the CPU or of another type.
pub fn view<T: WithDType>(data: &Data) -> Result<View<'_, T>> {
    let (guard, layout) = data.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a kernel needs a contiguous tensor, found strides {:?}", layout.stride());
    };
    match &*guard {
        Storage::Cpu(storage) => storage.as_slice::<T>()?,
        _ => candle_core::bail!("a CPU kernel was given a tensor on {:?}", data.device()),
    };
    Ok(View { guard, start, len: end - start, kind: PhantomData })
}

impl<T: WithDType> Deref for View<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // `view` has checked both conditions; an empty slice would fail every kernel's length check.
        match &*self.guard {
            Storage::Cpu(storage) => storage
                .as_slice::<T>()
                .ok()
                .and_then(|all| all.get(self.start..self.start + self.len))
                .unwrap_or_default(),
            _ => &[],
        }
    }
}

/// All of a strided tensor's storage between its first and its last element.
pub struct Span<'a>(View<'a, f32>);

impl Deref for Span<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

/// Views a strided tensor as the slice that its strides index into.
pub fn span(data: &Data) -> Result<Span<'_>> {
    let (guard, layout) = data.storage_and_layout();
    let last: usize = layout.dims().iter().zip(layout.stride()).map(|(&n, &s)| n.saturating_sub(1) * s).sum();
    let (start, len) = (layout.start_offset(), if layout.shape().elem_count() == 0 { 0 } else { last + 1 });
    match &*guard {
        Storage::Cpu(storage) => storage.as_slice::<f32>()?,
        _ => candle_core::bail!("a CPU kernel was given a tensor on {:?}", data.device()),
    };
    Ok(Span(View { guard, start, len, kind: PhantomData }))
}

/// A tensor that owns `values`, without a copy.
pub fn tensor<T: WithDType>(values: Vec<T>, shape: impl Into<Shape>) -> Result<Data> {
    Data::from_vec(values, shape.into(), &candle_core::Device::Cpu)
}

/// Changes a contiguous tensor in place.
///
/// Only for tensors that no recorded operation will read again: gradients, optimiser states, weights
/// between steps, caches.
pub fn mutate<T: WithDType, R>(data: &Data, change: impl FnOnce(&mut [T]) -> Result<R>) -> Result<R> {
    let op = Mutate { change: Cell::new(Some(change)), result: Cell::new(None), kind: PhantomData::<T> };
    data.inplace_op1(&op)?;
    match op.result.into_inner() {
        Some(result) => Ok(result),
        None => candle_core::bail!("an in-place change did not run on {:?}", data.device()),
    }
}

/// Candle hands out mutable storage only through an in-place operation, so a closure dresses up as one.
struct Mutate<T, F, R> {
    change: Cell<Option<F>>,
    result: Cell<Option<R>>,
    kind: PhantomData<T>,
}

impl<T: WithDType, F: FnOnce(&mut [T]) -> Result<R>, R> InplaceOp1 for Mutate<T, F, R> {
    fn name(&self) -> &'static str {
        "mutate"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("an in-place change needs a contiguous tensor, found strides {:?}", layout.stride());
        };
        let slice = slice_mut::<T>(storage)?;
        if let Some(change) = self.change.take() {
            self.result.set(Some(change(&mut slice[start..end])?));
        }
        Ok(())
    }
}

/// The elements of host storage, if they are of type `T`.
fn slice_mut<T: WithDType>(storage: &mut CpuStorage) -> Result<&mut [T]> {
    use std::any::Any;
    let found = storage.dtype();
    let values: Option<&mut Vec<T>> = match storage {
        CpuStorage::F32(v) => (v as &mut dyn Any).downcast_mut(),
        CpuStorage::BF16(v) => (v as &mut dyn Any).downcast_mut(),
        CpuStorage::F16(v) => (v as &mut dyn Any).downcast_mut(),
        CpuStorage::U32(v) => (v as &mut dyn Any).downcast_mut(),
        CpuStorage::F64(v) => (v as &mut dyn Any).downcast_mut(),
        _ => None,
    };
    match values {
        Some(values) => Ok(values),
        None => candle_core::bail!("an in-place change expects {:?}, found {found:?}", T::DTYPE),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_view_reads_and_a_change_writes() {
        let data = tensor(vec![1f32, 2., 3., 4.], (2, 2)).unwrap();
        let row = data.narrow(0, 1, 1).unwrap();
        assert_eq!(&*view::<f32>(&row).unwrap(), &[3., 4.]);
        mutate(&row, |x: &mut [f32]| {
            x[0] = 9.;
            Ok(())
        })
        .unwrap();
        assert_eq!(&*view::<f32>(&data).unwrap(), &[1., 2., 9., 4.]);
        assert!(view::<u32>(&data).is_err());
        assert!(view::<f32>(&data.t().unwrap()).is_err());
        assert!(mutate(&data, |_: &mut [u32]| Ok(())).is_err());
    }
}
