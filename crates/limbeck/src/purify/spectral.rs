//! Spectral signatures (Tran, Li & Madry 2018, algorithm 1): how far an image lies from the middle of its class along the direction in which the class varies most.

use super::fitted::{Activations, FittedScore};
use super::principal::PrincipalComponents;

/// ((f − mean f)·v)², v the top right singular vector of the centred activations f of the class.
pub(super) struct SpectralSignature {
    classes: Vec<Option<PrincipalComponents>>,
}

impl SpectralSignature {
    pub(super) fn fit(audited: &Activations) -> Self {
        Self { classes: audited.by_class(|rows| Some(PrincipalComponents::fit(rows, 1))) }
    }
}

impl FittedScore for SpectralSignature {
    fn score(&self, activations: &[f32], label: u32) -> f64 {
        let class = self.classes.get(label as usize).and_then(Option::as_ref);
        class.map_or(0.0, |class| class.project(activations).iter().map(|along| along * along).sum())
    }
}
