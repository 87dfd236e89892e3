//! The poisoned images on disk, and the truth apart from them.

use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::artefact::write_atomically;
use crate::dataset::{Dataset, SampleId};
use crate::error::{Error, Result};

/// A poisoned image and its place in the set that it was drawn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoisonedImage {
    /// Position in the set.
    pub index: usize,
    /// Label it now carries.
    pub label: u32,
    /// RGB8, `[3, height, width]`.
    pub pixels: Vec<u8>,
}

/// All poisoned images, by rising position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoisonedSet {
    /// The images.
    pub images: Vec<PoisonedImage>,
}

impl PoisonedSet {
    /// The set with the poison in it.
    pub fn apply(&self, set: &Dataset) -> Result<Dataset> {
        set.with_pixels(self.images.iter().map(|image| (image.index, image.pixels.clone())))?
            .with_labels(self.images.iter().map(|image| (image.index, image.label)))
    }

    /// The truth about a set of which this poison was applied.
    pub fn truth(&self, clean: &Dataset, poisoned: &Dataset, attack: &str) -> TruthManifest {
        let mut rows: Vec<TruthRow> = poisoned
            .samples()
            .iter()
            .zip(clean.samples())
            .map(|(after, before)| TruthRow {
                id: after.id,
                path: after.path.clone(),
                poisoned: false,
                original_id: before.id,
                original_label: before.label,
                label: after.label,
                attack: String::new(),
            })
            .collect();
        for image in &self.images {
            rows[image.index].poisoned = true;
            rows[image.index].attack = attack.to_owned();
        }
        TruthManifest { rows }
    }

    /// Writes positions, labels and pixels as safetensors, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        let numbers = |values: Vec<u64>| values.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
        let indices = numbers(self.images.iter().map(|image| image.index as u64).collect());
        let labels = numbers(self.images.iter().map(|image| u64::from(image.label)).collect());
        let pixels: Vec<u8> = self.images.iter().flat_map(|image| &image.pixels).copied().collect();
        let count = self.images.len();
        let length = self.images.first().map_or(0, |image| image.pixels.len());
        let view = |dtype, shape: Vec<usize>, data| {
            TensorView::new(dtype, shape, data)
                .map_err(|error| Error::artefact(path, error.to_string(), "images of one size"))
        };
        let tensors = [
            ("indices", view(Dtype::U64, vec![count], &indices)?),
            ("labels", view(Dtype::U64, vec![count], &labels)?),
            ("pixels", view(Dtype::U8, vec![count, length], &pixels)?),
        ];
        let bytes = safetensors::serialize(tensors, None)
            .map_err(|error| Error::artefact(path, error.to_string(), "tensors that can be serialised"))?;
        write_atomically(path, |file| file.write_all(&bytes).map_err(Error::io("write", path)))
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let unfit = |found: String| Error::artefact(path, found, "poisoned images written by limbeck");
        let file = SafeTensors::deserialize(&bytes).map_err(|error| unfit(error.to_string()))?;
        let tensor = |name: &str, dtype: Dtype| match file.tensor(name) {
            Ok(view) if view.dtype() == dtype => Ok(view),
            Ok(view) => Err(unfit(format!("`{name}` of type {:?}", view.dtype()))),
            Err(error) => Err(unfit(error.to_string())),
        };
        let numbers = |name: &str| -> Result<Vec<u64>> {
            let view = tensor(name, Dtype::U64)?;
            let (chunks, _) = view.data().as_chunks::<8>();
            Ok(chunks.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
        };
        let (indices, labels, pixels) =
            (numbers("indices")?, numbers("labels")?, tensor("pixels", Dtype::U8)?);
        let &[count, length] = pixels.shape() else {
            return Err(unfit(format!("pixels of shape {:?}", pixels.shape())));
        };
        if indices.len() != count || labels.len() != count {
            return Err(unfit(format!("{} indices, {} labels, {count} images", indices.len(), labels.len())));
        }
        let images = indices
            .into_iter()
            .zip(labels)
            .enumerate()
            .map(|(row, (index, label))| {
                Ok(PoisonedImage {
                    index: usize::try_from(index).map_err(|error| unfit(error.to_string()))?,
                    label: u32::try_from(label).map_err(|error| unfit(error.to_string()))?,
                    pixels: pixels.data()[row * length..(row + 1) * length].to_vec(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { images })
    }
}

/// What is true of one sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruthRow {
    /// Id of the sample as it now stands.
    pub id: SampleId,
    /// Its path.
    pub path: String,
    /// Whether it was poisoned.
    pub poisoned: bool,
    /// Id before poisoning.
    pub original_id: SampleId,
    /// Label before poisoning.
    pub original_label: u32,
    /// Label now.
    pub label: u32,
    /// The attack, empty for clean samples.
    pub attack: String,
}

/// The truth about every sample; only evaluation reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TruthManifest {
    /// One row a sample.
    pub rows: Vec<TruthRow>,
}

impl TruthManifest {
    /// Writes a csv file with a header, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomically(path, |file| {
            let mut writer = csv::Writer::from_writer(file);
            for row in &self.rows {
                writer
                    .serialize(row)
                    .map_err(|error| Error::artefact(path, error.to_string(), "rows that can be written"))?;
            }
            writer.flush().map_err(Error::io("write", path))
        })
    }

    /// Reads what [`save`](Self::save) wrote.
    pub fn load(path: &Path) -> Result<Self> {
        let unfit = |error: csv::Error| Error::artefact(path, error.to_string(), "a truth manifest");
        let rows = csv::Reader::from_path(path)
            .map_err(unfit)?
            .into_deserialize()
            .collect::<std::result::Result<_, _>>()
            .map_err(unfit)?;
        Ok(Self { rows })
    }

    /// By id, whether it is poisoned.
    pub fn by_id(&self) -> std::collections::HashMap<SampleId, &TruthRow> {
        self.rows.iter().map(|row| (row.id, row)).collect()
    }
}
