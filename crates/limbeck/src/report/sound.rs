//! What every page must be, for the tests of all of them.

/// Text between angle brackets, in order.
pub(super) fn tags(page: &str) -> impl Iterator<Item = &str> {
    page.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag)
}

/// Panics, naming the page, where a tag is left open or closed out of turn, where something is asked for outside the page, and where a figure is not finite.
pub(super) fn assert_sound(name: &str, page: &str) {
    let mut open = Vec::new();
    for tag in tags(page).filter(|tag| !tag.starts_with('!') && !tag.ends_with('/')) {
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "{name}: </{closed}>"),
            None => open.push(tag.split_whitespace().next().unwrap_or_default()),
        }
    }
    assert!(open.is_empty(), "{name}: {open:?} left open");
    for word in ["<script", "<link", "@import", "url(", "<iframe", "srcset", "onload"] {
        assert!(!page.contains(word), "{name}: {word} asks for something outside");
    }
    let mut sources = page.split("src=\"").skip(1);
    assert!(sources.all(|source| source.starts_with("data:image/png;base64,")), "{name}: a picture outside");
    for word in ["NaN", "inf<", "inf ", "∞<", ">none</td>", ">null</td>"] {
        assert!(!page.contains(word), "{name}: {word:?} on the page");
    }
}
