//! Changes as a shell script: what people read before they agree, and may run themselves.

use std::fmt::Write as _;

use super::{Change, HostFiles, Item};

/// The script that does what `apply` does with these changes.
#[must_use]
pub fn script(files: &dyn HostFiles, plan: &[(&Item, Vec<Change>)]) -> String {
    let mut text =
        String::from("#!/bin/sh\n# Until the next restart of the host; run as root.\nset -u\n");
    for (item, changes) in plan {
        let _ = write!(text, "\n# {}: {}\n", item.name, item.why);
        for change in changes {
            let was = files.read(&change.path).unwrap_or_default();
            let _ = writeln!(
                text,
                "echo {} > {}  # was: {}",
                quoted(&change.value),
                quoted(&change.path),
                was.trim().replace('\n', " ")
            );
        }
    }
    text
}

/// For a shell, in quotes where it would read anything into it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quotes() {
        assert_eq!(quoted("/proc/sys/vm/swappiness"), "/proc/sys/vm/swappiness");
        assert_eq!(quoted("0-2,5"), "0-2,5");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
