//! Single jobs that need no run directory: poison a set, train a plain classifier, measure a model, answer images.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;

use super::config::RunConfig;
use super::copies::{CopiedDefence, with_copies};
use super::run::refuse_output_within;
use super::sets::{Sets, limited};
use crate::artefact::{hash_file, read_json, write_json};
use crate::dataset::{
    Dataset, Edit, ImageSize, Location, Part, RewriteSummary, Sample, SampleId, decode_image, encode_png,
    rewrite, rewrite_all,
};
use crate::distill::{Abstaining, Answer, DetectorLimits, NullRule};
use crate::error::{Error, Result};
use crate::evaluate::results::{Check, ModelRow, Robustness};
use crate::evaluate::{AttackCheckpoints, Source, Subject, accuracy, attack_set, examine, robustness};
use crate::network::{Model, TrainedAutoencoder, TrainedClassifier};
use crate::poison::{TruthManifest, TruthRow, poison};
use crate::progress::Progress;
use crate::purify::Knowledge;
use crate::rng::Seed;
use crate::train::{Checkpoints, Epoch, INFERENCE_BATCH, Targets, train_classifier};

/// What [`poison_copy`] wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoisonedCopy {
    /// Images of the training part.
    pub images: u64,
    /// Of them poisoned.
    pub poisoned: u64,
    /// The copy, a complete set in the input's own schema.
    pub set: PathBuf,
    /// The truth, apart from the set.
    pub truth: PathBuf,
    /// Clean images that were left out of the set, for a defender to trust; `None` where the config names a trusted set of its own, or nothing is trusted.
    pub trusted: Option<PathBuf>,
}

/// Writes a poisoned copy of the config's set to `destination/set`, the truth to `destination/truth.csv`, and the trusted images, which the copy lacks, to
/// `destination/trusted`.
///
/// The share is of the training part of the copy but for what a trusted set of its own has, which stays as it is; the copy has as many images of each class as `data.limit_per_class` says. Images are crafted on `surrogate`, or on a network trained for it on the same set as
/// `poison.surrogate` says; poisoned images have the size that the networks see.
///
/// # Errors
/// Refuses an occupied destination; on any error nothing half-written stays.
pub fn poison_copy(
    config: &RunConfig,
    surrogate: Option<&Path>,
    destination: &Path,
    device: &Device,
    progress: &dyn Progress,
) -> Result<PoisonedCopy> {
    config.check()?;
    refuse_output_within(config, destination)?;
    let [set, truth, trusted] = ["set", "truth.csv", "trusted"].map(|name| destination.join(name));
    for path in [&set, &truth, &trusted] {
        if path.exists() {
            return Err(Error::data(
                path,
                "a file or folder that is there already",
                "a destination without it",
            ));
        }
    }
    let plan = &config.poison.plan;
    if plan.fraction == 0.0 {
        return Err(Error::config(
            "poison.plan.fraction",
            0,
            "a share above 0: a copy without poison is no use",
        ));
    }
    let sets = Sets::load(config, progress)?;
    plan.check_target(&sets.train)?;
    let seed = Seed::new(config.seed);
    let surrogate = match surrogate {
        Some(path) => Some(load_fitting(path, &sets.train, device)?),
        None if !plan.needs_surrogate() => None,
        None => {
            let section = &config.poison;
            progress.task("training the surrogate classifier", "images");
            let spec = section.surrogate.spec(&sets.train, 1.0);
            let (surrogate, _) = train_classifier(
                spec,
                &sets.train.subset(&sets.fitted),
                &Targets::Labels,
                &sets.train.subset(&sets.held_out),
                &section.train,
                device,
                seed.child("surrogate"),
                &Checkpoints::none(),
                progress,
            )?;
            Some(surrogate)
        }
    };
    let full = Dataset::load(&sets.source, Part::Train, config.data.image_size, &mut |_, _| {})?;
    let full = limited(&full, config.data.limit_per_class);
    let drawn = config.data.trusted.is_empty() && config.knowledge.setting != Knowledge::Untrusted;
    let apart: HashSet<SampleId> =
        sets.trusted.samples().iter().filter(|_| drawn).map(|sample| sample.id).collect();
    let known: HashSet<SampleId> = sets.known().iter().map(|known| known.id).collect();
    let is_poisonable = |&index: &usize| {
        let id = &full.samples()[index].id;
        !apart.contains(id) && !known.contains(id)
    };
    let poisonable: Vec<usize> = (0..full.len()).filter(is_poisonable).collect();
    let known_rows: Vec<TruthRow> =
        full.samples().iter().filter(|sample| known.contains(&sample.id)).map(clean_row).collect();
    let full = full.subset(&poisonable);
    let copied: HashSet<SampleId> = full.samples().iter().map(|sample| sample.id).collect();
    let crafted_on = surrogate.as_ref().map(|network| network as &dyn Model);
    let train_copies =
        |surrogate| CopiedDefence::train(config, &sets, surrogate, device, &Checkpoints::none(), progress);
    let copies = surrogate.as_ref().filter(|_| plan.evade.is_on()).map(train_copies).transpose()?;
    let poisoned = with_copies(copies.as_ref(), plan.evade.percentile, |copies| {
        poison(&full, plan, crafted_on, copies, device, seed.child("poison"), progress)
    })?;
    let changed: HashMap<_, _> =
        poisoned.images.iter().map(|image| (full.samples()[image.index].id, image)).collect();
    std::fs::create_dir_all(destination).map_err(Error::io("create", destination))?;
    progress.task("writing the poisoned copy", "images");
    let mut written = Written::default();
    // First what the copy lacks: no copy is ever without it.
    if drawn {
        rewrite(&sets.source, Part::Train, &trusted, &mut |id, _, _| {
            progress.check()?;
            Ok(if apart.contains(id) { Edit::Keep } else { Edit::Drop })
        })?;
        written.add(&trusted);
    }
    let summary: RewriteSummary = rewrite_all(&sets.source, &set, &mut |id, _, label| {
        progress.check()?;
        if !copied.contains(id) {
            return Ok(if known.contains(id) { Edit::Keep } else { Edit::Drop });
        }
        changed.get(id).map_or(Ok(Edit::Keep), |image| {
            Ok(Edit::Replace {
                image: Some(encode_png(&image.pixels, full.size())?),
                label: (image.label != label).then_some(image.label),
            })
        })
    })?;
    written.add(&set);
    let mut truths = truth_of(&full, &poisoned, &summary, &plan.label());
    let images = full.len() + known_rows.len();
    truths.rows.extend(known_rows);
    truths.save(&truth)?;
    written.keep();
    Ok(PoisonedCopy {
        images: images as u64,
        poisoned: poisoned.images.len() as u64,
        set,
        truth,
        trusted: drawn.then_some(trusted),
    })
}

/// Files and folders that belong together: removed when dropped, unless all of them are there.
#[derive(Default)]
struct Written(Vec<PathBuf>);

impl Written {
    /// One that has just been written whole.
    fn add(&mut self, path: &Path) {
        self.0.push(path.to_path_buf());
    }

    /// All are there.
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for path in &self.0 {
            // Another error is on its way already, and is the one to report.
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// The truth about a sample that nobody touched.
fn clean_row(sample: &Sample) -> TruthRow {
    TruthRow {
        id: sample.id,
        path: sample.path.clone(),
        poisoned: false,
        original_id: sample.id,
        original_label: sample.label,
        label: sample.label,
        attack: String::new(),
    }
}

/// The truth by the ids and paths that the copy has.
fn truth_of(
    full: &Dataset,
    poisoned: &crate::poison::PoisonedSet,
    summary: &RewriteSummary,
    attack: &str,
) -> TruthManifest {
    let after: HashMap<_, _> = summary.changes.iter().map(|change| (change.before, change)).collect();
    let labels: HashMap<_, _> = poisoned.images.iter().map(|image| (image.index, image.label)).collect();
    let rows = full
        .samples()
        .iter()
        .enumerate()
        .map(|(index, sample)| {
            let (change, label) = (after.get(&sample.id), labels.get(&index).copied());
            TruthRow {
                id: change.map_or(sample.id, |change| change.after),
                path: change.map_or_else(|| sample.path.clone(), |change| change.path.clone()),
                poisoned: label.is_some(),
                original_id: sample.id,
                original_label: sample.label,
                label: label.unwrap_or(sample.label),
                attack: if label.is_some() { attack.to_owned() } else { String::new() },
            }
        })
        .collect();
    TruthManifest { rows }
}

/// A stored classifier, if it answers with this set's classes on images of this set's size.
pub(super) fn load_fitting(path: &Path, set: &Dataset, device: &Device) -> Result<TrainedClassifier> {
    let model = TrainedClassifier::load(path, device)?;
    let size = [set.size().height as usize, set.size().width as usize];
    if model.spec().image_size != size {
        let [height, width] = model.spec().image_size;
        return Err(Error::artefact(
            path,
            format!("a network for {width}x{height} images"),
            format!("{}x{}", size[1], size[0]),
        ));
    }
    if model.spec().classes.len() != set.classes().len() {
        return Err(Error::artefact(
            path,
            format!("a network of {} classes", model.spec().classes.len()),
            format!("the set's {}", set.classes().len()),
        ));
    }
    let differs = |&index: &usize| !is_same_class(&model.spec().classes[index], &set.classes()[index]);
    if let Some(index) = (0..set.classes().len()).find(differs) {
        return Err(Error::artefact(
            path,
            format!("a network whose class {index} is {:?}", model.spec().classes[index]),
            format!("{:?}, as in the set", set.classes()[index]),
        ));
    }
    Ok(model)
}

/// Whether two names are of one class: a parquet file may have 7 where a folder has 00007.
fn is_same_class(a: &str, b: &str) -> bool {
    let number = |name: &str| name.parse::<u64>().ok();
    a == b || (number(a).is_some() && number(a) == number(b))
}

/// Trains the config's classifier on the labels of its set as they are, and writes it to `destination` (safetensors).
///
/// Returns its accuracy on the test part and the learning curve.
pub fn train_model(
    config: &RunConfig,
    destination: &Path,
    device: &Device,
    progress: &dyn Progress,
) -> Result<(ModelRow, Vec<Epoch>)> {
    config.check()?;
    if destination.exists() {
        return Err(Error::data(destination, "a file or folder that is there already", "a new file"));
    }
    let sets = Sets::load(config, progress)?;
    let section = &config.classifier;
    progress.task("training the classifier", "images");
    let (model, epochs) = train_classifier(
        section.network.spec(&sets.train, 1.0),
        &sets.with_trusted(&sets.train.subset(&sets.fitted))?,
        &Targets::Labels,
        &sets.train.subset(&sets.held_out),
        &section.train,
        device,
        Seed::new(config.seed).child("train"),
        &Checkpoints::none(),
        progress,
    )?;
    if let Some(parent) = destination.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    let row = ModelRow {
        model: file_name(destination),
        trained_on: sets.name.clone(),
        clean: accuracy(&model, &sets.test, progress)?,
        attacked: Vec::new(),
        transferred: Vec::new(),
        backdoor: None,
    };
    model.save(destination)?;
    Ok((row, epochs))
}

/// The images that a stored classifier is measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeasuredOn {
    /// The test images, which choose nothing.
    Test,
    /// What training with the same `data` settings learns from no image of, by whole groups: to choose settings by.
    HeldOut,
}

/// What is left of one stored classifier under attack, and how far the figures can be trusted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelEvaluation {
    /// Which images it was measured on.
    pub images: MeasuredOn,
    /// Accuracy, clean and under each attack.
    pub model: ModelRow,
    /// Worst cases, curve and calibration.
    pub robustness: Robustness,
    /// Self-checks of these figures.
    pub checks: Vec<Check>,
}

/// Measures a stored classifier on the config's test images, or its held-out ones, as a run measures its student, which alone can answer null.
///
/// With `transfer`, another stored classifier, the images are attacked on that too and shown to the first.
///
/// # Errors
/// Refuses classifiers for other classes or another image size than the set's.
pub fn evaluate_model(
    config: &RunConfig,
    model: &Path,
    transfer: Option<&Path>,
    images: MeasuredOn,
    device: &Device,
    progress: &dyn Progress,
) -> Result<ModelEvaluation> {
    config.check()?;
    let sets = Sets::load(config, progress)?;
    let test = match images {
        MeasuredOn::Test => sets.test,
        MeasuredOn::HeldOut => sets.held_out_images()?,
    };
    let classifier = load_fitting(model, &test, device)?;
    let other = transfer.map(|other| load_fitting(other, &test, device)).transpose()?;
    let evaluate = &config.evaluate;
    let attacked = attack_set(&test, evaluate.attacked_images, Seed::new(config.seed).child("evaluate"));
    // There is no place of its own to keep them in.
    let checkpoints = AttackCheckpoints::none();
    let trials = evaluate.trials(&test, &attacked, &checkpoints);
    let name = file_name(model);
    let source = |(other, path): (&TrainedClassifier, &Path)| {
        // Both may have one file name, in two folders.
        let other_name = Some(file_name(path)).filter(|other| *other != name);
        Source::craft(&other_name.unwrap_or_else(|| path.display().to_string()), other, trials, progress)
    };
    let source = other.as_ref().zip(transfer).map(source).transpose()?;
    let subject = Subject {
        name: &name,
        trained_on: "unknown",
        classifier: &classifier,
        abstaining: None,
        transfer: source.as_ref(),
        probed: true,
        examples: None,
    };
    let (examined, _) = examine(&subject, trials, progress)?;
    let robustness = robustness(std::slice::from_ref(&examined))?;
    Ok(ModelEvaluation { images, model: examined.row, robustness, checks: examined.checks })
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(super) const STUDENT: &str = "student.safetensors";
const NULL_RULE: &str = "null_rule.json";
pub(super) const AUTOENCODER: &str = "dae.safetensors";

/// A distilled student with its null rule, as a run directory holds them.
pub struct Student {
    classifier: TrainedClassifier,
    rule: NullRule,
    /// Of a rule that asks the audit's detector.
    autoencoder: Option<TrainedAutoencoder>,
}

/// The student's answer to one image file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The file.
    pub path: PathBuf,
    /// Class index, `None` = null.
    pub label: Option<u32>,
    /// Its name, `None` = null.
    pub class: Option<String>,
    /// The class that it would have named, its probability and uncertainty.
    pub answer: Answer,
}

impl Student {
    /// Reads `student.safetensors` and `null_rule.json` of a run directory, and `dae.safetensors` where the rule asks the audit's detector.
    ///
    /// # Errors
    /// Files that are missing or damaged, and another student or autoencoder than the rule was calibrated with, as a run with other settings leaves them that went no further.
    pub fn load(run: &Path, device: &Device) -> Result<Self> {
        let file = run.join(STUDENT);
        let classifier = TrainedClassifier::load(&file, device)?;
        let rule: NullRule = read_json(&run.join(NULL_RULE))?;
        let check = |file: &Path, what: &str, expected: &str| {
            let found = hash_file(file)?;
            if found == *expected {
                return Ok(());
            }
            let expected = format!("{expected}, which {NULL_RULE} was calibrated with: distil again");
            Err(Error::artefact(file, format!("the {what} of BLAKE3 {found}"), expected))
        };
        if let Some(student) = &rule.student {
            check(&file, "student", student)?;
        }
        let load = |limits: &DetectorLimits| {
            let file = run.join(AUTOENCODER);
            check(&file, "autoencoder", &limits.autoencoder)?;
            TrainedAutoencoder::load(&file, device)
        };
        let autoencoder = rule.detector.as_ref().map(load).transpose()?;
        Ok(Self { classifier, rule, autoencoder })
    }

    fn abstaining(&self) -> Abstaining<'_> {
        Abstaining { student: &self.classifier, rule: &self.rule, autoencoder: self.autoencoder.as_ref() }
    }

    /// The null rule.
    pub fn rule(&self) -> &NullRule {
        &self.rule
    }

    /// What it is kept in: each part with the name of its file in the run directory.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let autoencoder = self.autoencoder.as_ref().map(|_| ("autoencoder", AUTOENCODER));
        [("student", STUDENT), ("null_rule", NULL_RULE)].into_iter().chain(autoencoder)
    }

    /// Class names by index.
    pub fn classes(&self) -> &[String] {
        &self.classifier.spec().classes
    }

    /// Writes student and rule to another folder, with the autoencoder that the rule asks.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let file = folder.join(STUDENT);
        self.classifier.save(&file)?;
        let mut rule = NullRule { student: Some(hash_file(&file)?), ..self.rule.clone() };
        if let Some((autoencoder, limits)) = self.autoencoder.as_ref().zip(rule.detector.as_mut()) {
            let file = folder.join(AUTOENCODER);
            autoencoder.save(&file)?;
            limits.autoencoder = hash_file(&file)?;
        }
        write_json(&folder.join(NULL_RULE), &rule)
    }

    /// Answers image files, and every image file below folders, in the order of their paths within each argument.
    ///
    /// Each image is read whole. A student that learnt from crops, as those of a table with regions are, is to be shown crops.
    ///
    /// # Errors
    /// The first file that cannot be read or decoded, by name; a folder without any image.
    pub fn predict(&self, paths: &[PathBuf], progress: &dyn Progress) -> Result<Vec<Prediction>> {
        let files = image_files(paths)?;
        let [height, width] = self.classifier.spec().image_size;
        let size = ImageSize { width: width as u32, height: height as u32 };
        let mut predictions = Vec::with_capacity(files.len());
        progress.task("answering", "images");
        for chunk in files.chunks(INFERENCE_BATCH) {
            progress.check()?;
            let mut pixels = Vec::with_capacity(chunk.len() * 3 * height * width);
            for file in chunk {
                let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
                let decoded = decode_image(&bytes, None, size, &Location::file(file))?;
                pixels.extend(decoded.into_iter().map(|pixel| f32::from(pixel) / 255.0));
            }
            let images = crate::tensors::images(
                pixels,
                [chunk.len(), 3, height, width],
                &crate::network::Model::device(&self.classifier),
            );
            for (file, answer) in chunk.iter().zip(self.abstaining().answers(images)?) {
                let label = (!answer.null).then_some(answer.class);
                let class = label.and_then(|label| self.classes().get(label as usize).cloned());
                predictions.push(Prediction { path: file.clone(), label, class, answer });
            }
            progress.advance(predictions.len() as u64, files.len() as u64);
        }
        Ok(predictions)
    }
}

/// Files with an image's ending; a file that is named itself is taken whatever its ending.
fn image_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
        if !metadata.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        collect_images(path, &mut files)?;
        if files.len() == before {
            return Err(Error::data(path, "no image file", "png, jpeg, pnm, bmp or webp files"));
        }
        files[before..].sort();
    }
    Ok(files)
}

fn collect_images(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "ppm", "pgm", "pbm", "bmp", "webp"];
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.is_dir() {
            collect_images(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
        {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_something_that_could_not_be_written_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let [set, truth, other] = ["set", "truth.csv", "other"].map(|name| folder.path().join(name));
        std::fs::write(&other, b"x").expect("written");
        let write = || {
            let mut written = Written::default();
            std::fs::create_dir(&set).expect("made");
            std::fs::write(set.join("image"), b"x").expect("written");
            written.add(&set);
            std::fs::write(&truth, b"x").expect("written");
            written.add(&truth);
            written
        };
        drop(write());
        assert!(!set.exists() && !truth.exists() && other.exists());
        write().keep();
        assert!(set.join("image").exists() && truth.exists());
    }
}
