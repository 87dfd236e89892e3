//! A teacher's soft labels, keyed by sample id, never by position.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use super::config::OutlierConfig;
use super::uncertainty::variance;
use crate::artefact::write_atomically;
use crate::dataset::{Dataset, SampleId};
use crate::error::{Error, Result};
use crate::network::{Model, TrainedClassifier};
use crate::progress::Progress;
use crate::rng::Seed;
use crate::tensors::values;
use crate::train::{INFERENCE_BATCH, Targets};

/// softmax(z_t(x)/T) of each image (Papernot 2016, equation 2), or its label and an outlier class.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftLabels {
    /// Outputs that a row is over.
    classes: usize,
    ids: Vec<SampleId>,
    /// `[images, classes]`, row by row.
    probabilities: Vec<f32>,
}

impl SoftLabels {
    /// Asks the teacher, at the temperature that it was trained at.
    pub fn compute(teacher: &TrainedClassifier, set: &Dataset, progress: &dyn Progress) -> Result<Self> {
        progress.task("soft labels", "images");
        let device = teacher.device();
        let indices: Vec<usize> = (0..set.len()).collect();
        let mut probabilities = Vec::with_capacity(set.len() * set.classes().len());
        for chunk in indices.chunks(INFERENCE_BATCH) {
            progress.check()?;
            let logits = teacher.logits(set.batch(chunk, &device)?);
            probabilities.extend(values(softmax(logits.div_scalar(teacher.spec().temperature), 1))?);
            progress.advance((probabilities.len() / set.classes().len()) as u64, set.len() as u64);
        }
        Ok(Self {
            classes: set.classes().len(),
            ids: set.samples().iter().map(|sample| sample.id).collect(),
            probabilities,
        })
    }

    /// k(x) of each image, over the classes and one for outliers behind them: 1 − a σ(x)/max σ on its label and a σ(x)/max σ on the outlier class, σ being the variance of
    /// the teacher's logits over dropout passes and max σ the largest of the set (Papernot & McDaniel 2017, section III).
    pub fn with_outlier_class(
        teacher: &TrainedClassifier,
        set: &Dataset,
        config: &OutlierConfig,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Self> {
        progress.task("the teacher's doubts", "images");
        let indices: Vec<usize> = (0..set.len()).collect();
        let mut doubts: Vec<f32> = Vec::with_capacity(set.len());
        for chunk in indices.chunks(INFERENCE_BATCH) {
            progress.check()?;
            let images = set.batch(chunk, &teacher.device())?;
            let passes = teacher.dropout_passes(images, config.passes, seed);
            doubts.extend(values(variance(Tensor::stack(passes, 0)))?);
            progress.advance(doubts.len() as u64, set.len() as u64);
        }
        let most = doubts.iter().copied().fold(0.0, f32::max);
        let outputs = set.classes().len() + 1;
        let mut probabilities = vec![0.0; set.len() * outputs];
        let rows = probabilities.chunks_exact_mut(outputs).zip(set.samples());
        for ((row, sample), doubt) in rows.zip(doubts) {
            // A teacher without dropout has no doubts at all.
            let outlier = if most > 0.0 { config.weight as f32 * doubt / most } else { 0.0 };
            (row[sample.label as usize], row[outputs - 1]) = (1.0 - outlier, outlier);
        }
        Ok(Self {
            classes: outputs,
            ids: set.samples().iter().map(|sample| sample.id).collect(),
            probabilities,
        })
    }

    /// The labels of a set's images in the set's order.
    ///
    /// # Errors
    /// [`Error::Input`] names the first image without a soft label.
    pub fn targets(&self, set: &Dataset) -> Result<Targets> {
        let rows: HashMap<SampleId, usize> =
            self.ids.iter().enumerate().map(|(row, id)| (*id, row)).collect();
        let mut targets = Vec::with_capacity(set.len() * self.classes);
        for sample in set.samples() {
            let row = *rows.get(&sample.id).ok_or_else(|| {
                Error::input(
                    "soft labels",
                    format!("no row for {} ({})", sample.id, sample.path),
                    "one for each image",
                )
            })?;
            targets.extend_from_slice(self.row(row));
        }
        Ok(Targets::Soft(targets))
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.probabilities[row * self.classes..(row + 1) * self.classes]
    }

    /// Mean soft label r_c of the images that the teacher reads as class c, one row a class.
    ///
    /// A class that no image is read as has the uniform distribution: nothing is known of it.
    pub fn class_references(&self) -> Vec<Vec<f32>> {
        class_references(&self.probabilities, self.classes)
    }

    /// Writes parquet with columns `id` and `probabilities`, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        let unfit = |error: &dyn std::fmt::Display| {
            Error::artefact(path, error.to_string(), "soft labels that can be written")
        };
        let size = i32::try_from(self.classes).map_err(|error| unfit(&error))?;
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let mut lists = FixedSizeListBuilder::new(Float32Builder::new(), size).with_field(item.clone());
        for row in self.probabilities.chunks_exact(self.classes) {
            lists.values().append_slice(row);
            lists.append(true);
        }
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("probabilities", DataType::FixedSizeList(item, size), false),
        ]));
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values(self.ids.iter().map(ToString::to_string)));
        let batch = RecordBatch::try_new(schema.clone(), vec![ids, Arc::new(lists.finish())])
            .map_err(|error| unfit(&error))?;
        let properties = WriterProperties::builder().set_created_by("limbeck".to_owned()).build();
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, schema, Some(properties)).map_err(|error| unfit(&error))?;
        writer.write(&batch).map_err(|error| unfit(&error))?;
        writer.close().map_err(|error| unfit(&error))?;
        write_atomically(path, |file| file.write_all(&bytes).map_err(Error::io("write", path)))
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let unfit = |found: String| {
            Error::artefact(path, found, "soft labels written by limbeck (id, probabilities)")
        };
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|builder| builder.build())
            .map_err(|error| unfit(error.to_string()))?;
        let (mut ids, mut probabilities, mut classes) = (Vec::new(), Vec::new(), 0);
        for batch in reader {
            let batch = batch.map_err(|error| unfit(error.to_string()))?;
            let column =
                |name: &str| batch.column_by_name(name).ok_or_else(|| unfit(format!("no column `{name}`")));
            let id_column = column("id")?;
            let names =
                id_column.as_string_opt::<i32>().ok_or_else(|| unfit("`id` that is not text".to_owned()))?;
            let list_column = column("probabilities")?;
            let lists = list_column
                .as_fixed_size_list_opt()
                .ok_or_else(|| unfit("`probabilities` that is not a fixed-size list".to_owned()))?;
            classes = lists.value_length() as usize;
            let values = lists
                .values()
                .as_primitive_opt::<Float32Type>()
                .ok_or_else(|| unfit("`probabilities` that are not float32".to_owned()))?;
            for name in names {
                ids.push(
                    name.unwrap_or_default().parse::<SampleId>().map_err(|error| unfit(error.to_string()))?,
                );
            }
            probabilities.extend_from_slice(values.values());
        }
        if classes == 0 || probabilities.len() != ids.len() * classes {
            return Err(unfit(format!("{} ids and {} probabilities", ids.len(), probabilities.len())));
        }
        Ok(Self { classes, ids, probabilities })
    }
}

/// Of rows of probabilities, one after the other: the mean of those that are largest at class c, one row a class, as in [`SoftLabels::class_references`].
pub(crate) fn class_references(probabilities: &[f32], classes: usize) -> Vec<Vec<f32>> {
    let mut sums = vec![vec![0f64; classes]; classes];
    let mut counts = vec![0u64; classes];
    for row in probabilities.chunks_exact(classes) {
        let class = (0..classes).fold(0, |best, class| if row[class] > row[best] { class } else { best });
        counts[class] += 1;
        sums[class].iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums.into_iter()
        .zip(counts)
        .map(|(sum, count)| match count {
            0 => vec![1.0 / classes as f32; classes],
            _ => sum.into_iter().map(|value| (value / count as f64) as f32).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::network::Architecture;
    use crate::progress::Silent;
    use crate::testing::{blocks, tiny_spec, untrained};

    fn teacher(temperature: f64) -> TrainedClassifier {
        let spec = tiny_spec(Architecture::Vgg, 4, temperature);
        untrained(spec, 5)
    }

    #[test]
    fn soft_labels_are_distributions_and_flatter_at_a_higher_temperature() {
        let set = blocks(12, 4, 1);
        let peak = |temperature: f64| {
            let labels = SoftLabels::compute(&teacher(temperature), &set, &Silent).expect("computed");
            for row in labels.probabilities.chunks_exact(4) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
            labels.probabilities.iter().copied().fold(0.0, f32::max)
        };
        assert!(peak(1.0) > peak(5.0) && peak(5.0) > peak(100.0) && peak(100.0) < 0.3);
    }

    #[test]
    fn the_outlier_class_gets_most_where_the_passes_of_the_teacher_differ_most() {
        let (set, teacher) = (blocks(12, 4, 1), teacher(1.0));
        let config = OutlierConfig { weight: 0.9, passes: 8 };
        let found = SoftLabels::with_outlier_class(&teacher, &set, &config, Seed::new(3), &Silent);
        let found = found.expect("computed");
        let passes = teacher.dropout_passes(
            set.batch(&(0..12).collect::<Vec<_>>(), &Device::flex()).expect("a batch"),
            8,
            Seed::new(3),
        );
        let passes: Vec<Vec<f32>> = passes.into_iter().map(|pass| values(pass).expect("values")).collect();
        let doubt = |image: usize| -> f64 {
            let of_class = |class: usize| {
                let logits = || passes.iter().map(move |pass| f64::from(pass[4 * image + class]));
                let mean = logits().sum::<f64>() / 8.0;
                logits().map(|logit| (logit - mean).powi(2)).sum::<f64>() / 8.0
            };
            (0..4).map(of_class).sum()
        };
        let most = (0..12).map(doubt).fold(0.0, f64::max);
        for (image, row) in found.probabilities.chunks_exact(5).enumerate() {
            let (label, expected) = (set.samples()[image].label as usize, 0.9 * doubt(image) / most);
            assert!((f64::from(row[4]) - expected).abs() < 1e-4, "{row:?}, {expected}");
            assert!((row[label] + row[4] - 1.0).abs() < 1e-6, "{row:?}");
            assert!((0..4).all(|class| class == label || row[class] == 0.0), "{row:?}");
        }
        assert!(
            found.probabilities.iter().any(|share| (*share - 0.9).abs() < 1e-6),
            "the most doubtful image"
        );
    }

    #[test]
    fn targets_follow_the_id_not_the_position_and_a_missing_id_is_named() {
        let set = blocks(12, 4, 1);
        let labels = SoftLabels::compute(&teacher(5.0), &set, &Silent).expect("computed");
        let Targets::Soft(turned) = labels.targets(&set.subset(&[7, 2])).expect("both are known") else {
            panic!("soft labels give soft targets")
        };
        assert_eq!(turned, [labels.row(7), labels.row(2)].concat());
        let error = labels.targets(&blocks(1, 4, 99)).expect_err("another image").to_string();
        assert!(error.contains("image-0"), "{error}");
    }

    #[test]
    fn class_references_are_means_over_the_class_that_the_teacher_reads() {
        let labels = SoftLabels {
            classes: 3,
            ids: (0..3).map(|index| SampleId::from([index; 16])).collect(),
            probabilities: vec![0.6, 0.3, 0.1, 0.8, 0.1, 0.1, 0.2, 0.7, 0.1],
        };
        let references = labels.class_references();
        let expected = [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [1.0 / 3.0; 3]];
        for (found, expected) in references.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-6, "{references:?}");
        }
    }

    #[test]
    fn soft_labels_survive_the_disk_and_another_file_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("soft_labels.parquet");
        let labels = SoftLabels::compute(&teacher(5.0), &blocks(12, 4, 1), &Silent).expect("computed");
        labels.save(&path).expect("written");
        assert_eq!(SoftLabels::load(&path).expect("read"), labels);
        std::fs::write(&path, b"no parquet").expect("written");
        assert!(SoftLabels::load(&path).expect_err("no parquet").to_string().contains("soft_labels.parquet"));
    }
}
