//! What an evaluation that is not finished has attacked so far, so that one that was stopped goes on with the next images.
//!
//! A file for each attack on each model, written every few batches, and when the attack is done, is told to stop or fails. Its name says what the attack hangs on. It is scratch: the finished
//! evaluation needs none of them, and a file that does not fit is as good as none.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::attacked_set::{ATTACK_BATCH, AttackedSet};
use crate::artefact::write_atomically;
use crate::attack::{AttackConfig, Target};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::network::Model;
use crate::tensors::values;

/// Name of the attacked images, `[images, 3 * height * width]`.
const IMAGES: &str = "images";
/// Name of the classes that they were led to, `[images]`.
const TARGETS: &str = "targets";

/// A folder for what is attacked, or none. It is one evaluation's: the images must be the same whenever it is used.
#[derive(Clone, Debug, Default)]
pub struct AttackCheckpoints(Option<PathBuf>);

impl AttackCheckpoints {
    /// Keeps attacked images below this folder, which is made when there is something to keep.
    pub fn at(folder: &Path) -> Self {
        Self(Some(folder.to_path_buf()))
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// Where this attack of the images of `set` on `model` is kept: another one's if the model makes anything else of the first of them, by its weights or by its device.
    pub(super) fn of(
        &self,
        model: &dyn Model,
        attack: &AttackConfig,
        set: &Dataset,
    ) -> Result<AttackCheckpoint> {
        let Some(folder) = &self.0 else { return Ok(AttackCheckpoint::none()) };
        let mut key = blake3::Hasher::new();
        key.update(serde_json::to_string(attack).expect("settings are plain data").as_bytes());
        let first: Vec<usize> = (0..set.len().min(ATTACK_BATCH)).collect();
        if !first.is_empty() {
            let logits = values(model.logits(set.batch(&first, &model.device())?))?;
            for logit in logits {
                key.update(&logit.to_le_bytes());
            }
        }
        let key = key.finalize().to_hex();
        Ok(AttackCheckpoint(Some(folder.join(format!("{}.safetensors", &key[..16])))))
    }
}

/// The file of one attack on one model, or none.
pub(super) struct AttackCheckpoint(Option<PathBuf>);

impl AttackCheckpoint {
    /// Keeps nothing.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// What is there of the images of `set`, in their order; nothing, where nothing is there or it does not fit.
    pub(super) fn load(&self, set: &Dataset, attack: &AttackConfig, device: &Device) -> Result<AttackedSet> {
        let Some(path) = self.0.as_deref().filter(|path| path.exists()) else {
            return Ok(AttackedSet::default());
        };
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let Some((pixels, targets)) = parse(&bytes, set, attack) else { return Ok(AttackedSet::default()) };
        AttackedSet::restored(set, attack.threat(), &pixels, targets, device)
    }

    pub(super) fn save(&self, attacked: &AttackedSet) -> Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let unfit = |error: safetensors::SafeTensorError| {
            Error::artefact(path, error.to_string(), "tensors that can be serialised")
        };
        let pixels: Vec<u8> = attacked.pixels()?.into_iter().flat_map(f32::to_le_bytes).collect();
        let targets: Option<Vec<u8>> =
            attacked.targets().map(|targets| targets.iter().flat_map(|class| class.to_le_bytes()).collect());
        let images = attacked.len();
        let length = pixels.len() / size_of::<f32>() / images.max(1);
        let view = |dtype, shape, data| TensorView::new(dtype, shape, data).map_err(unfit);
        let mut tensors = vec![(IMAGES, view(Dtype::F32, vec![images, length], &pixels)?)];
        if let Some(targets) = &targets {
            tensors.push((TARGETS, view(Dtype::U32, vec![images], targets)?));
        }
        let bytes = safetensors::serialize(tensors, None).map_err(unfit)?;
        write_atomically(path, |file| file.write_all(&bytes).map_err(Error::io("write", path)))
    }
}

/// Pixels of whole batches, or of all of the set, and the classes that a targeted attack led them to, if these bytes hold such.
fn parse(bytes: &[u8], set: &Dataset, attack: &AttackConfig) -> Option<(Vec<f32>, Option<Vec<u32>>)> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let images = file.tensor(IMAGES).ok().filter(|view| view.dtype() == Dtype::F32)?;
    let &[count, length] = images.shape() else { return None };
    let is_whole = count % ATTACK_BATCH == 0 || count == set.len();
    if length != set.size().bytes() || count > set.len() || !is_whole {
        return None;
    }
    let words = |data: &[u8]| data.as_chunks::<4>().0.to_vec();
    let pixels: Vec<f32> = words(images.data()).into_iter().map(f32::from_le_bytes).collect();
    let targets = file.tensor(TARGETS).ok();
    let is_targeted = attack.target != Target::Any;
    if targets.is_some() != is_targeted || pixels.iter().any(|pixel| !pixel.is_finite()) {
        return None;
    }
    let Some(targets) = targets else { return Some((pixels, None)) };
    let fits = targets.dtype() == Dtype::U32 && *targets.shape() == [count];
    fits.then(|| (pixels, Some(words(targets.data()).into_iter().map(u32::from_le_bytes).collect())))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::attack::{Norm, TABLE};
    use crate::network::Architecture;
    use crate::progress::{Progress, Silent};
    use crate::testing::{blocks, tiny_spec, untrained};

    /// Stops what it watches when it has been asked so many times.
    struct StopsAfter(AtomicUsize);

    impl Progress for StopsAfter {
        fn cancelled(&self) -> bool {
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        }
    }

    /// Every attack in the table, a few steps of it, and one towards a class.
    fn attacks() -> Vec<AttackConfig> {
        let few = |kind, norm| AttackConfig {
            norm,
            steps: 2,
            search_steps: 1,
            targets: 2,
            queries: 5,
            ..AttackConfig::linf(kind, 0.05)
        };
        let mut attacks: Vec<_> = TABLE.iter().map(|row| few(row.kind, row.norms[0])).collect();
        attacks.push(AttackConfig { target: Target::Random, ..few(TABLE[0].kind, Norm::Linf) });
        attacks
    }

    #[test]
    fn an_attack_that_was_stopped_goes_on_where_it_stood_and_ends_as_if_it_never_had_been() {
        let (model, set) = (untrained(tiny_spec(Architecture::Vgg, 4, 5.0), 4), blocks(80, 4, 1));
        for attack in attacks() {
            let folder = tempfile::tempdir().expect("a folder");
            let checkpoints = AttackCheckpoints::at(&folder.path().join("below"));
            let checkpoint = checkpoints.of(&model, &attack, &set).expect("named");
            let craft = |checkpoint: &AttackCheckpoint, progress: &dyn Progress| {
                AttackedSet::craft_from(checkpoint, &model, &attack, &set, progress)
            };
            let pixels = |attacked: &AttackedSet| attacked.pixels().expect("values");
            let whole = craft(&AttackCheckpoint::none(), &Silent).expect("attacked");
            // An attack that learns from many images reads them first.
            let learnt = count_of_reads(&model, &attack, &set) - 3;
            let stop = |batches: usize| StopsAfter((learnt + batches).into());
            let label = attack.label();
            assert!(matches!(craft(&checkpoint, &stop(2)), Err(Error::Interrupted)), "{label}");
            let kept = checkpoint.load(&set, &attack, &model.device()).expect("read");
            assert_eq!((kept.len(), whole.len()), (64, 80), "{label}: two batches, and all three");
            assert!(pixels(&kept) == pixels(&whole)[..64 * 192], "{label}");
            // Stopped before it went on: what is there stays.
            assert!(matches!(craft(&checkpoint, &stop(0)), Err(Error::Interrupted)), "{label}");
            let resumed = craft(&checkpoint, &stop(1)).expect("one batch was left");
            assert!(pixels(&resumed) == pixels(&whole), "{label}");
            assert_eq!(resumed.targets(), whole.targets(), "{label}");
            assert_eq!(whole.targets().is_some(), attack.target == Target::Random, "{label}");
            let again = craft(&checkpoint, &StopsAfter(0.into())).expect("nothing is left to be stopped");
            let labels = |set: &AttackedSet| -> Vec<Vec<u32>> {
                set.batches().map(|(_, labels)| labels.to_vec()).collect()
            };
            assert_eq!(labels(&again), labels(&whole), "{label}");
        }
    }

    /// How often an attack of all images asks whether it is to stop.
    fn count_of_reads(model: &dyn Model, attack: &AttackConfig, set: &Dataset) -> usize {
        let asked = StopsAfter(usize::MAX.into());
        AttackedSet::craft_from(&AttackCheckpoint::none(), model, attack, set, &asked).expect("attacked");
        usize::MAX - asked.0.into_inner()
    }

    #[test]
    fn what_does_not_fit_is_as_good_as_none() {
        let (model, set) = (untrained(tiny_spec(Architecture::Vgg, 4, 5.0), 4), blocks(80, 4, 1));
        let other_model = untrained(tiny_spec(Architecture::Vgg, 4, 5.0), 5);
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints = AttackCheckpoints::at(folder.path());
        let attack = AttackConfig::linf(TABLE[0].kind, 0.05);
        let of =
            |model: &dyn Model, attack: &AttackConfig| checkpoints.of(model, attack, &set).expect("named");
        let found = |checkpoint: &AttackCheckpoint, set: &Dataset| {
            checkpoint.load(set, &attack, &model.device()).expect("read").len()
        };
        let checkpoint = of(&model, &attack);
        AttackedSet::craft_from(&checkpoint, &model, &attack, &set, &Silent).expect("attacked");
        assert_eq!((found(&checkpoint, &set), found(&of(&other_model, &attack), &set)), (80, 0));
        assert_eq!(found(&of(&model, &AttackConfig { eps: 0.06, ..attack }), &set), 0);
        let few = set.subset(&(0..40).collect::<Vec<_>>());
        assert_eq!(found(&checkpoint, &few), 0, "of more images than there are");
        assert_eq!(found(&checkpoint, &blocks(90, 4, 1)), 0, "half a batch");
        let targeted = AttackConfig { target: Target::Random, ..attack };
        let without_targets = checkpoint.load(&set, &targeted, &model.device()).expect("read");
        assert_eq!(without_targets.len(), 0);
        let path = checkpoint.0.as_ref().expect("a path");
        let bytes = std::fs::read(path).expect("read");
        std::fs::write(path, &bytes[..bytes.len() - 1]).expect("written");
        assert_eq!(found(&checkpoint, &set), 0, "cut short");
    }

    #[test]
    fn what_lies_outside_the_ball_is_brought_back_into_it() {
        let (model, set) = (untrained(tiny_spec(Architecture::Vgg, 4, 5.0), 4), blocks(40, 4, 1));
        let indices: Vec<usize> = (0..40).collect();
        let clean = set.batch_f32(&indices).expect("pixels");
        for attack in [AttackConfig::linf(TABLE[0].kind, 0.05), AttackConfig::l2(TABLE[0].kind, 0.5)] {
            let white = vec![1.0; clean.len()];
            let restored = AttackedSet::restored(&set, attack.threat(), &white, None, &model.device())
                .expect("restored");
            let changes: Vec<f64> = restored
                .pixels()
                .expect("values")
                .iter()
                .zip(&clean)
                .map(|(a, b)| f64::from(*a) - f64::from(*b))
                .collect();
            for change in changes.chunks(192) {
                let largest = change.iter().fold(0.0, |most: f64, change| most.max(change.abs()));
                let length = change.iter().map(|change| change.powi(2)).sum::<f64>().sqrt();
                let found = if attack.norm == Norm::L2 { length } else { largest };
                assert!(found > 0.0 && found < attack.eps + 1e-5, "{found} and {}", attack.eps);
            }
        }
    }
}
