//! What a step learns from: the next batches of the data, or of a roll-out.

use super::Trainer;
use crate::TrainError;
use crate::metrics::Means;
use crate::rollout::Turn;
use crate::setup::Setup;
use crate::signals::Interrupt;

impl Trainer<'_> {
    /// The batches of the next step; nothing if an interruption came before they were there.
    pub(super) fn turn(&self, setup: &mut Setup, interrupt: &Interrupt) -> Result<Option<Turn>, TrainError> {
        if let Some(rollouts) = &mut setup.rollouts {
            return rollouts.next(&setup.model, &mut *setup.train, interrupt.flag());
        }
        let next = |_| setup.train.next_batch();
        let batches = (0..self.recipe.train.accumulate).map(next).collect::<Result<Vec<_>, _>>()?;
        let batches = batches.into_iter().map(|batch| setup.referred(self.recipe, batch)).collect::<Result<_, _>>()?;
        Ok(Some(Turn { batches, means: Means::default() }))
    }

    /// Saves what was learned when a judge of completions fails: it is the weights' fault least of all.
    pub(super) fn rescue(&mut self, setup: &Setup, error: TrainError) -> Result<TrainError, TrainError> {
        let TrainError::Reward { name, what } = error else { return Ok(error) };
        let kept = match self.state.step {
            0 => "nothing was learned yet".to_owned(),
            step => {
                self.keep(setup)?;
                format!("the run is saved after step {step}: repair the reward and go on with --resume")
            }
        };
        Ok(TrainError::Reward { name, what: format!("{what}; {kept}") })
    }
}
