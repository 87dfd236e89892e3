//! Weights on disk: safetensors, with the network's spec as JSON in the metadata.
//!
//! A file is complete by itself: reading it needs no config. A length or shape found in a file is checked by the
//! format's own parser before anything is allocated.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::store::{ModuleStore, SafetensorsStore};
use safetensors::SafeTensors;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::artefact::write_atomically;
use crate::error::{Error, Result};

/// The metadata key; one key alone keeps the bytes in one order.
const KEY: &str = "limbeck";

/// Writes a network; same weights and spec, same bytes.
pub(crate) fn save<M: Module, S: Serialize>(path: &Path, network: &M, kind: &str, spec: &S) -> Result<()> {
    let header = serde_json::json!({ "kind": kind, "spec": spec }).to_string();
    let mut store = SafetensorsStore::from_bytes(None).clear_metadata().metadata(KEY, header);
    let unfit = |error: &dyn std::fmt::Display| {
        Error::artefact(path, error.to_string(), "weights that can be serialised")
    };
    store.collect_from(network).map_err(|error| unfit(&error))?;
    let bytes = store.get_bytes().map_err(|error| unfit(&error))?;
    write_atomically(path, |file| file.write_all(&bytes).map_err(Error::io("write", path)))
}

/// An opened weight file whose header has been read.
pub(crate) struct WeightFile {
    path: PathBuf,
    bytes: Vec<u8>,
    header: serde_json::Value,
}

impl WeightFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let unfit = |found: String| Error::artefact(path, found, "safetensors weights written by limbeck");
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| unfit(error.to_string()))?;
        let none = HashMap::new();
        let header = metadata
            .metadata()
            .as_ref()
            .unwrap_or(&none)
            .get(KEY)
            .ok_or_else(|| unfit("no `limbeck` entry in its metadata".to_owned()))?;
        let header = serde_json::from_str(header)
            .map_err(|error| unfit(format!("metadata that is not JSON ({error})")))?;
        Ok(Self { path: path.to_path_buf(), bytes, header })
    }

    /// The spec, if the file holds this kind of network.
    pub(crate) fn spec<S: DeserializeOwned>(&self, kind: &str) -> Result<S> {
        if self.header["kind"] != kind {
            return Err(Error::artefact(
                &self.path,
                format!("a network of kind {}", self.header["kind"]),
                format!("\"{kind}\""),
            ));
        }
        S::deserialize(&self.header["spec"])
            .map_err(|error| Error::artefact(&self.path, error.to_string(), format!("the spec of a {kind}")))
    }

    /// Puts the weights into a network of the right shape; every tensor must fit and be finite.
    pub(crate) fn apply<M: Module>(self, mut network: M) -> Result<M> {
        let mut store = SafetensorsStore::from_bytes(Some(self.bytes));
        let result = store
            .apply_to(&mut network)
            .map_err(|error| Error::artefact(&self.path, error.to_string(), "the tensors of its spec"))?;
        if !result.missing.is_empty() || !result.unused.is_empty() || !result.errors.is_empty() {
            return Err(Error::artefact(&self.path, format!("{result}"), "exactly the tensors of its spec"));
        }
        Ok(network)
    }
}
