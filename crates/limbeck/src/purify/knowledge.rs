//! What the defender knows of the set beside the images themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Knowledge {
    /// A small part is known to be clean and rightly labelled.
    #[default]
    Trusted,
    /// Nothing. Audited images that networks which never learnt from them find usual stand in for trusted ones.
    Untrusted,
    /// A trusted part, and the image that each poisoned one was before: the autoencoder learns from the very poison that it is to find. For research only: no
    /// defender has that.
    Oracle,
}

/// What the defender knows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnowledgeConfig {
    /// `trusted`, `untrusted` or `oracle`.
    pub setting: Knowledge,
    /// Where nothing is trusted: parts of the set, at least 2, each of which is looked at by networks that learnt from the others.
    pub folds: usize,
    /// Where nothing is trusted: the share of the set that may be poisoned. As many of the most suspicious images cannot stand in for trusted ones.
    pub assumed_poison: f64,
}

impl Default for KnowledgeConfig {
    fn default() -> Self {
        Self { setting: Knowledge::Trusted, folds: 2, assumed_poison: 0.1 }
    }
}

impl KnowledgeConfig {
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        if !(2..=100).contains(&self.folds) {
            return Err(Error::config(format!("{key}.folds"), self.folds, "2 to 100 folds"));
        }
        if !(0.0..1.0).contains(&self.assumed_poison) {
            let found = self.assumed_poison;
            return Err(Error::config(format!("{key}.assumed_poison"), found, "a share in [0, 1)"));
        }
        Ok(())
    }
}
