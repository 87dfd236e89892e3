//! Checkpoints: the state of a training run after an epoch, so that a killed run goes on where it stopped.
//!
//! One file, written atomically: a TOML header with the learning curve (its floats survive to the last bit), then the weights, the best weights, their
//! running mean if one is kept, and the optimiser's state as Burn's own records. It is scratch: a finished stage deletes it.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use serde::{Deserialize, Serialize};

use super::average::Average;
use super::{Epoch, History};
use crate::artefact::write_atomically;
use crate::error::{Error, Result};

/// A network's weights as bytes, detached from the network.
#[derive(Clone)]
pub(super) struct Weights(Vec<u8>);

impl Weights {
    pub(super) fn of<M: Module>(network: &M) -> Result<Self> {
        let bytes =
            network.clone().into_record().into_bytes().map_err(unfit("weights that can be recorded"))?;
        Ok(Self(bytes.to_vec()))
    }

    pub(super) fn put_into<M: Module>(&self, network: M) -> Result<M> {
        let record = ModuleRecord::from_bytes(Bytes::from_bytes_vec(self.0.clone()))
            .map_err(unfit("a weight record"))?;
        network.try_load_record(record).map_err(unfit("the weights of this very network"))
    }
}

fn unfit<E: std::fmt::Display>(expected: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::input("checkpoint", error.to_string(), expected)
}

/// Where a training run keeps its state between epochs, if anywhere.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints(Option<PathBuf>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Hash of everything the run depends on: another one means another run's file.
    key: String,
    best: Option<usize>,
    lengths: [u64; 4],
    epochs: Vec<Epoch>,
}

/// What was found in a checkpoint file.
pub(super) struct State<M> {
    pub(super) network: M,
    pub(super) history: History,
    average: Weights,
    optimiser: Vec<u8>,
}

impl<M> State<M> {
    pub(super) fn load_optimiser(&self, optimiser: ModuleOptimizer) -> Result<ModuleOptimizer> {
        optimiser
            .from_bytes(Bytes::from_bytes_vec(self.optimiser.clone()))
            .map_err(unfit("an optimiser record"))
    }
}

impl<M: Module> State<M> {
    /// Puts the stored mean of the weights into the mean of a training that has just begun.
    pub(super) fn load_average(&self, mut average: Average<M>) -> Result<Average<M>> {
        average.network = self.average.put_into(average.network)?;
        Ok(average)
    }
}

impl Checkpoints {
    /// Keeps the state in this file; the file's name should change with the run's settings.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(Some(path.into()))
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// The file, or the folder of one who keeps more than the state of one training.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Removes the file of a run that is finished.
    pub fn clear(&self) -> Result<()> {
        match &self.0 {
            Some(path) if path.exists() => std::fs::remove_file(path).map_err(Error::io("remove", path)),
            _ => Ok(()),
        }
    }

    pub(super) fn save<M: Module>(
        &self,
        network: &M,
        average: Option<&Average<M>>,
        optimiser: &ModuleOptimizer,
        history: &History,
    ) -> Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let weights = Weights::of(network)?;
        let average = average.map_or(Ok(Weights(Vec::new())), |average| Weights::of(&average.network))?;
        let state = optimiser.into_bytes().map_err(unfit("an optimiser that can be recorded"))?;
        let best = history.best.as_ref().map_or(&[][..], |(_, weights)| &weights.0);
        let header = Header {
            key: key(path),
            epochs: history.epochs.clone(),
            best: history.best.as_ref().map(|(index, _)| *index),
            lengths: [weights.0.len(), best.len(), average.0.len(), state.len()].map(|length| length as u64),
        };
        let header = toml::to_string(&header).map_err(unfit("a header of plain figures"))?;
        write_atomically(path, |file| {
            let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io("write", path));
            put(&(header.len() as u64).to_le_bytes())?;
            put(header.as_bytes())?;
            put(&weights.0)?;
            put(best)?;
            put(&average.0)?;
            put(&state)
        })
    }

    /// The state in the file, `None` if there is none or it is another run's.
    pub(super) fn load<M: Module>(&self, network: &M) -> Result<Option<State<M>>> {
        let Some(path) = self.0.as_deref().filter(|path| path.exists()) else { return Ok(None) };
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let Some((header, body)) = split(&bytes) else { return Ok(None) };
        if header.key != key(path) {
            return Ok(None);
        }
        let [weights, best, average, _] = header.lengths.map(|length| length as usize);
        let (weights, rest) = body.split_at(weights);
        let (best, rest) = rest.split_at(best);
        let (average, optimiser) = rest.split_at(average);
        let best_weights = Weights(best.to_vec());
        Ok(Some(State {
            network: Weights(weights.to_vec()).put_into(network.clone())?,
            history: History { epochs: header.epochs, best: header.best.map(|index| (index, best_weights)) },
            average: Weights(average.to_vec()),
            optimiser: optimiser.to_vec(),
        }))
    }
}

/// The file's own name carries the hash of the settings.
fn key(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Header and body, if the lengths add up.
fn split(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, body) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Header = toml::from_str(std::str::from_utf8(header).ok()?).ok()?;
    let total = header.lengths.iter().try_fold(0u64, |sum, length| sum.checked_add(*length))?;
    (total == body.len() as u64).then_some((header, body))
}
