//! The images of a set as an attack left them.

use burn::tensor::{Device, Tensor};

use super::attack_checkpoint::AttackCheckpoint;
use crate::attack::{AttackConfig, Batches, ThreatModel, craft};
use crate::craft::stored_within;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::network::Model;
use crate::progress::Progress;
use crate::tensors::values;

/// Images attacked at once: few, so that a costly attack soon says how long it takes, and stops when it is told to.
pub(super) const ATTACK_BATCH: usize = 32;

/// Batches after which what is attacked is kept, should the evaluation be killed.
const KEPT_EVERY: usize = 8;

/// Images of which an attack that learns from many is shown the mean at once.
const FIT_BATCH: usize = 128;

/// Attacked images as the attack left them, in batches of float pixels.
#[derive(Default)]
pub struct AttackedSet {
    batches: Vec<(Tensor<4>, Vec<u32>)>,
    /// Of a targeted attack, the class that each image was led to.
    targets: Option<Vec<u32>>,
}

impl AttackedSet {
    /// Attacks every image of `set` on `model`; what an attack learns from many images, it learns from these.
    ///
    /// A classifier that was trained at a temperature is attacked as [`Tempered`](crate::network::Tempered).
    pub fn craft(
        model: &dyn Model,
        attack: &AttackConfig,
        set: &Dataset,
        progress: &dyn Progress,
    ) -> Result<Self> {
        Self::craft_from(&AttackCheckpoint::none(), model, attack, set, progress)
    }

    /// The same, from where `checkpoint` says that it was stopped. What is attacked when it is done, stopped again or fails is in the checkpoint.
    ///
    /// An attack draws by the image and not by the batch: on the same device the outcome is to the bit that of an attack that was never stopped.
    pub(super) fn craft_from(
        checkpoint: &AttackCheckpoint,
        model: &dyn Model,
        attack: &AttackConfig,
        set: &Dataset,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut attacked = checkpoint.load(set, attack, &model.device())?;
        let before = attacked.len();
        let outcome = attacked.go_on(checkpoint, model, attack, set, progress);
        // What was kept on the way is not written again.
        let is_kept = attacked.len() == before || attacked.batches.len().is_multiple_of(KEPT_EVERY);
        let kept = if is_kept { Ok(()) } else { checkpoint.save(&attacked) };
        // What stopped the attack is what is reported, whatever came of keeping it.
        outcome.and(kept).map(|()| attacked)
    }

    /// Attacks the images of `set` that are left.
    fn go_on(
        &mut self,
        checkpoint: &AttackCheckpoint,
        model: &dyn Model,
        config: &AttackConfig,
        set: &Dataset,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (built, threat, device) = (config.build(), config.threat(), model.device());
        let indices: Vec<usize> = (0..set.len()).collect();
        let left = &indices[self.len()..];
        if left.is_empty() {
            return Ok(());
        }
        let read = |chunk: &[usize]| {
            progress.check()?;
            Ok((set.batch(chunk, &device)?, set.labels(chunk)))
        };
        let large: Vec<&[usize]> = indices.chunks(FIT_BATCH).collect();
        let batches = Batches { count: large.len(), read: &|batch| read(large[batch]) };
        let fitted = built.fit(model, threat, &batches)?;
        let attack = fitted.as_deref().unwrap_or(&*built);
        for chunk in left.chunks(ATTACK_BATCH) {
            progress.advance(self.len() as u64, set.len() as u64);
            let (images, classes) = read(chunk)?;
            let sought = config.target_classes(model, &images, &classes)?;
            let attacked = craft(attack, model, threat, images, &classes)?;
            if let Some(sought) = sought {
                self.targets.get_or_insert_default().extend(sought);
            }
            self.batches.push((attacked, classes));
            if self.batches.len().is_multiple_of(KEPT_EVERY) {
                checkpoint.save(self)?;
            }
        }
        Ok(())
    }

    /// From pixels `[images, 3, height, width]` of the first images of `set`, in the batches that they were attacked in, and within `threat` whatever they are.
    ///
    /// The images are as many as whole batches have, or all of the set's.
    pub(super) fn restored(
        set: &Dataset,
        threat: ThreatModel,
        pixels: &[f32],
        targets: Option<Vec<u32>>,
        device: &Device,
    ) -> Result<Self> {
        let bytes = set.size().bytes();
        let indices: Vec<usize> = (0..pixels.len() / bytes).collect();
        let batches = indices.chunks(ATTACK_BATCH).zip(pixels.chunks(ATTACK_BATCH * bytes));
        let restored = batches.map(|(chunk, pixels)| {
            let attacked = set.tensor(pixels.to_vec(), chunk.len(), device);
            Ok((threat.project(&set.batch(chunk, device)?, attacked), set.labels(chunk)))
        });
        Ok(Self { batches: restored.collect::<Result<_>>()?, targets })
    }

    /// How many images were attacked.
    pub(super) fn len(&self) -> usize {
        self.batches.iter().map(|(_, labels)| labels.len()).sum()
    }

    /// Pixels in `[0, 1]`, `[images, 3, height, width]`.
    pub(super) fn pixels(&self) -> Result<Vec<f32>> {
        let batches = self.batches().map(|(images, _)| values(images)).collect::<Result<Vec<_>>>()?;
        Ok(batches.concat())
    }

    /// Of a targeted attack, the class that each image was led to.
    pub(super) fn targets(&self) -> Option<&[u32]> {
        self.targets.as_deref()
    }

    /// The same in 8 bits within `threat`, as a deployed student is shown them; `set` holds the images that were attacked.
    ///
    /// # Errors
    /// Whatever hinders `set` from being read.
    pub fn stored(&self, set: &Dataset, threat: ThreatModel) -> Result<Dataset> {
        let mut pixels = Vec::with_capacity(set.len());
        for (images, labels) in self.batches() {
            let indices: Vec<usize> = (pixels.len()..pixels.len() + labels.len()).collect();
            pixels.extend(stored_within(set, &indices, images, threat)?);
        }
        set.with_pixels(pixels.into_iter().enumerate())
    }

    /// Batches of images `[batch, 3, h, w]` with their labels.
    pub fn batches(&self) -> impl Iterator<Item = (Tensor<4>, &[u32])> {
        self.batches.iter().map(|(images, labels)| (images.clone(), labels.as_slice()))
    }
}
