//! The host's files that items look at and change, below a root, so that a test has a host of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Files of `/proc` and `/sys` by their usual paths.
pub trait HostFiles {
    /// The whole text.
    ///
    /// # Errors
    /// It is not there, or may not be read.
    fn read(&self, path: &str) -> io::Result<String>;

    /// Names in a directory, sorted; none if it is not there.
    fn list(&self, path: &str) -> Vec<String>;

    /// Sets a value, as `echo VALUE > PATH` does.
    ///
    /// # Errors
    /// The kernel refuses the value, or this user.
    fn write(&self, path: &str, value: &str) -> io::Result<()>;
}

/// A tree of files: the host's own below `/`, or another.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl HostFiles for Tree {
    fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.path(path))
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }

    /// One write call of the whole value: the kernel takes each call for a value of its own. It
    /// must exist already: what this kernel does not have cannot be set.
    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        use io::Write as _;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.path(path))?;
        let line = format!("{}\n", value.trim_end_matches('\n'));
        let written = file.write(line.as_bytes())?;
        match written == line.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// What is chosen in a file that shows all choices, as `none [mq-deadline] kyber`; otherwise its text.
#[must_use]
pub(super) fn chosen(text: &str) -> &str {
    let bracketed = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or(text.trim(), |(word, _)| word)
}

/// `0-2,5` as a sorted list; none if that is not what it is.
#[must_use]
pub(super) fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= 1 << 16 {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// `0-2,5` from a sorted list.
#[must_use]
pub(super) fn show_cpu_list(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let shown = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// A mask of CPUs as the kernel writes it, `ff,00000000`: 32 in each word, the highest first.
#[must_use]
pub(super) fn cpus_of_mask(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for (word, digits) in text.trim().rsplit(',').enumerate() {
        let bits = u32::from_str_radix(digits, 16).ok()?;
        cpus.extend(
            (0..32)
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit| word * 32 + bit),
        );
    }
    Some(cpus)
}

/// The other way round.
#[must_use]
pub(super) fn mask_of_cpus(cpus: &[usize]) -> String {
    let count = cpus.iter().max().map_or(1, |cpu| cpu / 32 + 1);
    let mut words = vec![0_u32; count];
    for cpu in cpus {
        words[cpu / 32] |= 1 << (cpu % 32);
    }
    let mut shown = words.iter().rev();
    let first = format!("{:x}", shown.next().unwrap_or(&0));
    shown.fold(first, |text, word| format!("{text},{word:08x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() {
        assert_eq!(chosen("none [mq-deadline] kyber\n"), "mq-deadline");
        assert_eq!(chosen("[none]\n"), "none");
        assert_eq!(chosen("powersave\n"), "powersave");
    }

    #[test]
    fn lists_and_masks_of_cpus() {
        assert_eq!(cpu_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(cpu_list("\n"), Some(vec![]));
        assert_eq!(cpu_list("0-"), None);
        assert_eq!(cpu_list("0-99999999"), None);
        assert_eq!(show_cpu_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(cpus_of_mask("00000003\n"), Some(vec![0, 1]));
        assert_eq!(cpus_of_mask("1,80000000"), Some(vec![31, 32]));
        assert_eq!(cpus_of_mask("x"), None);
        assert_eq!(mask_of_cpus(&[0, 1]), "3");
        assert_eq!(mask_of_cpus(&[31, 32]), "1,80000000");
        assert_eq!(mask_of_cpus(&[]), "0");
    }
}
