//! Caches of every kind against plain lists, through random sequences of everything that can be done to rows.
#![expect(clippy::unwrap_used, reason = "tests")]

use candle_core::Device;
use phyla_kernels::quant::Quant;
use phyla_kernels::rng::Rng;

use super::*;

const HEADS: usize = 2;
const DIM: usize = 32;

/// What each row should hold, and how the cache looks at it.
struct Model {
    cache: Cache,
    seen: Seen,
    /// Of each token its number, and whether it may have been rounded.
    rows: Vec<Vec<(f32, bool)>>,
    /// Numbers for new tokens.
    next: usize,
}

impl Model {
    fn new(spec: CacheSpec, window: Option<usize>, rows: usize) -> Self {
        let seen = Seen { exactly: Kept::F32, window };
        Self { cache: Cache::with(rows, spec), seen, rows: vec![vec![]; rows], next: 0 }
    }

    /// Appends to some rows, in two layers, and checks what their attention would see.
    fn append(&mut self, rows: Range<usize>, time: usize) {
        let spec = self.cache.spec();
        let past = self.cache.lengths()[rows.clone()].to_vec();
        let mut values = vec![];
        for row in rows.clone() {
            for _ in 0..time {
                self.next += 1;
                // Few digits: any kind but blocks keeps them.
                let value = (self.next * 37 % 251) as f32;
                self.rows[row].push((value, false));
                values.extend([value; HEADS * DIM]);
            }
        }
        for (&past, row) in past.iter().zip(&mut self.rows[rows.clone()]) {
            let rounded = match (spec.kept, spec.residual) {
                (None, _) => 0,
                (_, 0) => past + time,
                (_, newest) => past.saturating_sub(newest),
            };
            row[..rounded].iter_mut().for_each(|(_, may)| *may = true);
        }
        let new = Data::from_vec(values, (rows.len(), time, HEADS, DIM), &Device::Cpu).unwrap();
        let mut part = CacheRows { cache: &mut self.cache, rows: rows.clone() };
        let seen = part.seen(time);
        for layer in [0, 2] {
            let all = part.append(layer, &[&new, &new], self.seen).unwrap();
            for keys in &all {
                let longest = keys.sizes()[1];
                let held = keys.whole().unwrap().into_data().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for (i, row) in rows.clone().enumerate() {
                    let all = &self.rows[row];
                    let here = &held[i * longest * HEADS * DIM..][..longest * HEADS * DIM];
                    // Of each slot the token that should stand there, and how many come after it.
                    let expected: Vec<(usize, (f32, bool))> = match spec.sink {
                        Some(sink) if seen[i] < past[i] => {
                            let tail = all.len() - (seen[i] + time - sink.first)..all.len();
                            (0..sink.first).chain(tail).enumerate().map(|(slot, t)| (slot, all[t])).collect()
                        }
                        _ => all.iter().copied().enumerate().collect(),
                    };
                    assert!(spec.sink.is_none() || expected.len() == seen[i] + time);
                    for (slot, (value, rounded)) in expected.iter().copied() {
                        // The first of the new tokens looks back furthest.
                        let visible = self.seen.window.is_none_or(|window| slot + window > past[i]);
                        let off = if rounded { 0.02 * value } else { 0.0 };
                        let got = &here[slot * HEADS * DIM..][..HEADS * DIM];
                        assert!(
                            !visible || got.iter().all(|x| (x - value).abs() <= off),
                            "row {row} of {}, slot {slot}: {} for {value}",
                            all.len(),
                            got[0]
                        );
                    }
                }
            }
        }
        part.advance(time);
    }

    fn truncate(&mut self, row: usize, length: usize) {
        let held = self.rows[row].len();
        let left = self.cache.truncate(row, length);
        assert!(left == length.min(held) || left == 0, "{left} of {length}");
        // A few tokens can always be taken back, and all where nothing is dropped.
        let drops = self.cache.spec().sink.is_some() || self.seen.window.is_some_and(|_| !self.cache.spec().whole);
        assert!(left == length.min(held) || drops && length + 64 < held, "{left} of {length}, held {held}");
        self.rows[row].truncate(left);
    }
}

/// The kinds of caches, with the window of their layers.
fn kinds() -> Vec<(&'static str, CacheSpec, Option<usize>)> {
    let plain = CacheSpec::default();
    let blocks = Some(Kept::Blocks(Quant::Q8_0));
    let sink = Some(SinkSpec { window: 150, first: 3 });
    vec![
        ("dynamic", plain, None),
        ("fixed", CacheSpec { positions: Some(700), ..plain }, None),
        ("sliding", plain, Some(100)),
        ("narrow", plain, Some(1)),
        ("whole", CacheSpec { whole: true, ..plain }, Some(100)),
        ("sliding and fixed", CacheSpec { positions: Some(700), ..plain }, Some(70)),
        ("sink", CacheSpec { sink, ..plain }, None),
        ("sinks beyond a page", CacheSpec { sink: Some(SinkSpec { window: 200, first: 70 }), ..plain }, None),
        ("no sinks", CacheSpec { sink: Some(SinkSpec { window: 64, first: 0 }), ..plain }, None),
        ("blocks", CacheSpec { kept: blocks, ..plain }, None),
        ("residual", CacheSpec { kept: blocks, residual: 30, ..plain }, None),
        ("residual and fixed", CacheSpec { kept: blocks, residual: 130, positions: Some(700), ..plain }, None),
        ("residual and sliding", CacheSpec { kept: blocks, residual: 70, ..plain }, Some(150)),
        ("residual and sink", CacheSpec { kept: blocks, residual: 20, sink, ..plain }, None),
        ("offloaded", CacheSpec { offloaded: true, ..plain }, None),
        ("offloaded, sliding", CacheSpec { offloaded: true, ..plain }, Some(100)),
        ("offloaded blocks", CacheSpec { offloaded: true, kept: blocks, residual: 64, ..plain }, None),
    ]
}

#[test]
fn rows_hold_what_they_should_whatever_is_done_to_them() {
    for (number, (name, spec, window)) in kinds().into_iter().enumerate() {
        for round in 0..6 {
            let mut rng = Rng::new(100 * number as u64 + round).split("cache");
            let mut below = |n: usize| rng.below(n as u64) as usize;
            let mut model = Model::new(spec, window, 1 + below(4));
            let mut prefixes: Vec<(Prefix, Vec<(f32, bool)>)> = vec![];
            for _ in 0..60 {
                let rows = model.rows.len();
                match below(10) {
                    0..5 => {
                        let first = below(rows);
                        let last = first + 1 + below(rows - first);
                        let most = spec.sink.map_or(200, |sink| sink.window - sink.first);
                        let time = [1, 1, 1, 7, 1 + below(most)][below(5)];
                        let longest = model.rows[first..last].iter().map(Vec::len).max().unwrap();
                        if longest + time <= 700 {
                            model.append(first..last, time);
                        }
                    }
                    5 => {
                        let row = below(rows);
                        let held = model.rows[row].len();
                        let length = if below(2) == 0 { below(held + 1) } else { held.saturating_sub(below(70)) };
                        model.truncate(row, length);
                    }
                    6 => {
                        let chosen: Vec<usize> = (0..1 + below(4)).map(|_| below(rows)).collect();
                        model.cache.select(&chosen).unwrap();
                        model.rows = chosen.iter().map(|&row| model.rows[row].clone()).collect();
                    }
                    7 if rows > 1 => {
                        let (from, to) = (below(rows), below(rows));
                        if from != to {
                            model.cache.take_over(&[Takeover { from, to, shared: 0 }]).unwrap();
                            model.rows[to] = model.rows[from].clone();
                        }
                    }
                    8 => {
                        let row = below(rows);
                        prefixes.push((model.cache.prefix(row).unwrap(), model.rows[row].clone()));
                    }
                    _ => {
                        let Some((prefix, held)) = prefixes.get(below(prefixes.len() + 1)) else { continue };
                        let row = below(rows);
                        model.truncate(row, 0);
                        let length = below(held.len() + 1);
                        let begun = model.cache.begin_with(row, prefix, length).unwrap();
                        assert!(begun == length || begun == 0);
                        model.rows[row] = held[..begun].to_vec();
                    }
                }
                let lengths: Vec<usize> = model.rows.iter().map(Vec::len).collect();
                assert_eq!(model.cache.lengths(), lengths, "{name}");
            }
        }
    }
}

#[test]
fn what_is_not_seen_any_more_takes_no_memory() {
    let page = 64 * HEADS * DIM * 4 * 4; // keys and values of two layers
    let largest = |spec: CacheSpec, window: Option<usize>| {
        let (mut cache, seen) = (Cache::with(1, spec), Seen { exactly: Kept::F32, window });
        let mut pass = |time: usize| {
            let new = Data::zeros((1, time, HEADS, DIM), DType::F32, &Device::Cpu).unwrap();
            for layer in [0, 2] {
                cache.all().append(layer, &[&new, &new], seen).unwrap();
            }
            cache.all().advance(time);
            cache.bytes()
        };
        pass(100);
        (0..10_000).fold(0, |largest, _| largest.max(pass(1)))
    };
    // The window, the positions that can be taken back, and what is left of pages on either side.
    assert!(largest(CacheSpec::default(), Some(100)) <= page * (100 + 64 + 2 * 63) / 64);
    let sink = CacheSpec { sink: Some(SinkSpec { window: 150, first: 4 }), ..CacheSpec::default() };
    assert!(largest(sink, None) <= page * (64 + 146 + 64 + 2 * 63) / 64);
}

#[test]
fn layers_of_one_cache_have_windows_of_their_own() {
    let mut cache = Cache::new(1);
    let new = Data::zeros((1, 64, HEADS, DIM), DType::F32, &Device::Cpu).unwrap();
    let page = 64 * HEADS * DIM * 4;
    for _ in 0..20 {
        for (layer, window) in [None, Some(64), Some(1000)].into_iter().enumerate() {
            cache.all().append(layer, &[&new], Seen { exactly: Kept::F32, window }).unwrap();
        }
        cache.all().advance(64);
    }
    assert_eq!(cache.bytes(), page * (20 + 2 + 17));
    assert_eq!(cache.truncate(0, 1280 - 64), 1216, "a page can be taken back");
    assert_eq!(cache.truncate(0, 1100), 0, "more cannot");
}

#[test]
fn a_prefix_is_for_caches_of_its_own_kind() {
    let mut model = Model::new(CacheSpec::default(), None, 1);
    model.append(0..1, 130);
    let prefix = model.cache.prefix(0).unwrap();
    let bytes = model.cache.bytes();
    let mut other = Cache::with(2, CacheSpec { kept: Some(Kept::Bf16), ..CacheSpec::default() });
    assert_eq!(other.begin_with(0, &prefix, 130).unwrap(), 0);
    let mut same = Cache::with(2, CacheSpec { offloaded: true, ..CacheSpec::default() });
    assert_eq!(same.begin_with(0, &prefix, 100).unwrap(), 100);
    assert!(same.bytes() < bytes, "the last page is not needed");
    assert!(same.begin_with(0, &prefix, 100).unwrap_err().to_string().contains("cannot begin anew"));
    assert_eq!(same.begin_with(1, &prefix, 1000).unwrap(), 130);
    assert_eq!(same.bytes(), bytes, "and nothing is copied");
    assert_eq!(prefix.pages().values().sum::<usize>(), bytes);
    let new = Data::zeros((1, 1, 1, DIM), DType::F32, &Device::Cpu).unwrap();
    let mut odd = Cache::new(1);
    odd.all().append(0, &[&new], model.seen).unwrap();
    let error = odd.begin_with(0, &prefix, 10).unwrap_err().to_string();
    assert!(error.contains("layer 0 of a prefix has another shape"), "{error}");
}

#[test]
fn a_sink_cache_takes_no_more_than_it_keeps() {
    let spec = CacheSpec { sink: Some(SinkSpec { window: 10, first: 4 }), ..CacheSpec::default() };
    let new = Data::zeros((1, 7, HEADS, DIM), DType::F32, &Device::Cpu).unwrap();
    let seen = Seen { exactly: Kept::F32, window: None };
    let error = Cache::with(1, spec).all().append(0, &[&new], seen).unwrap_err().to_string();
    assert!(error.contains("7 tokens are read together, and behind the first 4 a cache of 10 keeps 6"), "{error}");
}
