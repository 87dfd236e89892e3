use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::dataset::testing::{Row, batch, huggingface, image_folder, row, write_parquet};
use crate::dataset::{SampleId, testing};

const SIZE: ImageSize = ImageSize { width: 4, height: 4 };

fn load(source: &Source, part: Part) -> Result<Dataset> {
    Dataset::load(source, part, SIZE, &mut |_, _| {})
}

#[test]
fn each_layout_loads_with_ids_of_path_and_encoded_bytes() {
    for root in testing::one_of_each_layout() {
        let source = Source::open(root.path()).expect("fixture");
        let set = load(&source, Part::Train).expect("fixture");
        assert_eq!(Some(set.len() as u64), source.count(Part::Train));
        for (sample, record) in set.samples().iter().zip(source.records(Part::Train).expect("train")) {
            let record = record.expect("readable");
            assert_eq!(sample.id, SampleId::of(&record.path, &record.bytes));
            assert_eq!((&sample.path, sample.label), (&record.path, record.label));
        }
    }
}

#[test]
fn pixels_are_those_of_the_file_at_the_index() {
    let root = image_folder();
    let source = Source::open(root.path()).expect("fixture");
    let set = load(&source, Part::Train).expect("fixture");
    assert_eq!(set.samples()[2].path, "train/dog/0.png");
    assert_eq!(set.pixels(2).expect("in range")[..16], (20..36).collect::<Vec<u8>>());
}

#[test]
fn progress_starts_at_nothing_and_ends_at_the_total() {
    let source = Source::embedded().expect("built in");
    let mut heard = Vec::new();
    let mut observer = |done, total| heard.push((done, total));
    let set = Dataset::load(&source, Part::Train, SIZE, &mut observer).expect("built in");
    let total = set.len() as u64;
    assert_eq!(heard.first(), Some(&(0, Some(total))));
    assert_eq!(heard.last(), Some(&(total, Some(total))));
    assert!(heard.is_sorted() && heard.len() > 3, "{heard:?}");
}

#[test]
fn the_embedded_sample_has_every_class_in_seven_tracks_and_no_known_duplicate() {
    let source = Source::embedded().expect("built in");
    let train = load(&source, Part::Train).expect("built in");
    let test = load(&source, Part::Test).expect("built in");
    let mut tracks: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for sample in train.samples() {
        let track = sample.group.as_deref().expect("every training image has a track");
        assert!(sample.path.contains(track));
        assert_ne!(track, "00014_00023");
        tracks.entry(sample.label).or_default().insert(track);
    }
    assert_eq!(tracks.len(), 43);
    assert!(tracks.values().all(|tracks| tracks.len() >= 7));
    let classes: BTreeSet<_> = test.samples().iter().map(|sample| sample.label).collect();
    assert_eq!(classes.len(), 43);
    let pixels = |set: &Dataset| -> BTreeSet<Vec<u8>> {
        (0..set.len()).map(|index| set.pixels(index).expect("in range")).collect()
    };
    let size = ImageSize::default();
    let full = |part| Dataset::load(&source, part, size, &mut |_, _| {}).expect("built in");
    assert!(pixels(&full(Part::Train)).is_disjoint(&pixels(&full(Part::Test))));
}

#[test]
fn a_second_copy_an_empty_part_and_one_class_are_refused() {
    let refusal = |rows: &[Row], names: &[&str]| {
        let root = tempfile::tempdir().expect("temporary folder");
        write_parquet(root.path(), "train.parquet", &batch(rows, Some(huggingface(names))));
        let source = Source::open(root.path()).expect("schema is fine");
        load(&source, Part::Train).expect_err("refused").to_string()
    };
    let one = row(0, "a.png", 0);
    let error = refusal(&[one.clone(), row(1, "b.png", 1), one.clone()], &["cat", "dog"]);
    assert!(error.contains("row 2") && error.contains("second copy of a.png"), "{error}");
    assert!(refusal(&[], &["cat", "dog"]).contains("an empty train part"));
    assert!(refusal(&[one], &["cat"]).contains("one class (cat)"));
}

#[test]
fn of_several_undecodable_images_the_first_is_named() {
    let bad = |path| Row { bytes: Some(b"no image".to_vec()), ..row(0, path, 1) };
    let root = tempfile::tempdir().expect("temporary folder");
    let rows = [row(0, "a", 0), bad("b"), row(1, "c", 1), bad("d")];
    write_parquet(root.path(), "train.parquet", &batch(&rows, None));
    let source = Source::open(root.path()).expect("schema is fine");
    for _ in 0..8 {
        let error = load(&source, Part::Train).expect_err("undecodable").to_string();
        assert!(error.contains("row 1") && error.contains("found text"), "{error}");
    }
}

#[test]
fn chunks_end_by_count_and_by_bytes() {
    let record = |bytes| Record {
        path: String::new(),
        label: 0,
        group: None,
        bytes: vec![0; bytes],
        roi: None,
        location: super::super::Location::file("x"),
    };
    let mut small = std::iter::repeat_with(|| Ok(record(1)));
    assert_eq!(next_chunk(&mut small).expect("no fault").len(), CHUNK_RECORDS);
    let mut large = std::iter::repeat_with(|| Ok(record(CHUNK_BYTES / 2)));
    assert_eq!(next_chunk(&mut large).expect("no fault").len(), 2);
    assert!(next_chunk(&mut std::iter::empty()).expect("no fault").is_empty());
}

#[test]
fn a_text_file_named_png_is_an_error_naming_it() {
    let root = image_folder();
    testing::write(root.path(), "train/cat/notes.png", b"remember the milk");
    let source = Source::open(root.path()).expect("listing does not decode");
    let error = load(&source, Part::Train).expect_err("text").to_string();
    assert!(error.contains("train/cat/notes.png: found text"), "{error}");
}

/// Over the real set, where `LIMBECK_DATA` names the folder with `gtsrb/` and `gtsrb-sample/`.
#[test]
fn the_complete_benchmark_has_its_published_counts() {
    let Some(data) = std::env::var_os("LIMBECK_DATA").map(std::path::PathBuf::from) else {
        eprintln!("skipped: LIMBECK_DATA is not set");
        return;
    };
    let source = Source::open(data.join("gtsrb")).expect("gtsrb parquet");
    let size = ImageSize::default();
    // Counts of Stallkamp et al. 2012, section 3.
    for (part, count) in [(Part::Train, 39_209), (Part::Test, 12_630)] {
        let set = Dataset::load(&source, part, size, &mut |_, _| {}).expect("gtsrb parquet");
        assert_eq!((set.len(), set.classes().len()), (count, 43));
    }
    let folder = Source::open(data.join("gtsrb-sample")).expect("image folder");
    let set = Dataset::load(&folder, Part::Train, size, &mut |_, _| {}).expect("image folder");
    assert_eq!((set.len(), set.classes().len()), (430, 43));
    assert!(set.samples().iter().all(|sample| sample.group.is_some()));
}
