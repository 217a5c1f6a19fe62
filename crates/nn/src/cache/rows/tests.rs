//! What rows hold after they were selected or took over from one another.
#![expect(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device};
use phyla_ops::{Data, Tensor};

use super::*;
use crate::{CacheSpec, Kept, Keys, Memory, Seen};

/// Attention in f32, without a window.
const SEEN: Seen = Seen { exactly: Kept::F32, window: None };

/// Rows of so many tokens: token `t` of row `r` is `1000 r + t` throughout. Two numbers a token.
fn cache(spec: CacheSpec, dtype: DType, lengths: &[usize]) -> Cache {
    let mut cache = Cache::with(lengths.len(), spec);
    for (row, &time) in lengths.iter().enumerate() {
        append(&mut cache, row, &(0..time).map(|t| (1000 * row + t) as f32).collect::<Vec<_>>(), dtype);
    }
    cache
}

fn append(cache: &mut Cache, row: usize, tokens: &[f32], dtype: DType) {
    let values: Vec<f32> = tokens.iter().flat_map(|&token| [token; 2]).collect();
    let new = Data::from_vec(values, (1, tokens.len(), 2, 1), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let mut rows = crate::CacheRows { cache, rows: row..row + 1 };
    rows.append(0, &[&new], SEEN).unwrap();
    rows.advance(tokens.len());
}

fn held(cache: &mut Cache, row: usize, dtype: DType) -> Vec<f32> {
    let nothing = Data::zeros((1, 0, 2, 1), dtype, &Device::Cpu).unwrap();
    let keys = crate::CacheRows { cache, rows: row..row + 1 }.append(0, &[&nothing], SEEN).unwrap().remove(0);
    assert_eq!(matches!(keys, Keys::Paged(_)), dtype == DType::F32);
    let data = keys.whole().unwrap().into_data();
    let values = data.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.chunks_exact(2).map(|token| if token[0] == token[1] { token[0] } else { f32::NAN }).collect()
}

fn tokens(row: usize, range: std::ops::Range<usize>) -> Vec<f32> {
    range.map(|t| (1000 * row + t) as f32).collect()
}

#[test]
fn selected_rows_hold_what_they_held() {
    for dtype in [DType::F32, DType::F16] {
        let mut cache = cache(CacheSpec::default(), dtype, &[3, 1, 150]);
        cache.select(&[2, 0, 2]).unwrap();
        assert_eq!(cache.lengths, [150, 3, 150]);
        for (row, expected) in [(0, tokens(2, 0..150)), (1, tokens(0, 0..3)), (2, tokens(2, 0..150))] {
            let expected: Vec<f32> = expected.into_iter().map(|x| f16_of(x, dtype)).collect();
            assert_eq!(held(&mut cache, row, dtype), expected, "{dtype:?}");
        }
        // What is written into one copy is not seen in the other.
        append(&mut cache, 0, &[7.0; 60], dtype);
        append(&mut cache, 2, &[8.0], dtype);
        assert_eq!(held(&mut cache, 0, dtype)[150..], [7.0; 60]);
        assert_eq!(held(&mut cache, 2, dtype)[150..], [8.0]);
    }
}

/// As it is kept.
fn f16_of(x: f32, dtype: DType) -> f32 {
    let data = Data::new(&[x], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    data.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap()[0]
}

#[test]
fn a_row_takes_over_what_differs() {
    for dtype in [DType::F32, DType::F16] {
        let mut cache = cache(CacheSpec::default(), dtype, &[3, 1, 5]);
        // The first two tokens are the same in rows 0 and 2.
        cache.truncate(0, 0);
        append(&mut cache, 0, &[2000., 2001., 2., 3., 4., 5., 6., 7.], dtype);
        cache.take_over(&[Takeover { from: 2, to: 0, shared: 2 }, Takeover { from: 2, to: 1, shared: 0 }]).unwrap();
        assert_eq!(cache.lengths, [5, 5, 5]);
        for row in 0..3 {
            assert_eq!(held(&mut cache, row, dtype), [2000., 2001., 2002., 2003., 2004.], "{dtype:?} row {row}");
        }
        // All of it shared, and more.
        cache.truncate(1, 1);
        cache.take_over(&[Takeover { from: 1, to: 0, shared: 9 }]).unwrap();
        append(&mut cache, 1, &[3.0], dtype);
        append(&mut cache, 0, &[4.0], dtype);
        assert_eq!(held(&mut cache, 0, dtype), [2000., 4.]);
        assert_eq!(held(&mut cache, 1, dtype), [2000., 3.]);
        let error = cache
            .take_over(&[Takeover { from: 0, to: 1, shared: 0 }, Takeover { from: 1, to: 2, shared: 0 }])
            .unwrap_err();
        assert!(error.to_string().contains("row 1 of a cache is to be copied and overwritten"), "{error}");
    }
}

/// Bytes of a page of the tests: 64 positions of two floats.
const PAGE: usize = 64 * 2 * 4;

#[test]
fn rows_that_began_alike_share_their_pages() {
    let mut cache = cache(CacheSpec::default(), DType::F32, &[200]);
    assert_eq!(cache.bytes(), 4 * PAGE);
    cache.select(&[0; 5]).unwrap();
    assert_eq!(cache.bytes(), 4 * PAGE);
    // Each but the last that writes into the page they have in common copies it.
    for row in 0..5 {
        append(&mut cache, row, &[row as f32], DType::F32);
    }
    assert_eq!(cache.bytes(), 8 * PAGE);
    assert_eq!(cache.copied(), 4 * PAGE);
    cache.take_over(&[Takeover { from: 3, to: 1, shared: 200 }, Takeover { from: 3, to: 2, shared: 0 }]).unwrap();
    assert_eq!(cache.bytes(), 6 * PAGE);
    append(&mut cache, 4, &[0.0], DType::F32);
    assert_eq!(cache.copied(), 4 * PAGE, "a page of its own is not copied");
    cache.truncate(3, 10);
    cache.select(&[3]).unwrap();
    assert_eq!((cache.bytes(), held(&mut cache, 0, DType::F32)), (PAGE, tokens(0, 0..10)));
}

#[test]
fn a_cache_of_fixed_size_never_grows() {
    let spec = CacheSpec { positions: Some(130), ..CacheSpec::default() };
    let mut cache = cache(spec, DType::F32, &[1, 1]);
    let bytes = cache.bytes();
    assert_eq!(bytes, 6 * PAGE);
    for round in 0..20 {
        for row in 0..2 {
            append(&mut cache, row, &vec![1.0; 100 + round / 2], DType::F32);
        }
        cache.take_over(&[Takeover { from: round % 2, to: 1 - round % 2, shared: 0 }]).unwrap();
        append(&mut cache, 0, &[5.0; 3], DType::F32);
        append(&mut cache, 1, &[6.0; 3], DType::F32);
        cache.select(&[1, 0]).unwrap();
        assert_eq!(cache.bytes(), bytes, "round {round}");
        cache.truncate(0, round / 2);
        cache.truncate(1, 1);
        assert_eq!(cache.bytes(), bytes, "round {round}");
    }
    append(&mut cache, 1, &[1.0; 129], DType::F32);
    let one = Data::zeros((1, 1, 2, 1), DType::F32, &Device::Cpu).unwrap();
    let error = crate::CacheRows { cache: &mut cache, rows: 1..2 }.append(0, &[&one], SEEN).unwrap_err();
    assert!(error.to_string().contains("room for 130 positions, and a row comes to 131"), "{error}");
}

#[test]
fn a_cache_keeps_what_it_is_told_to() {
    for (name, bytes) in [("f32", 256), ("bf16", 128), ("q8_0", 68), ("q4_0", 36)] {
        let spec = CacheSpec { kept: Kept::from_name(name), ..CacheSpec::default() };
        let mut cache = Cache::with(1, spec);
        let new = Data::ones((1, 3, 1, 64), DType::F32, &Device::Cpu).unwrap();
        let keys = cache.all().append(0, &[&new], SEEN).unwrap().remove(0);
        assert_eq!(cache.bytes(), 64 * bytes, "{name}");
        let values = keys.whole().unwrap().into_data().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.len() == 192 && values.iter().all(|x| (x - 1.0).abs() < 0.01), "{name}");
    }
    let spec = CacheSpec { kept: Kept::from_name("q8_0"), ..CacheSpec::default() };
    let odd = Data::ones((1, 3, 1, 48), DType::F32, &Device::Cpu).unwrap();
    let error = Cache::with(1, spec).all().append(0, &[&odd], SEEN).unwrap_err();
    assert!(error.to_string().contains("heads of 48 numbers are not whole blocks"), "{error}");
    let error = Cache::with(1, spec).all().append(0, &[&odd.to_dtype(DType::F16).unwrap()], SEEN).unwrap_err();
    assert!(error.to_string().contains("only the CPU keeps a cache in q8_0"), "{error}");
}

#[test]
fn an_encoders_rows_are_shared_until_some_are_not_needed() {
    let states = Data::arange(0f32, 12., &Device::Cpu).unwrap().reshape((3, 2, 2)).unwrap();
    let memory = Memory::new(Tensor::from(states), Some(vec![1, 1, 1, 0, 0, 1]));
    let mut cache = Cache::new(3).attending(memory);
    cache.select(&[0, 0, 1, 1, 2, 2]).unwrap();
    let rows = |cache: &Cache| cache.memory.as_ref().unwrap().rows.clone();
    let memory = |cache: &Cache| cache.memory.as_ref().unwrap().memory.clone();
    assert_eq!((rows(&cache), memory(&cache).rows()), (vec![0, 0, 1, 1, 2, 2], 3));
    cache.select(&[5, 2, 3]).unwrap();
    let fewer = cache;
    assert_eq!((rows(&fewer), memory(&fewer).rows()), (vec![1, 0, 0], 2));
    assert_eq!(memory(&fewer).valid.as_ref().unwrap().as_slice(), [1, 0, 0, 1]);
    let values = memory(&fewer).states.data().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values, [4., 5., 6., 7., 8., 9., 10., 11.]);
}

#[test]
fn a_row_begins_with_blocks_of_another_and_outlives_it() {
    let mut cache = cache(CacheSpec::default(), DType::F32, &[3, 150]);
    assert!(cache.block(0, 0).is_none() && cache.block(1, 2).is_none());
    let blocks: Vec<_> = (0..2).map(|index| cache.block(1, index).unwrap()).collect();
    let bytes = cache.bytes();
    cache.add_row(&blocks).unwrap();
    cache.add_row(&[]).unwrap();
    assert_eq!((cache.lengths(), cache.bytes()), (&[3, 150, 128, 0][..], bytes));
    // Each goes on by itself, also when the first one has gone.
    append(&mut cache, 2, &[7.0; 3], DType::F32);
    append(&mut cache, 3, &[8.0; 2], DType::F32);
    cache.select(&[2, 3]).unwrap();
    assert_eq!(held(&mut cache, 0, DType::F32), [tokens(1, 0..128), vec![7.0; 3]].concat());
    assert_eq!(held(&mut cache, 1, DType::F32), [8.0; 2]);
    // What came before blocks were taken is theirs; what is written later is not.
    cache.select(&[]).unwrap();
    cache.add_row(&blocks[..1]).unwrap();
    cache.truncate(0, 10);
    append(&mut cache, 0, &[9.0; 100], DType::F32);
    cache.add_row(&blocks[..1]).unwrap();
    assert_eq!(held(&mut cache, 1, DType::F32), tokens(1, 0..64));
    let mut whole = self::cache(CacheSpec::default(), DType::F16, &[100]);
    assert!(whole.block(0, 0).is_none());
    assert!(whole.add_row(&[]).is_err());
}
