//! Orders that the seed decides, budgets that hold, and resumption.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::batch::Labels;

/// Examples of known lengths, whose batch is their indices.
#[derive(Debug)]
struct Numbers(Vec<usize>);

impl Examples for Numbers {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn length(&self, index: usize) -> usize {
        self.0[index]
    }
    fn collate(&self, indices: &[u32]) -> Batch {
        Batch { labels: Labels::Class(indices.iter().map(|&index| index as i32).collect()), ..Batch::default() }
    }
    fn digest(&self) -> u64 {
        0
    }
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

fn numbers() -> Arc<Numbers> {
    let rng = Rng::new(3);
    Arc::new(Numbers((0..1000).map(|index| 1 + (rng.uniform_at(index) * 60.0) as usize).collect()))
}

fn taken(loader: &mut Loader<Numbers>, batches: u64) -> Vec<Vec<i32>> {
    let take = |_| match loader.next_batch().unwrap().labels {
        Labels::Class(taken) => taken,
        _ => Vec::new(),
    };
    (0..batches).map(take).collect()
}

fn settings() -> Vec<LoaderSettings> {
    let mut all = Vec::new();
    for size in [Size::Examples(7), Size::Tokens(200)] {
        for (shuffle, group_by_length) in [(true, true), (true, false), (false, true), (false, false)] {
            all.push(LoaderSettings { shuffle, group_by_length, seed: 5, ..LoaderSettings::new(size) });
        }
    }
    all
}

#[test]
fn an_epoch_takes_every_example_once_and_is_the_same_by_the_same_seed() {
    let data = numbers();
    for settings in settings() {
        let mut loader = Loader::new(data.clone(), settings).unwrap();
        let per_epoch = loader.batches_per_epoch();
        let first = taken(&mut loader, per_epoch);
        assert_eq!(loader.state(), BatchState { epoch: 1, index: 0 });
        assert_eq!(loader.batches_per_epoch(), per_epoch);
        let second = taken(&mut loader, per_epoch);
        for epoch in [&first, &second] {
            let mut all: Vec<i32> = epoch.concat();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..1000), "{settings:?}");
        }
        assert_eq!(first != second, settings.shuffle, "{settings:?}");
        let mut again = Loader::new(data.clone(), settings).unwrap();
        assert_eq!(taken(&mut again, per_epoch), first);
        let mut other = Loader::new(data.clone(), LoaderSettings { seed: 6, ..settings }).unwrap();
        assert_eq!(taken(&mut other, per_epoch) != first, settings.shuffle);
        if !settings.shuffle && !settings.group_by_length {
            assert!(first.concat().into_iter().eq(0..1000));
        }
    }
}

#[test]
fn a_budget_of_tokens_holds_and_grouping_saves_filling() {
    let data = numbers();
    let real: usize = data.0.iter().sum();
    for settings in settings() {
        let mut loader = Loader::new(data.clone(), settings).unwrap();
        let mut filled = 0;
        let epoch = loader.batches_per_epoch();
        for batch in taken(&mut loader, epoch) {
            let longest = batch.iter().map(|&index| data.0[index as usize]).max().unwrap();
            if let Size::Tokens(budget) = settings.size {
                assert!(longest * batch.len() <= budget, "{} of {budget}", longest * batch.len());
            }
            filled += longest * batch.len();
        }
        let share = real as f64 / filled as f64;
        // Lengths are uniform from 1 to 60: unsorted batches of seven are near 30.5 / 53 full.
        assert_eq!(share > 0.9, settings.group_by_length, "{settings:?} {share}");
    }
}

#[test]
fn a_resumed_loader_goes_on_where_it_stood() {
    for settings in settings() {
        let mut loader = Loader::new(numbers(), settings).unwrap();
        let wanted = loader.batches_per_epoch() + 10;
        taken(&mut loader, wanted);
        let (state, rest) = (loader.state(), taken(&mut loader, wanted));
        let mut resumed = Loader::new(numbers(), settings).unwrap();
        resumed.restore(state).unwrap();
        assert_eq!(taken(&mut resumed, wanted), rest);
        let message = resumed.restore(BatchState { epoch: 0, index: 10_000 }).unwrap_err().to_string();
        assert!(message.contains("stands at batch 10000"), "{message}");
    }
}

#[test]
fn ranks_share_the_batches_and_take_equal_steps() {
    let data = numbers();
    for settings in settings() {
        let ranks = 3;
        let mut all = Vec::new();
        let mut steps = Vec::new();
        for rank in 0..ranks {
            let mut loader = Loader::new(data.clone(), LoaderSettings { rank, world: ranks, ..settings }).unwrap();
            steps.push(loader.batches_per_epoch());
            let epoch = loader.batches_per_epoch();
            all.extend(taken(&mut loader, epoch).concat());
        }
        assert!(steps.iter().all(|&count| count == steps[0]));
        all.sort_unstable();
        all.dedup();
        assert!(all.into_iter().eq(0..1000), "{settings:?}");
    }
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let wrong = |data: Numbers, settings| Loader::new(Arc::new(data), settings).unwrap_err().to_string();
    let some = || Numbers(vec![1, 2]);
    assert!(wrong(Numbers(Vec::new()), LoaderSettings::new(Size::Examples(1))).contains("no examples"));
    assert!(wrong(some(), LoaderSettings::new(Size::Examples(0))).contains("at least one"));
    assert!(wrong(some(), LoaderSettings { rank: 1, ..LoaderSettings::new(Size::Examples(1)) }).contains("rank 1"));
    assert!(wrong(Numbers(vec![1 << 29]), LoaderSettings::new(Size::Examples(1))).contains("batch size lower"));
}
