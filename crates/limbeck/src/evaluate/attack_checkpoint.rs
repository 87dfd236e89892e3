//! What an evaluation that is not finished has attacked so far, so that one that was stopped goes on with the next images.
//!
//! A file for each attack on each model, written when the attack is done or is told to stop. It is scratch: the finished evaluation needs none of them, and a file
//! that does not fit is as good as none.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::attacked_set::{ATTACK_BATCH, AttackedSet};
use crate::artefact::write_atomically;
use crate::attack::AttackConfig;
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// Name of the attacked images, `[images, 3 * height * width]`.
const IMAGES: &str = "images";
/// Name of the classes that they were led to, `[images]`.
const TARGETS: &str = "targets";

/// A folder for what is attacked, or none. It is one evaluation's: what is attacked and the models' weights must be the same whenever it is used.
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

    /// Where an attack on the model of this name is kept.
    pub(super) fn of(&self, model: &str, attack: &AttackConfig) -> AttackCheckpoint {
        let settings = serde_json::to_string(attack).expect("settings are plain data");
        let key = blake3::hash(format!("{model}\n{settings}").as_bytes()).to_hex();
        AttackCheckpoint(self.0.as_ref().map(|folder| folder.join(format!("{}.safetensors", &key[..16]))))
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
    pub(super) fn load(&self, set: &Dataset, device: &Device) -> Result<AttackedSet> {
        let Some(path) = self.0.as_deref().filter(|path| path.exists()) else {
            return Ok(AttackedSet::default());
        };
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Ok(parse(&bytes, set, device).unwrap_or_default())
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

/// Attacked images of whole batches, or of all of the set, if these bytes hold such.
fn parse(bytes: &[u8], set: &Dataset, device: &Device) -> Option<AttackedSet> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let images = file.tensor(IMAGES).ok().filter(|view| view.dtype() == Dtype::F32)?;
    let &[count, length] = images.shape() else { return None };
    if length != set.size().bytes() || count > set.len() || count % ATTACK_BATCH != 0 && count != set.len() {
        return None;
    }
    let words = |data: &[u8]| data.as_chunks::<4>().0.to_vec();
    let pixels: Vec<f32> = words(images.data()).into_iter().map(f32::from_le_bytes).collect();
    let targets = match file.tensor(TARGETS) {
        Ok(view) if view.dtype() == Dtype::U32 && *view.shape() == [count] => {
            Some(words(view.data()).into_iter().map(u32::from_le_bytes).collect())
        }
        Ok(_) => return None,
        Err(_) => None,
    };
    Some(AttackedSet::restored(set, &pixels, targets, device))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::attack::{AttackKind, Target};
    use crate::network::{Architecture, Model as _};
    use crate::progress::{Progress, Silent};
    use crate::testing::{blocks, tiny_spec, untrained};

    /// Stops what it watches when it has been asked so many times.
    struct StopsAfter(AtomicUsize);

    impl Progress for StopsAfter {
        fn cancelled(&self) -> bool {
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        }
    }

    #[test]
    fn an_attack_that_was_stopped_goes_on_where_it_stood_and_ends_as_if_it_never_had_been() {
        let (model, set) = (untrained(tiny_spec(Architecture::Vgg, 4, 5.0), 4), blocks(80, 4, 1));
        let pgd = AttackConfig { steps: 2, ..AttackConfig::linf(AttackKind::Pgd, 0.05) };
        for attack in [pgd, AttackConfig { target: Target::Random, ..pgd }] {
            let folder = tempfile::tempdir().expect("a folder");
            let checkpoint = AttackCheckpoints::at(&folder.path().join("below")).of("model", &attack);
            let craft = |checkpoint: &AttackCheckpoint, progress: &dyn Progress| {
                AttackedSet::craft_from(checkpoint, &model, &attack, &set, progress)
            };
            let whole = craft(&AttackCheckpoint::none(), &Silent).expect("attacked");
            assert!(matches!(craft(&checkpoint, &StopsAfter(2.into())), Err(Error::Interrupted)));
            let kept = checkpoint.load(&set, &model.device()).expect("read");
            assert_eq!((kept.len(), whole.len()), (64, 80), "two batches, and all three");
            assert_eq!(kept.pixels().expect("values"), whole.pixels().expect("values")[..64 * 192]);
            // Stopped before it went on: what is there stays.
            assert!(matches!(craft(&checkpoint, &StopsAfter(0.into())), Err(Error::Interrupted)));
            let resumed = craft(&checkpoint, &StopsAfter(1.into())).expect("one batch was left");
            assert_eq!(resumed.pixels().expect("values"), whole.pixels().expect("values"));
            assert_eq!(resumed.targets(), whole.targets());
            assert_eq!(whole.targets().is_some(), attack.target == Target::Random);
            let again = craft(&checkpoint, &StopsAfter(0.into())).expect("nothing is left to be stopped");
            let of = |set: &AttackedSet| -> Vec<Vec<u32>> {
                set.batches().map(|(_, labels)| labels.to_vec()).collect()
            };
            assert_eq!(of(&again), of(&whole));
        }
    }

    #[test]
    fn what_does_not_fit_is_as_good_as_none() {
        let (model, set) = (untrained(tiny_spec(Architecture::Vgg, 4, 5.0), 4), blocks(80, 4, 1));
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints = AttackCheckpoints::at(folder.path());
        let attack = AttackConfig::linf(AttackKind::Fgsm, 0.05);
        let [of_this, of_that] = ["this", "that"].map(|model| checkpoints.of(model, &attack));
        let found = |checkpoint: &AttackCheckpoint, set: &Dataset| {
            checkpoint.load(set, &model.device()).expect("read").len()
        };
        AttackedSet::craft_from(&of_this, &model, &attack, &set, &Silent).expect("attacked");
        assert_eq!((found(&of_this, &set), found(&of_that, &set)), (80, 0));
        let other = AttackConfig { eps: 0.06, ..attack };
        assert_eq!(found(&checkpoints.of("this", &other), &set), 0);
        assert_eq!(
            found(&of_this, &set.subset(&(0..40).collect::<Vec<_>>())),
            0,
            "of more images than there are"
        );
        assert_eq!(found(&of_this, &blocks(90, 4, 1)), 0, "half a batch");
        let path = of_this.0.as_ref().expect("a path");
        let bytes = std::fs::read(path).expect("read");
        std::fs::write(path, &bytes[..bytes.len() - 1]).expect("written");
        assert_eq!(found(&of_this, &set), 0, "cut short");
    }
}
