//! The image sets of a run: training, calibration and test, apart by group.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataset::{Dataset, Part, Source, Split, SplitConfig, TestPart};
use crate::error::{Error, Result};
use crate::progress::Progress;

use super::config::RunConfig;

/// Where the images come from, and the three sets.
pub struct Sets {
    /// The source, for writing copies in its own schema.
    pub source: Source,
    /// Name in reports.
    pub name: String,
    /// Images to be audited, as they come.
    pub train: Dataset,
    /// Trusted images that the label model learns its classes from; none without one, or where most classes have only one group of them.
    pub trusted: Dataset,
    /// Trusted images that thresholds, early stopping and the null rule are fitted on.
    pub calibration: Dataset,
    /// Images that nothing is fitted on.
    pub test: Dataset,
}

impl Sets {
    /// Reads, limits and splits the set that the config names.
    pub fn load(config: &RunConfig, progress: &dyn Progress) -> Result<Self> {
        let (source, name) = match config.data_path() {
            None => (Source::embedded()?, "embedded GTSRB sample".to_owned()),
            Some(path) => {
                let name = path
                    .file_name()
                    .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
                (Source::open_with(&path, &config.data.columns)?, name)
            }
        };
        let load = |part: Part, what: &str| -> Result<Dataset> {
            progress.task(what, "images");
            let set = Dataset::load(&source, part, config.data.image_size, &mut |done, total| {
                progress.advance(done, total.unwrap_or(0));
            })?;
            progress.check()?;
            Ok(limited(&set, config.data.limit_per_class))
        };
        let full = load(Part::Train, "reading training images")?;
        let where_test = TestPart::of(&source);
        let split = Split::draw(&full, &config.data.split, where_test)?;
        let test = match where_test {
            TestPart::Separate => load(Part::Test, "reading test images")?,
            TestPart::Drawn => full.subset(&split.test),
        };
        for (what, set) in [("calibration", split.calibration.len()), ("test", test.len())] {
            if set == 0 {
                return Err(Error::config(
                    format!("data.split.{what}"),
                    "no image",
                    format!("a share that leaves {what} images"),
                ));
            }
        }
        if test.classes() != full.classes() {
            return Err(Error::data(
                source.path(),
                format!("{} test classes", test.classes().len()),
                format!("the {} classes of the training part", full.classes().len()),
            ));
        }
        let (train, held_out) = (full.subset(&split.train), full.subset(&split.calibration));
        let (trusted, calibration) = match config.label_model.enabled {
            true => halves(&held_out, config.data.split.seed)?,
            false => (held_out.subset(&[]), held_out),
        };
        Ok(Self { source, name, train, trusted, calibration, test })
    }

    /// Hash over everything that was read.
    pub fn content_hash(&self) -> String {
        let parts = [&self.train, &self.trusted, &self.calibration, &self.test].map(Dataset::content_hash);
        blake3::hash(parts.join(" ").as_bytes()).to_hex().to_string()
    }
}

/// Trusted images to learn classes from, and those to fit thresholds on, by group.
///
/// Without a second group of a class nothing of it would be left to fit thresholds on: if that is so for most classes, all images are for thresholds.
fn halves(held_out: &Dataset, seed: u64) -> Result<(Dataset, Dataset)> {
    let config = SplitConfig { calibration: 0.5, test: 0.0, seed };
    let split = Split::draw(held_out, &config, TestPart::Separate)?;
    let (trusted, calibration) = (held_out.subset(&split.train), held_out.subset(&split.calibration));
    let classes =
        |set: &Dataset| set.samples().iter().map(|sample| sample.label).collect::<BTreeSet<_>>().len();
    if 2 * classes(&calibration) < classes(held_out) {
        return Ok((held_out.subset(&[]), held_out.clone()));
    }
    Ok((trusted, calibration))
}

/// The first `most` images of each class, in the order of the set; 0 = all.
fn limited(set: &Dataset, most: usize) -> Dataset {
    if most == 0 {
        return set.clone();
    }
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    let kept: Vec<usize> = (0..set.len())
        .filter(|&index| {
            let count = counts.entry(set.samples()[index].label).or_default();
            *count += 1;
            *count <= most
        })
        .collect();
    set.subset(&kept)
}
