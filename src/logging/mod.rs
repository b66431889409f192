//! Log lines on standard error, as text or JSON, with repeats held back; and the hook that turns a
//! panic of any thread into the end of the process.

mod limiter;

use std::{
    fmt,
    io::IsTerminal,
    sync::{Mutex, TryLockError},
    time::Instant,
};

use tracing::{Event, Subscriber, error};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer},
    },
    registry::LookupSpan,
};

use crate::settings::LogFormat;
use limiter::{Limiter, Place, Verdict};

/// Sends log lines to standard error from now on. Only the first call of a process has an effect.
pub fn start(format: LogFormat, level: &str) {
    let filter = EnvFilter::builder().parse_lossy(level);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal());
            let format = Format::default().with_target(false);
            builder
                .event_format(Limited::new(format, LogFormat::Text))
                .try_init()
        }
        LogFormat::Json => {
            let format = Format::default().json().flatten_event(true);
            let fields = tracing_subscriber::fmt::format::JsonFields::new();
            builder
                .fmt_fields(fields)
                .event_format(Limited::new(format, LogFormat::Json))
                .try_init()
        }
    };
    // Somebody else in the process logs already: then their lines are as good.
    let _ = started;
}

/// From now on a panic in any thread is logged and ends the process, in every build profile: a
/// broken shard must not leave a broker behind that looks alive.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::force_capture();
        let name = thread.name().unwrap_or("unnamed");
        error!(
            thread = name,
            "the broker has a defect and ends: {panic}\n{backtrace}"
        );
        std::process::abort();
    }));
}

/// An event format that leaves out what repeats too often.
struct Limited<F> {
    inner: F,
    format: LogFormat,
    limiter: Mutex<Limiter>,
    epoch: Instant,
}

impl<F> Limited<F> {
    #[expect(
        clippy::disallowed_methods,
        reason = "log lines are written at the edge"
    )]
    fn new(inner: F, format: LogFormat) -> Self {
        Self {
            inner,
            format,
            limiter: Mutex::default(),
            epoch: Instant::now(),
        }
    }

    fn judge(&self, event: &Event<'_>) -> Verdict {
        let metadata = event.metadata();
        let Some(file) = metadata.file() else {
            return Verdict::Pass;
        };
        let place = Place {
            file,
            line: metadata.line().unwrap_or(0),
        };
        match self.limiter.try_lock() {
            Ok(mut limiter) => limiter.admit(place, self.epoch.elapsed()),
            // Never wait to log: a panic may be on its way out.
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => Verdict::Pass,
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let left_out = match self.judge(event) {
            Verdict::Drop => return Ok(()),
            Verdict::Pass => 0,
            Verdict::PassAfter(left_out) => left_out,
        };
        self.inner.format_event(context, writer.by_ref(), event)?;
        if left_out == 0 {
            return Ok(());
        }
        match self.format {
            LogFormat::Text => writeln!(writer, "  ({left_out} more like this were left out)"),
            LogFormat::Json => writeln!(
                writer,
                "{{\"level\":\"WARN\",\"message\":\"repeats of the line before were left out\",\
                 \"left_out\":{left_out}}}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Runs itself again as a child, which panics in a thread of its own.
    #[test]
    fn a_panic_in_any_thread_ends_the_process() {
        const CHILD: &str = "MILLSTREAM_TEST_PANICS";
        if std::env::var_os(CHILD).is_some() {
            start(LogFormat::Text, "info");
            abort_on_panic();
            let thread = std::thread::Builder::new().name("shard-7".to_owned());
            let _ = thread
                .spawn(|| panic!("an invariant broke"))
                .unwrap()
                .join();
            std::process::exit(0);
        }
        let test = "logging::tests::a_panic_in_any_thread_ends_the_process";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), None, "ended by a signal: {stderr}");
        assert!(stderr.contains("an invariant broke"), "{stderr}");
        assert!(stderr.contains("shard-7"), "{stderr}");
    }

    #[test]
    fn a_line_in_a_loop_is_cut_and_others_are_not() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(Limited::new(
                Format::default().with_ansi(false),
                LogFormat::Text,
            ))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..limiter::BURST + 50 {
                error!(number, "over and over");
            }
            error!("something else");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let repeats = text
            .lines()
            .filter(|line| line.contains("over and over"))
            .count();
        assert_eq!(repeats, usize::try_from(limiter::BURST).unwrap());
        assert_eq!(
            text.lines()
                .filter(|line| line.contains("something else"))
                .count(),
            1
        );
    }
}
