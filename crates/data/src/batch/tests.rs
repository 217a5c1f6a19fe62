//! Batches against plain rules: every token once, targets shifted, nothing leaks between documents.

#![expect(clippy::unwrap_used, reason = "tests")]
use std::collections::BTreeMap;

use super::*;

/// Documents whose ids name document and place, so that any slip shows.
fn data(lengths: &[usize]) -> Arc<TokenFile> {
    let documents = lengths
        .iter()
        .enumerate()
        .map(|(document, &length)| (0..length).map(|place| (document * 1000 + place) as u32).collect::<Vec<_>>());
    Arc::new(TokenFile::from_documents(documents))
}

fn settings(packing: Packing) -> BatchSettings {
    BatchSettings { seed: 3, pad: 999_999, ..BatchSettings::new(packing, 3, 8) }
}

const LENGTHS: [usize; 9] = [5, 1, 23, 8, 0, 2, 16, 9, 40];

fn epoch(batcher: &mut Batcher) -> Vec<Batch> {
    (0..batcher.batches_per_epoch()).map(|_| batcher.next_batch()).collect()
}

#[test]
fn packed_predicts_every_token_but_the_first_of_each_document_once() {
    for shuffle in [false, true] {
        let settings = BatchSettings { shuffle, ..settings(Packing::Packed) };
        let mut batcher = Batcher::new(data(&LENGTHS), settings).unwrap();
        for _ in 0..3 {
            let mut seen = BTreeMap::<(u32, i32), usize>::new();
            let batches = epoch(&mut batcher);
            for batch in &batches {
                for (&id, &target) in batch.ids.iter().zip(&batch.targets) {
                    if target != IGNORE {
                        assert_eq!(target, id as i32 + 1);
                        *seen.entry((id, target)).or_default() += 1;
                    }
                }
            }
            let expected: usize = LENGTHS.iter().map(|length| length.saturating_sub(1)).sum();
            assert_eq!(seen.len(), expected);
            assert!(seen.values().all(|&times| times == 1));
            assert_eq!(batches.iter().map(|batch| batch.tokens).sum::<usize>(), expected);
            let inputs: usize = batches.iter().flat_map(|batch| &batch.lengths).sum();
            assert_eq!(inputs, LENGTHS.iter().sum::<usize>());
        }
    }
}

#[test]
fn packed_segments_and_positions_follow_the_documents() {
    let mut batcher = Batcher::new(data(&LENGTHS), settings(Packing::Packed)).unwrap();
    for batch in epoch(&mut batcher) {
        let segments = batch.segments.as_ref().unwrap();
        for row in 0..batch.batch {
            let row = row * batch.time..(row + 1) * batch.time;
            for place in row.start + 1..row.end {
                let (before, here) = (batch.ids[place - 1], batch.ids[place]);
                let same = segments[place] == segments[place - 1];
                let filling = here == 999_999;
                assert_eq!(same, if filling { before == here } else { here == before + 1 });
                assert_eq!(segments[place] - segments[place - 1], u32::from(!same));
                let expected = if same { batch.positions[place - 1] + 1 } else { 0 };
                assert_eq!(batch.positions[place], expected);
            }
            assert_eq!((segments[row.start], batch.positions[row.start]), (0, 0));
        }
    }
}

#[test]
fn stream_windows_follow_the_run_and_differ_between_rows() {
    let data = data(&[300]);
    let mut batcher = Batcher::new(data.clone(), settings(Packing::Stream)).unwrap();
    let mut starts = Vec::new();
    for batch in epoch(&mut batcher) {
        assert_eq!(batch.tokens, batch.ids.len());
        assert!(batch.segments.is_none());
        for row in 0..batch.batch {
            let ids = &batch.ids[row * 8..row * 8 + 8];
            starts.push(ids[0]);
            assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1));
            assert_eq!(batch.targets[row * 8 + 7], ids[7] as i32 + 1);
        }
    }
    starts.sort_unstable();
    starts.dedup();
    // 37 draws of 292 places: fewer than 25 different ones would be a broken generator.
    assert!(starts.len() > 25, "{starts:?}");

    let in_order = BatchSettings { shuffle: false, ..settings(Packing::Stream) };
    let mut batcher = Batcher::new(data, in_order).unwrap();
    let ids: Vec<u32> = epoch(&mut batcher).into_iter().flat_map(|batch| batch.ids).collect();
    assert_eq!(ids, (0..37 * 8).collect::<Vec<u32>>());
}

#[test]
fn padded_rows_hold_one_document_each() {
    let mut batcher = Batcher::new(data(&LENGTHS), settings(Packing::Padded)).unwrap();
    assert_eq!(batcher.truncated(), 4);
    let batches = epoch(&mut batcher);
    let mut lengths: Vec<usize> = batches.iter().flat_map(|batch| batch.lengths.clone()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [0, 1, 2, 5, 8, 8, 8, 8, 8]);
    for batch in batches {
        assert_eq!(batch.time, batch.lengths.iter().copied().max().unwrap().max(1));
        for (row, &length) in batch.lengths.iter().enumerate() {
            let row = row * batch.time;
            for place in 0..batch.time {
                let (id, target) = (batch.ids[row + place], batch.targets[row + place]);
                assert_eq!(id == 999_999, place >= length);
                let expected = if place + 1 < length { id as i32 + 1 } else { IGNORE };
                assert_eq!(target, expected);
            }
        }
    }
}

#[test]
fn the_order_depends_on_the_seed_and_the_epoch_alone() {
    for packing in [Packing::Packed, Packing::Stream, Packing::Padded] {
        let mut one = Batcher::new(data(&LENGTHS), settings(packing)).unwrap();
        let mut two = Batcher::new(data(&LENGTHS), settings(packing)).unwrap();
        let (first, second) = (epoch(&mut one), epoch(&mut one));
        assert_eq!(first, epoch(&mut two), "{packing:?}");
        assert_ne!(first, second, "{packing:?}");
        let other = BatchSettings { seed: 4, ..settings(packing) };
        let mut other = Batcher::new(data(&LENGTHS), other).unwrap();
        assert_ne!(first, epoch(&mut other), "{packing:?}");
    }
}

#[test]
fn restoring_continues_with_the_next_batch() {
    for packing in [Packing::Packed, Packing::Stream, Packing::Padded] {
        let mut whole = Batcher::new(data(&LENGTHS), settings(packing)).unwrap();
        for _ in 0..7 {
            let state: BatchState = serde_json::from_str(&serde_json::to_string(&whole.state()).unwrap()).unwrap();
            let mut resumed = Batcher::new(data(&LENGTHS), settings(packing)).unwrap();
            resumed.restore(state).unwrap();
            assert_eq!(resumed.next_batch(), whole.next_batch());
            assert_eq!(resumed.state(), whole.state());
        }
        let beyond = BatchState { epoch: 0, index: 1000 };
        assert!(whole.restore(beyond).unwrap_err().to_string().contains("has changed"));
    }
}

#[test]
fn ranks_share_an_epoch_without_overlap() {
    for packing in [Packing::Packed, Packing::Padded] {
        let rows = |batch: &Batch| -> Vec<Vec<u32>> {
            (0..batch.batch)
                .map(|row| batch.ids[row * batch.time..][..batch.lengths[row]].to_vec())
                .filter(|row| !row.is_empty())
                .collect()
        };
        let all = |rank, world| -> Vec<Vec<u32>> {
            let settings = BatchSettings { rank, world, ..settings(packing) };
            let mut batcher = Batcher::new(data(&LENGTHS), settings).unwrap();
            let batches = epoch(&mut batcher);
            assert!(batches.iter().all(|batch| batch.batch > 0));
            batches.iter().flat_map(rows).collect()
        };
        let mut together: Vec<_> = (0..4).flat_map(|rank| all(rank, 4)).collect();
        let mut alone = all(0, 1);
        together.sort();
        alone.sort();
        assert_eq!(together, alone, "{packing:?}");
    }
}

#[test]
fn impossible_settings_are_refused() {
    let error = |settings| Batcher::new(data(&[3]), settings).unwrap_err().to_string();
    assert!(error(settings(Packing::Stream)).contains("3 tokens"));
    assert!(error(BatchSettings { batch: 0, ..settings(Packing::Packed) }).contains("at least 1"));
    assert!(error(BatchSettings { rank: 1, ..settings(Packing::Packed) }).contains("rank 1 of 1"));
    let empty = Batcher::new(data(&[1, 0, 1]), settings(Packing::Packed)).unwrap_err();
    assert!(empty.to_string().contains("nothing to predict"));
}
