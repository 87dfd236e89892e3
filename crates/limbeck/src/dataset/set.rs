//! The set itself: samples, class names and the pixels behind them.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::sample::{ImageSize, Sample, SampleId};
use super::store::{PixelStore, PixelWriter};
use crate::error::{Error, Result};

/// Labelled images of one size.
///
/// Clones and subsets share the pixels, which lie in memory or, for large sets, in a temporary
/// file. A set is never changed: [`with_pixels`](Self::with_pixels) and
/// [`with_labels`](Self::with_labels) make changed copies.
#[derive(Debug, Clone)]
pub struct Dataset {
    samples: Vec<Sample>,
    slots: Vec<Slot>,
    classes: Arc<[String]>,
    size: ImageSize,
    layers: Vec<Arc<PixelStore>>,
}

/// Where the pixels of one sample lie: a row of a layer. The first layer is the set as it was
/// loaded; each changed copy adds one with the replaced images only.
#[derive(Debug, Clone, Copy)]
struct Slot {
    layer: usize,
    row: usize,
}

impl Dataset {
    /// A set over pixels in memory: image after image, each RGB8 in `[channels, height, width]`
    /// order.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no sample, fewer than two classes, a label out of their range,
    /// two samples of one id, or not `3 * height * width` bytes for each sample.
    pub fn from_images(
        samples: Vec<Sample>,
        classes: Vec<String>,
        size: ImageSize,
        pixels: Vec<u8>,
    ) -> Result<Self> {
        let expected = samples.len() * size.check()?.bytes();
        if pixels.len() != expected {
            return Err(Error::input(
                "Dataset::from_images",
                format!("{} bytes of pixels for {} samples", pixels.len(), samples.len()),
                format!("{expected} bytes, 3 x {} x {} a sample", size.height, size.width),
            ));
        }
        let mut seen = HashSet::with_capacity(samples.len());
        if let Some(twice) = samples.iter().find(|sample| !seen.insert(sample.id)) {
            return Err(Error::input(
                "Dataset::from_images",
                format!("two samples of the id {} ({})", twice.id, twice.path),
                "each path and content once",
            ));
        }
        Self::over(samples, classes, size, PixelStore::from_memory(size.bytes(), pixels))
    }

    /// A set whose samples are the rows of `store`, in order.
    pub(super) fn over(
        samples: Vec<Sample>,
        classes: Vec<String>,
        size: ImageSize,
        store: PixelStore,
    ) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::input("Dataset", "no samples", "at least one"));
        }
        if classes.len() < 2 {
            return Err(Error::input("Dataset", format!("{} classes", classes.len()), "at least two"));
        }
        let slots = (0..samples.len()).map(|row| Slot { layer: 0, row }).collect();
        let set = Self { samples, slots, classes: classes.into(), size, layers: vec![Arc::new(store)] };
        set.samples.iter().try_for_each(|sample| set.check_label(&sample.path, sample.label))?;
        Ok(set)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no sample, as in a subset of nothing.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The samples in order; their indices are those that the other methods take.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Class names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Size of every image in pixels.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// Pixels of one image: RGB8 in `[channels, height, width]` order, `3 * height * width` bytes.
    ///
    /// # Errors
    /// [`Error::Input`] for an index out of range, [`Error::Io`] if the temporary file that holds
    /// a large set cannot be read.
    pub fn pixels(&self, index: usize) -> Result<Vec<u8>> {
        let mut pixels = vec![0; self.size.bytes()];
        self.read_into(index, &mut pixels)?;
        Ok(pixels)
    }

    /// Pixels of several images as floats in `[0, 1]` (`u8 / 255`), flat in
    /// `[indices, channels, height, width]` order. An index may repeat.
    ///
    /// # Errors
    /// As [`pixels`](Self::pixels).
    pub fn batch_f32(&self, indices: &[usize]) -> Result<Vec<f32>> {
        let mut scratch = vec![0; self.size.bytes()];
        let mut batch = Vec::with_capacity(indices.len() * scratch.len());
        for &index in indices {
            self.read_into(index, &mut scratch)?;
            batch.extend(scratch.iter().map(|&byte| f32::from(byte) / 255.0));
        }
        Ok(batch)
    }

    /// The samples at `indices`, in that order. Shares the pixels.
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn subset(&self, indices: &[usize]) -> Self {
        Self {
            samples: indices.iter().map(|&index| self.samples[index].clone()).collect(),
            slots: indices.iter().map(|&index| self.slots[index]).collect(),
            classes: Arc::clone(&self.classes),
            size: self.size,
            layers: self.layers.clone(),
        }
    }

    /// The samples of this set, then those of `other`. Shares the pixels.
    ///
    /// # Errors
    /// [`Error::Input`] for images of another size or other classes.
    pub fn joined(&self, other: &Self) -> Result<Self> {
        if self.size != other.size || self.classes != other.classes {
            let of = |set: &Self| {
                format!("{}x{} pixels, {} classes", set.size.width, set.size.height, set.classes.len())
            };
            return Err(Error::input("Dataset::joined", of(other), of(self)));
        }
        let mut set = self.clone();
        set.samples.extend_from_slice(&other.samples);
        let moved = |slot: &Slot| Slot { layer: slot.layer + self.layers.len(), row: slot.row };
        set.slots.extend(other.slots.iter().map(moved));
        set.layers.extend(other.layers.iter().cloned());
        Ok(set)
    }

    /// The same samples under another list of class names: each label becomes the index that its class's name has there.
    ///
    /// # Errors
    /// [`Error::Input`] names a class of a sample that the list lacks.
    pub fn with_classes(&self, classes: &[String]) -> Result<Self> {
        let index_of = |name: &String| classes.iter().position(|class| class == name);
        let indices: Vec<Option<usize>> = self.classes.iter().map(index_of).collect();
        let mut set = self.clone();
        for sample in &mut set.samples {
            let class = sample.label as usize;
            let index = indices[class].ok_or_else(|| {
                let expected = format!("one of the {} classes, such as {:?}", classes.len(), classes.first());
                Error::input("Dataset::with_classes", format!("class {:?}", self.classes[class]), expected)
            })?;
            sample.label = index as u32;
        }
        set.classes = classes.into();
        Ok(set)
    }

    /// A copy in which each given index has new pixels (RGB8, `[channels, height, width]`). Its id
    /// becomes that of the path and the raw new pixels; everything else is shared. The last of two
    /// replacements of one index counts.
    ///
    /// # Errors
    /// [`Error::Input`] for an index out of range or pixels of another length, [`Error::Io`] if a
    /// large layer cannot be written to its temporary file.
    pub fn with_pixels<I>(&self, replacements: I) -> Result<Self>
    where
        I: IntoIterator<Item = (usize, Vec<u8>)>,
    {
        let mut set = self.clone();
        let mut layer = PixelWriter::new(self.size.bytes(), None).map_err(store_error("create"))?;
        for (index, pixels) in replacements {
            set.check_index(index)?;
            if pixels.len() != self.size.bytes() {
                return Err(Error::input(
                    "Dataset::with_pixels",
                    format!("{} bytes for sample {index}", pixels.len()),
                    format!("{} bytes", self.size.bytes()),
                ));
            }
            set.slots[index] = Slot { layer: self.layers.len(), row: layer.count() };
            layer.push(&pixels).map_err(store_error("write"))?;
            let sample = &mut set.samples[index];
            sample.id = SampleId::of(&sample.path, &pixels);
        }
        set.layers.push(Arc::new(layer.finish().map_err(store_error("write"))?));
        Ok(set)
    }

    /// A copy in which each given index has a new label. Ids stay, since they name the image.
    ///
    /// # Errors
    /// [`Error::Input`] for an index or a label out of range.
    pub fn with_labels<I>(&self, labels: I) -> Result<Self>
    where
        I: IntoIterator<Item = (usize, u32)>,
    {
        let mut set = self.clone();
        for (index, label) in labels {
            set.check_index(index)?;
            set.check_label(&set.samples[index].path, label)?;
            set.samples[index].label = label;
        }
        Ok(set)
    }

    /// A copy in which each given index is of another group, or of none.
    ///
    /// # Errors
    /// [`Error::Input`] for an index out of range.
    pub(crate) fn with_groups<I>(&self, groups: I) -> Result<Self>
    where
        I: IntoIterator<Item = (usize, Option<String>)>,
    {
        let mut set = self.clone();
        for (index, group) in groups {
            set.check_index(index)?;
            set.samples[index].group = group;
        }
        Ok(set)
    }

    /// BLAKE3, in hex, over the size, the class names and, in order, each sample's id, label, group
    /// and pixels. Two sets of one hash are the same to whoever learns from them: files alone do not
    /// say so, since they may be read at another size or cropped otherwise.
    ///
    /// # Errors
    /// [`Error::Io`] when pixels that lie in a temporary file cannot be read.
    pub fn content_hash(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        // Texts are hashed with their length before them, so that two lists of names never read alike.
        let text = |hasher: &mut blake3::Hasher, text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        hasher.update(&self.size.width.to_le_bytes()).update(&self.size.height.to_le_bytes());
        hasher.update(&(self.classes.len() as u64).to_le_bytes());
        self.classes.iter().for_each(|class| text(&mut hasher, class));
        let mut pixels = vec![0; self.size.bytes()];
        for (index, sample) in self.samples.iter().enumerate() {
            hasher.update(sample.id.as_bytes()).update(&sample.label.to_le_bytes());
            hasher.update(&[u8::from(sample.group.is_some())]);
            text(&mut hasher, sample.group.as_deref().unwrap_or_default());
            self.read_into(index, &mut pixels)?;
            hasher.update(&pixels);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// BLAKE3 of each sample's pixels: what two files, or one file at two places, have in common if
    /// they show the same.
    ///
    /// # Errors
    /// As [`content_hash`](Self::content_hash).
    pub(crate) fn pixel_hashes(&self) -> Result<Vec<[u8; 32]>> {
        let mut pixels = vec![0; self.size.bytes()];
        (0..self.len())
            .map(|index| {
                self.read_into(index, &mut pixels)?;
                Ok(blake3::hash(&pixels).into())
            })
            .collect()
    }

    fn read_into(&self, index: usize, out: &mut [u8]) -> Result<()> {
        self.check_index(index)?;
        let Slot { layer, row } = self.slots[index];
        self.layers[layer].read(row, out).map_err(store_error("read"))
    }

    fn check_index(&self, index: usize) -> Result<()> {
        if index < self.len() {
            return Ok(());
        }
        Err(Error::input("Dataset", format!("index {index}"), format!("below {}", self.len())))
    }

    fn check_label(&self, path: &str, label: u32) -> Result<()> {
        if (label as usize) < self.classes.len() {
            return Ok(());
        }
        Err(Error::input(
            "Dataset",
            format!("label {label} of {path}"),
            format!("below the {} classes", self.classes.len()),
        ))
    }
}

/// An I/O failure of a pixel store, which has no name on disk.
pub(super) fn store_error(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    Error::io(operation, "temporary pixel store")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ImageSize = ImageSize { width: 2, height: 1 };

    /// Three samples whose six pixels bytes count up from 0, 6 and 12.
    fn three() -> Dataset {
        let samples =
            (0..3u8).map(|i| Sample::new(format!("{i}.png"), u32::from(i % 2), None, &[i])).collect();
        let classes = vec!["a".to_owned(), "b".to_owned()];
        Dataset::from_images(samples, classes, SIZE, (0..18).collect()).expect("consistent parts")
    }

    fn hash(set: &Dataset) -> String {
        set.content_hash().expect("pixels in memory")
    }

    #[test]
    fn a_set_crosses_threads() {
        fn check<T: Send + Sync>() {}
        check::<Dataset>();
    }

    #[test]
    fn batches_follow_the_indices_and_scale_by_255() {
        let batch = three().batch_f32(&[2, 0, 2]).expect("in range");
        let expected: Vec<f32> =
            (12..18).chain(0..6).chain(12..18).map(|v: u8| f32::from(v) / 255.0).collect();
        assert_eq!(batch, expected);
    }

    #[test]
    fn a_subset_of_a_subset_reads_the_pixels_of_its_own_samples() {
        let set = three().subset(&[2, 1]).subset(&[1, 0, 0]);
        let paths: Vec<_> = set.samples().iter().map(|sample| sample.path.as_str()).collect();
        assert_eq!(paths, ["1.png", "2.png", "2.png"]);
        assert_eq!(set.pixels(0).expect("in range"), (6..12).collect::<Vec<_>>());
        assert_eq!(set.pixels(2).expect("in range"), (12..18).collect::<Vec<_>>());
    }

    #[test]
    fn replaced_pixels_change_only_the_copy_and_its_id() {
        let before = three();
        let once = before.with_pixels([(1, vec![9; 6])]).expect("right length");
        let twice = once.with_pixels([(2, vec![8; 6])]).expect("right length");
        assert_eq!(before.pixels(1).expect("in range"), (6..12).collect::<Vec<_>>());
        assert_eq!(twice.pixels(0).expect("in range"), (0..6).collect::<Vec<_>>());
        assert_eq!(twice.pixels(1).expect("in range"), [9; 6]);
        assert_eq!(twice.pixels(2).expect("in range"), [8; 6]);
        assert_eq!(twice.samples()[1].id, SampleId::of("1.png", &[9; 6]));
        assert_eq!(twice.samples()[0], before.samples()[0]);
        assert_ne!(hash(&twice), hash(&once));
    }

    #[test]
    fn a_changed_label_keeps_the_id_and_changes_the_hash() {
        let before = three();
        let after = before.with_labels([(0, 1)]).expect("in range");
        assert_eq!(after.samples()[0].label, 1);
        assert_eq!(after.samples()[0].id, before.samples()[0].id);
        assert_ne!(hash(&after), hash(&before));
    }

    #[test]
    fn the_hash_depends_on_order() {
        assert_ne!(hash(&three().subset(&[0, 1])), hash(&three().subset(&[1, 0])));
    }

    /// The same files read at another size, cropped otherwise, or into other classes or groups are another set.
    #[test]
    fn the_hash_is_of_what_was_read_not_of_the_files() {
        let read = |size: ImageSize, pixel: u8, class: &str, group: Option<&str>| {
            let samples =
                vec![Sample { group: group.map(str::to_owned), ..Sample::new("x.png", 0, None, b"file") }];
            let classes = vec![class.to_owned(), "b".to_owned()];
            hash(&Dataset::from_images(samples, classes, size, vec![pixel; size.bytes()]).expect("a set"))
        };
        let (wide, high) = (ImageSize { width: 2, height: 1 }, ImageSize { width: 1, height: 2 });
        let set = read(wide, 7, "a", None);
        assert_eq!(set, read(wide, 7, "a", None));
        for other in [
            read(high, 7, "a", None),
            read(wide, 8, "a", None),
            read(wide, 7, "c", None),
            read(wide, 7, "a", Some("")),
        ] {
            assert_ne!(set, other);
        }
    }

    #[test]
    fn inconsistent_parts_are_refused_with_what_was_found() {
        let sample = |label| Sample::new("x.png", label, None, b"");
        let two = || vec!["a".to_owned(), "b".to_owned()];
        let refusal = |samples, classes, pixels| {
            Dataset::from_images(samples, classes, SIZE, pixels).expect_err("refused").to_string()
        };
        assert!(refusal(vec![], two(), vec![]).contains("no samples"));
        assert!(refusal(vec![sample(0)], vec!["a".into()], vec![0; 6]).contains("1 classes"));
        assert!(refusal(vec![sample(2)], two(), vec![0; 6]).contains("label 2 of x.png"));
        assert!(refusal(vec![sample(0)], two(), vec![0; 5]).contains("5 bytes"));
        assert!(refusal(vec![sample(0), sample(1)], two(), vec![0; 12]).contains("two samples"));
    }

    #[test]
    fn indices_and_labels_out_of_range_are_errors() {
        let set = three();
        assert!(set.pixels(3).is_err());
        assert!(set.batch_f32(&[0, 3]).is_err());
        assert!(set.with_pixels([(3, vec![0; 6])]).is_err());
        assert!(set.with_pixels([(0, vec![0; 7])]).is_err());
        assert!(set.with_labels([(0, 2)]).is_err());
    }
}
