//! The terminal: lines for people, and one live line below them while something is under way. In a
//! pipe there are only the lines.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// Where people's lines go.
#[derive(Debug)]
pub struct Console {
    /// Standard output is for JSON: people's lines go to standard error.
    quiet_stdout: bool,
    bar: Option<ProgressBar>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// Until so many records.
    Records(u64),
    /// So long.
    Time(Duration),
    /// Until somebody stops it.
    Unknown,
}

impl Console {
    /// A console; people's lines go to standard error if the JSON goes to standard output.
    #[must_use]
    pub fn new(json: Option<&Path>) -> Self {
        Self {
            quiet_stdout: json == Some(Path::new("-")),
            bar: None,
        }
    }

    /// A live line for a run, where standard error is a terminal.
    pub fn begin(&mut self, length: Length) {
        self.end();
        if !io::stderr().is_terminal() {
            return;
        }
        let bar = match length {
            Length::Records(records) => ProgressBar::new(records),
            Length::Time(duration) => ProgressBar::new(duration.as_secs().max(1)),
            Length::Unknown => ProgressBar::no_length(),
        };
        let template = match length {
            Length::Unknown => "{spinner} {elapsed}  {msg}",
            Length::Records(_) | Length::Time(_) => "{bar:24} {elapsed} gone, {eta} left  {msg}",
        };
        let style = ProgressStyle::with_template(template);
        self.bar = Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
    }

    /// What the live line says.
    pub fn progress(&self, done: u64, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message);
        }
    }

    /// The live line goes.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A line.
    pub fn say(&self, line: &str) {
        let write = || {
            if self.quiet_stdout {
                eprintln!("{line}");
            } else {
                // A reader that has gone, as `head` does, is no reason to stop.
                let _ = writeln!(io::stdout(), "{line}");
            }
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}
