//! Image folders: a folder for each class, its name the class name, its place in the sorted names
//! the label.
//!
//! Where `train`, `validation` (or `val`) and `test` have folders in them, they are the parts and
//! other entries are left alone; else all is the training part. A held-out part may lack a
//! class, but not add one. Images may lie in folders below the class folder.
//!
//! Files that do not look like images (`README`, `Thumbs.db`) are ignored; a file that does and
//! cannot be decoded is an error when it is read. Refused: an empty class folder, an image outside
//! any class folder, a linked folder inside a class (it could be a loop).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Entry, Layout, Part, Record, Records, gtsrb_track, list};
use crate::dataset::decode::Location;
use crate::dataset::write::Rewrite;
use crate::error::{Error, Result};

/// Extensions of images, among them formats that are not read: those are refused, not ignored.
const IMAGE_EXTENSIONS: [&str; 19] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "pnm", "ppm", "pgm", "pbm", "bmp", "webp", "gif", "tif", "tiff",
    "avif", "heic", "jp2", "ico", "tga",
];

/// Folders below a class folder are read down to this depth.
const MAX_DEPTH: usize = 32;

/// Whether `path` is a folder with class folders, or with parts that have them.
pub(super) fn detect(path: &Path) -> Result<bool> {
    Ok(path.is_dir() && list(path)?.iter().any(|entry| entry.is_dir))
}

/// An image folder whose files are listed.
pub(in crate::dataset) struct FolderLayout {
    root: PathBuf,
    classes: Vec<String>,
    parts: BTreeMap<Part, PartFolder>,
}

/// One part: its folder below the root and its files.
pub(in crate::dataset) struct PartFolder {
    /// `train/`, say, or nothing where the root itself is the part.
    pub(in crate::dataset) prefix: String,
    pub(in crate::dataset) files: Vec<ImageFile>,
}

/// A file of an image folder.
#[derive(Clone)]
pub(in crate::dataset) struct ImageFile {
    /// Relative to the root, with `/` between folders.
    pub(in crate::dataset) path: String,
    pub(in crate::dataset) label: u32,
}

impl FolderLayout {
    /// Lists the files of every part.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let folders = part_folders(root)?;
        let train = match folders.get(&Part::Train) {
            Some(folder) => root.join(folder),
            None => {
                return Err(Error::data(root, "a test part alone", "a train folder beside it"));
            }
        };
        let classes = class_names(&train)?;
        let parts = folders
            .into_iter()
            .map(|(part, prefix)| Ok((part, list_part(root, prefix, part, &classes)?)))
            .collect::<Result<_>>()?;
        Ok(Self { root: root.to_path_buf(), classes, parts })
    }

    pub(in crate::dataset) fn part(&self, part: Part) -> Option<&PartFolder> {
        self.parts.get(&part)
    }

    pub(in crate::dataset) fn root(&self) -> &Path {
        &self.root
    }
}

impl ImageFile {
    /// Reads the file, of a set below `root`.
    pub(in crate::dataset) fn read(&self, root: &Path) -> Result<Record> {
        let path = root.join(&self.path);
        Ok(Record {
            path: self.path.clone(),
            label: self.label,
            group: gtsrb_track(&self.path),
            bytes: std::fs::read(&path).map_err(Error::io("read", &path))?,
            roi: None,
            location: Location::file(&path),
        })
    }
}

impl Layout for FolderLayout {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn count(&self, part: Part) -> Option<u64> {
        self.parts.get(&part).map(|part| part.files.len() as u64)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let files = self.parts.values().flat_map(|part| &part.files);
        Ok(files.map(|file| self.root.join(&file.path)).collect())
    }

    fn records(&self, part: Part) -> Result<Records> {
        let files = self.parts.get(&part).map(|part| part.files.clone()).unwrap_or_default();
        let root = self.root.clone();
        Ok(Box::new(files.into_iter().map(move |file| file.read(&root))))
    }

    fn rewrite(&self, part: Part, job: &mut Rewrite<'_>) -> Result<()> {
        crate::dataset::write::folder::rewrite(self, part, job)
    }
}

/// The folder of each part, relative to the root and ending in `/`; empty for the root itself.
fn part_folders(root: &Path) -> Result<BTreeMap<Part, String>> {
    let folders: Vec<_> = list(root)?.into_iter().filter(|entry| entry.is_dir).collect();
    let (parts, others): (Vec<_>, Vec<_>) =
        folders.into_iter().partition(|folder| Part::named(&folder.name).is_some());
    // `train` may also be the class of railway trains: a part has folders in it.
    let has_folders =
        |folder: &Entry| list(&folder.path).map(|entries| entries.iter().any(|entry| entry.is_dir));
    let is_divided = parts.iter().map(has_folders).collect::<Result<Vec<_>>>()?.contains(&true);
    if !is_divided {
        if others.is_empty() {
            return Err(Error::data(root, "no class folder", "a folder for each class"));
        }
        return Ok(BTreeMap::from([(Part::Train, String::new())]));
    }
    let mut found = BTreeMap::new();
    for folder in parts {
        let Some(part) = Part::named(&folder.name) else { continue };
        if let Some(first) = found.insert(part, format!("{}/", folder.name)) {
            return Err(Error::data(
                root,
                format!("both {first} and {}/", folder.name),
                format!("one folder of the {part} part"),
            ));
        }
    }
    Ok(found)
}

/// The class folders of the training part, in label order.
fn class_names(train: &Path) -> Result<Vec<String>> {
    let names: Vec<_> =
        list(train)?.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect();
    match names.as_slice() {
        [] => Err(Error::data(train, "no class folder", "a folder for each class")),
        [only] => Err(Error::data(train, format!("one class ({only})"), "at least two classes")),
        _ => Ok(names),
    }
}

fn list_part(root: &Path, prefix: String, part: Part, classes: &[String]) -> Result<PartFolder> {
    let folder = root.join(&prefix);
    let mut files = Vec::new();
    for entry in list(&folder)? {
        if !entry.is_dir {
            refuse_image_outside_classes(&entry.name, &entry.path)?;
            continue;
        }
        let label = classes.iter().position(|class| *class == entry.name).ok_or_else(|| {
            Error::data(&entry.path, format!("a class of the {part} part"), "a class of train")
        })?;
        let before = files.len();
        let path = format!("{prefix}{}", entry.name);
        list_class(&entry.path, &path, label as u32, 0, &mut files)?;
        if files.len() == before {
            return Err(Error::data(&entry.path, "an empty class folder", "at least one image"));
        }
    }
    Ok(PartFolder { prefix, files })
}

fn refuse_image_outside_classes(name: &str, path: &Path) -> Result<()> {
    if !looks_like_image(name) {
        return Ok(());
    }
    Err(Error::data(path, "an image outside any class folder", "images in class folders only"))
}

/// Appends the images below a class folder, in sorted order.
fn list_class(folder: &Path, path: &str, label: u32, depth: usize, files: &mut Vec<ImageFile>) -> Result<()> {
    for entry in list(folder)? {
        let path = format!("{path}/{}", entry.name);
        if !entry.is_dir {
            if looks_like_image(&entry.name) {
                files.push(ImageFile { path, label });
            }
        } else if entry.path.is_symlink() || depth == MAX_DEPTH {
            return Err(Error::data(
                &entry.path,
                "a linked or very deep folder inside a class folder",
                format!("real folders, at most {MAX_DEPTH} deep"),
            ));
        } else {
            list_class(&entry.path, &path, label, depth + 1, files)?;
        }
    }
    Ok(())
}

fn looks_like_image(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, ext)| IMAGE_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(ext)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Source;
    use super::*;
    use crate::dataset::testing::{png, write};

    fn paths(source: &Source, part: Part) -> Vec<(String, u32)> {
        let records = source.records(part).expect("part exists");
        records.map(|r| r.expect("readable")).map(|r| (r.path, r.label)).collect()
    }

    #[test]
    fn folders_in_sorted_order_are_the_classes_and_files_come_sorted() {
        let root = tempfile::tempdir().expect("temporary folder");
        for file in ["b/2.png", "b/1.png", "a/x/3.JPEG", "a/0.png", "c/1.webp"] {
            write(root.path(), file, b"not decoded here");
        }
        for ignored in ["a/README", "a/Thumbs.db", "b/.hidden.png", "labels.csv", "__MACOSX/1.png"] {
            write(root.path(), ignored, b"ignored");
        }
        let source = Source::open(root.path()).expect("image folder");
        assert_eq!(source.classes(), ["a", "b", "c"]);
        assert_eq!(source.parts(), [Part::Train]);
        let expected = [("a/0.png", 0), ("a/x/3.JPEG", 0), ("b/1.png", 1), ("b/2.png", 1), ("c/1.webp", 2)];
        assert_eq!(paths(&source, Part::Train), expected.map(|(p, l)| (p.to_owned(), l)));
    }

    #[test]
    fn parts_share_the_classes_of_train_in_any_case_of_their_names() {
        let root = tempfile::tempdir().expect("temporary folder");
        for file in ["Train/a/1.png", "Train/b/1.png", "Test/b/1.png", "val/a/1.png", "meta/0.png"] {
            write(root.path(), file, b"not decoded here");
        }
        let source = Source::open(root.path()).expect("image folder");
        assert_eq!(source.parts(), Part::ALL);
        assert_eq!(paths(&source, Part::Test), [("Test/b/1.png".to_owned(), 1)]);
        assert_eq!(paths(&source, Part::Validation), [("val/a/1.png".to_owned(), 0)]);
    }

    #[test]
    fn faulty_trees_are_refused_by_name() {
        let cases: [(&[&str], &str); 7] = [
            (&["train/a/1.png", "train/b/1.png", "val/1.png"], "1.png: found an image outside"),
            (&["a/1.png"], "one class (a)"),
            (&["train/a/1.png", "train/b/1.png", "test/c/1.png"], "a class of the test part"),
            (&["test/a/1.png", "test/b/1.png"], "a test part alone"),
            (&["a/1.png", "b/notes.txt"], "b: found an empty class folder"),
            (&["a/1.png", "b/1.png", "loose.png"], "loose.png: found an image outside"),
            (&["train/1.png"], "no class folder"),
        ];
        for (files, message) in cases {
            let root = tempfile::tempdir().expect("temporary folder");
            files.iter().for_each(|file| write(root.path(), file, &png(0)));
            let error = Source::open(root.path()).expect_err(message).to_string();
            assert!(error.contains(message), "{error} lacks {message}");
        }
    }

    #[test]
    fn a_class_may_be_called_train() {
        let root = tempfile::tempdir().expect("temporary folder");
        for file in ["bus/1.png", "train/1.png"] {
            write(root.path(), file, b"not decoded here");
        }
        let source = Source::open(root.path()).expect("image folder");
        assert_eq!(source.classes(), ["bus", "train"]);
        assert_eq!(source.parts(), [Part::Train]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_could_loop_is_refused() {
        let root = tempfile::tempdir().expect("temporary folder");
        write(root.path(), "a/1.png", &png(0));
        write(root.path(), "b/1.png", &png(1));
        std::os::unix::fs::symlink(root.path(), root.path().join("a/loop")).expect("linkable");
        let error = Source::open(root.path()).expect_err("loop").to_string();
        assert!(error.contains("linked"), "{error}");
    }

    #[test]
    fn a_file_removed_after_listing_is_an_error_naming_it() {
        let root = tempfile::tempdir().expect("temporary folder");
        write(root.path(), "a/1.png", &png(0));
        write(root.path(), "b/1.png", &png(1));
        let source = Source::open(root.path()).expect("image folder");
        fs::remove_file(root.path().join("b/1.png")).expect("removable");
        let last = source.records(Part::Train).expect("part exists").last().expect("two records");
        assert!(last.expect_err("gone").to_string().contains("b/1.png"));
    }
}
