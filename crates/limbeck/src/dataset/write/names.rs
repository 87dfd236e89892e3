//! Free file names for images that move to another class or become PNG.

use std::collections::HashSet;

/// The paths that a copy uses or may yet use.
pub(super) struct Names {
    taken: HashSet<String>,
}

impl Names {
    /// All paths of the source are taken, those that come later too.
    pub(super) fn new(paths: impl IntoIterator<Item = String>) -> Self {
        Self { taken: paths.into_iter().collect() }
    }

    /// `wanted`, or with `-2`, `-3`… before its extension the first that is free; taken from now
    /// on.
    pub(super) fn free(&mut self, wanted: String) -> String {
        let (stem, extension) = split_extension(&wanted);
        let name = (2..)
            .map(|number| format!("{stem}-{number}{extension}"))
            .find(|name| !self.taken.contains(name))
            .filter(|_| self.taken.contains(&wanted))
            .unwrap_or(wanted);
        self.taken.insert(name.clone());
        name
    }
}

/// The path with the extension `.png`; as it is if it has that, in any case.
pub(super) fn as_png(path: &str) -> String {
    let (stem, extension) = split_extension(path);
    if extension.eq_ignore_ascii_case(".png") { path.to_owned() } else { format!("{stem}.png") }
}

/// A path apart into what is before the last dot of the file name and the rest, dot included.
fn split_extension(path: &str) -> (&str, &str) {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[name..].rfind('.') {
        Some(dot) if dot > 0 => path.split_at(name + dot),
        _ => (path, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_name_stays_and_a_taken_one_gets_the_next_number() {
        let mut names = Names::new(["a/1.png".to_owned(), "a/1-2.png".to_owned()]);
        assert_eq!(names.free("a/2.png".to_owned()), "a/2.png");
        assert_eq!(names.free("a/1.png".to_owned()), "a/1-3.png");
        assert_eq!(names.free("a/1.png".to_owned()), "a/1-4.png");
    }

    #[test]
    fn only_the_extension_of_the_file_name_becomes_png() {
        for (path, png) in [
            ("a.b/c", "a.b/c.png"),
            ("a/c.jpeg", "a/c.png"),
            ("a/c.PNG", "a/c.PNG"),
            ("a/c.d.ppm", "a/c.d.png"),
            (".ppm", ".ppm.png"),
        ] {
            assert_eq!(as_png(path), png);
        }
    }
}
