//! What rows hold after they were selected or took over from one another.
#![expect(clippy::unwrap_used, reason = "tests")]

use candle_core::Device;

use super::*;

/// Three rows of 3, 1 and 5 tokens: token `t` of row `r` is `10 r + t` throughout. Two numbers a token.
fn cache(dtype: DType) -> Cache {
    let mut cache = Cache::new(3);
    for (row, time) in [(0, 3), (1, 1), (2, 5)] {
        let values: Vec<f32> = (0..2 * time).map(|i| (10 * row + i / 2) as f32).collect();
        let new = Data::from_vec(values, (1, time, 2, 1), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let mut rows = crate::CacheRows { cache: &mut cache, rows: row..row + 1 };
        rows.append(0, &[&new]).unwrap();
        rows.advance(time);
    }
    cache
}

fn held(cache: &Cache, row: usize) -> Vec<f32> {
    let data = cache.layers[0][0].narrow(0, row, 1).unwrap().narrow(1, 0, cache.lengths[row]).unwrap();
    let values = data.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.chunks_exact(2).map(|token| if token[0] == token[1] { token[0] } else { f32::NAN }).collect()
}

#[test]
fn selected_rows_hold_what_they_held() {
    for dtype in [DType::F32, DType::F16] {
        let selected = cache(dtype).select(&[2, 0, 2]).unwrap();
        assert_eq!(selected.lengths, [5, 3, 5]);
        for (row, expected) in [(0, vec![20., 21., 22., 23., 24.]), (1, vec![0., 1., 2.])] {
            assert_eq!(held(&selected, row), expected, "{dtype:?}");
        }
        assert_eq!(held(&selected, 2), held(&selected, 0));
    }
}

#[test]
fn a_row_takes_over_what_differs() {
    for dtype in [DType::F32, DType::F16] {
        let mut cache = cache(dtype);
        // Two tokens are said to be shared: row 0 keeps its own there.
        cache.take_over(&[Takeover { from: 2, to: 0, shared: 2 }, Takeover { from: 2, to: 1, shared: 0 }]).unwrap();
        assert_eq!(cache.lengths, [5, 5, 5]);
        assert_eq!(held(&cache, 0), [0., 1., 22., 23., 24.], "{dtype:?}");
        assert_eq!(held(&cache, 1), [20., 21., 22., 23., 24.]);
        assert_eq!(held(&cache, 2), held(&cache, 1));
        // All of it shared, and more: nothing moves.
        cache.truncate(1, 1);
        cache.take_over(&[Takeover { from: 1, to: 0, shared: 9 }]).unwrap();
        assert_eq!(held(&cache, 0), [0.]);
        let error = cache
            .take_over(&[Takeover { from: 0, to: 1, shared: 0 }, Takeover { from: 1, to: 2, shared: 0 }])
            .unwrap_err();
        assert!(error.to_string().contains("row 1 of a cache is to be copied and overwritten"), "{error}");
    }
}

#[test]
fn an_encoders_rows_are_shared_until_some_are_not_needed() {
    let states = Data::arange(0f32, 12., &Device::Cpu).unwrap().reshape((3, 2, 2)).unwrap();
    let memory = Memory::new(Tensor::from(states), Some(vec![1, 1, 1, 0, 0, 1]));
    let cache = Cache::attending(memory).select(&[0, 0, 1, 1, 2, 2]).unwrap();
    let rows = |cache: &Cache| cache.memory.as_ref().unwrap().rows.clone();
    let memory = |cache: &Cache| cache.memory.as_ref().unwrap().memory.clone();
    assert_eq!((rows(&cache), memory(&cache).rows()), (vec![0, 0, 1, 1, 2, 2], 3));
    let fewer = cache.select(&[5, 2, 3]).unwrap();
    assert_eq!((rows(&fewer), memory(&fewer).rows()), (vec![1, 0, 0], 2));
    assert_eq!(memory(&fewer).valid.as_ref().unwrap().as_slice(), [1, 0, 0, 1]);
    let values = memory(&fewer).states.data().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values, [4., 5., 6., 7., 8., 9., 10., 11.]);
}
