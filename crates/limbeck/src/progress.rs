//! How the library tells a face how far it is, and how a face tells the library to stop.

use crate::error::{Error, Result};

/// Receives progress; the library itself prints nothing and reads no clock.
pub trait Progress: Sync {
    /// A stage of a run begins, is skipped because its inputs are unchanged, has ended, or is stale.
    fn stage(&self, _stage: &str, _event: StageEvent) {}

    /// A task inside a stage begins: what it does, and the unit that it counts.
    fn task(&self, _name: &str, _unit: &'static str) {}

    /// The task has done this much of its total.
    fn advance(&self, _done: u64, _total: u64) {}

    /// Whether the caller wants the work to stop at the next safe point.
    fn cancelled(&self) -> bool {
        false
    }

    /// [`Error::Interrupted`] when the caller wants to stop.
    fn check(&self) -> Result<()> {
        match self.cancelled() {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// What happens to a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageEvent {
    /// It begins.
    Started,
    /// Its inputs are unchanged: its artefacts stand.
    Skipped,
    /// Its artefacts are written.
    Finished,
    /// Its artefacts are of an earlier run with other inputs; this run ends before it and leaves them as they are.
    Stale,
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
