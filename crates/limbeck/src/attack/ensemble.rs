//! Several attacks as one: for each image the first that fools the model; each is shown only what withstood those before it.

use burn::tensor::Tensor;

use super::gradient::Logits;
use super::rows::{pick, replace, select};
use super::{Apgd, ApgdLoss, Attack, Fab, Square, SquareSchedule, ThreatModel};
use crate::error::Result;
use crate::network::Model;
use crate::rng::Seed;

/// Attacks in the order in which they are tried; an image that the model misreads as it is stays as it is.
pub struct Ensemble {
    /// The attacks.
    pub attacks: Vec<Box<dyn Attack>>,
}

/// AutoAttack in its standard version (Croce & Hein 2020, section 4): APGD on cross-entropy, APGD and FAB towards the most likely wrong
/// classes, and Square.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoAttack {
    /// Steps of each run of APGD and FAB; published: 100.
    pub steps: usize,
    /// Wrong classes that are aimed at; published: 9.
    pub targets: usize,
    /// Questions that Square asks for each image; published: 5,000.
    pub queries: usize,
    /// Runs of each attack, 1 or more; published: 1.
    pub restarts: usize,
    /// What starts and squares are drawn from.
    pub seed: Seed,
}

impl AutoAttack {
    /// Its attacks in their published order.
    pub fn ensemble(self) -> Ensemble {
        let Self { steps, targets, queries, restarts, seed } = self;
        let apgd = |loss, name| Box::new(Apgd { loss, steps, restarts, seed: seed.child(name) });
        Ensemble {
            attacks: vec![
                apgd(ApgdLoss::CrossEntropy, "apgd-ce"),
                apgd(ApgdLoss::TargetedDlr { targets }, "apgd-t"),
                Box::new(Fab { steps, targets, restarts, seed: seed.child("fab-t") }),
                Box::new(Square {
                    queries,
                    restarts,
                    schedule: SquareSchedule::InQueries,
                    seed: seed.child("square"),
                }),
            ],
        }
    }
}

impl Attack for Ensemble {
    fn propose(
        &self,
        model: &dyn Model,
        threat: ThreatModel,
        images: Tensor<4>,
        labels: &[u32],
    ) -> Result<Tensor<4>> {
        let mut result = images.clone();
        let mut leads = Logits::of(model, images.clone(), labels)?.margins(labels);
        for attack in &self.attacks {
            let left: Vec<usize> = (0..labels.len()).filter(|&row| leads[row] >= 0.0).collect();
            if left.is_empty() {
                break;
            }
            let (originals, classes) = (select(&images, &left), pick(labels, &left));
            let proposal = attack.propose(model, threat, originals.clone(), &classes)?;
            let proposal = threat.project(&originals, proposal);
            let found = Logits::of(model, proposal.clone(), &classes)?.margins(&classes);
            let better: Vec<usize> = (0..left.len()).filter(|&at| found[at] < leads[left[at]]).collect();
            better.iter().for_each(|&at| leads[left[at]] = found[at]);
            result = replace(result, &pick(&left, &better), select(&proposal, &better));
        }
        Ok(result)
    }
}
