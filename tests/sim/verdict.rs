//! What is said of a history that breaks an invariant: which, where, the end of what happened there, and
//! where all of it can be read.

use std::{any::Any, fmt::Write as _, fs, path::Path};

use crate::{history::History, invariants::broken_by, seeds};

/// Lines of the trace that are shown.
const LINES: usize = 60;
/// Findings that are shown.
const FINDINGS: usize = 8;

/// Judges a history, and the panic that ended it if one did.
///
/// # Panics
/// If either is anything.
pub fn on(history: &History, panic: Option<&Box<dyn Any + Send>>) {
    let found = broken_by(history);
    if found.is_empty() && panic.is_none() {
        return;
    }
    let mut text = String::new();
    match found.first() {
        Some(first) => _ = writeln!(text, "broken invariant: {}", first.invariant),
        None => _ = writeln!(text, "broken invariant: the simulation runs to its end"),
    }
    for one in found.iter().take(FINDINGS) {
        let place = one
            .at
            .map_or_else(String::new, |at| history.place(at) + ": ");
        let _ = writeln!(text, "  {}: {place}{}", one.invariant, one.message);
    }
    if found.len() > FINDINGS {
        let _ = writeln!(text, "  and {} more", found.len() - FINDINGS);
    }
    if let Some(panic) = panic {
        let _ = writeln!(text, "  panic: {}", said(panic.as_ref()));
    }
    let about = found.first().and_then(|first| first.at);
    let _ = writeln!(text, "the end of what happened there:");
    text += &history.trace_of(about, LINES);
    if let Some((test, seed)) = seeds::current() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sim-{test}-{seed}.trace"));
        match fs::write(&path, history.trace()) {
            Ok(()) => _ = writeln!(text, "all of it: {}", path.display()),
            Err(error) => _ = writeln!(text, "{} can't be written: {error}", path.display()),
        }
    }
    panic!("{text}");
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("something that is no text")
}
