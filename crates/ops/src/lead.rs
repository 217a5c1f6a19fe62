//! The same rows before every text of a batch, whose gradient is the sum over the texts.

use candle_core::Result;

use crate::{Data, Tensor};

/// `lead[count, ..]` before each row of `x[batch, time, ..]`: `[batch, count + time, ..]`.
pub fn prepend(lead: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (count, batch, time) = (lead.dims()[0], x.dims()[0], x.dims().get(1).copied().unwrap_or(0));
    if x.dims().len() != lead.dims().len() + 1 || lead.dims()[1..] != x.dims()[2..] {
        candle_core::bail!(
            "{:?} cannot stand before {:?}: expected [count, ..] and [batch, time, ..]",
            lead.dims(),
            x.dims()
        );
    }
    let rows = || -> Result<Data> {
        let mut shape = vec![batch];
        shape.extend_from_slice(lead.dims());
        lead.data().unsqueeze(0)?.broadcast_as(shape)?.contiguous()
    };
    let data = if time == 0 { rows()? } else { Data::cat(&[&rows()?, x.data()], 1)? };
    Ok(Tensor::record(data, &[lead, x], false, move |dy| {
        let own = dy.narrow(1, 0, count)?.sum(0)?.contiguous()?;
        let rest = if time == 0 { None } else { Some(dy.narrow(1, count, time)?.contiguous()?) };
        Ok(vec![Some(own), rest])
    }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_stand_before_each_text_and_sum_their_gradients() {
        let tensor = |values: &[f32], dims: &[usize]| Data::from_vec(values.to_vec(), dims, &Device::Cpu).unwrap();
        let lead = Tensor::leaf(tensor(&[1., 2.], &[1, 2]));
        let x = Tensor::leaf(tensor(&[3., 4., 5., 6.], &[2, 1, 2]));
        let y = prepend(&lead, &x).unwrap();
        assert_eq!(y.dims(), [2, 2, 2]);
        let values: Vec<f32> = y.data().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(values, [1., 2., 3., 4., 1., 2., 5., 6.]);
        y.backward_with(tensor(&[1., 2., 3., 4., 10., 20., 30., 40.], &[2, 2, 2])).unwrap();
        let grad = |x: &Tensor| x.grad().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(grad(&lead), [11., 22.]);
        assert_eq!(grad(&x), [3., 4., 30., 40.]);
        assert!(prepend(&lead, &lead).is_err());
    }
}
