//! How far a run has come: a bar with rate and remaining time on a terminal, a line every ten seconds
//! elsewhere, nothing with `--quiet`. All of it goes to standard error.

use crate::output::bytes;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::future::Future;
use std::io::IsTerminal;
use std::pin::pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(10);

/// A run's progress; clones are not needed, all methods take `&self`.
pub struct Progress {
    shown: Shown,
    what: String,
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines(Mutex<Instant>, Instant),
}

impl Progress {
    /// Progress of `what` ("backup of web").
    pub fn new(what: impl Into<String>, quiet: bool) -> Self {
        let what = what.into();
        let shown = if quiet {
            Shown::Nothing
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            bar.set_style(spinner());
            bar.set_prefix(short(&what));
            bar.enable_steady_tick(Duration::from_millis(200));
            Shown::Bar(bar)
        } else {
            let now = Instant::now();
            Shown::Lines(Mutex::new(now), now)
        };
        Self { shown, what }
    }

    /// Files and bytes done so far; a total of 0 is not known.
    pub fn update(&self, files: u64, done_bytes: u64, total_bytes: u64) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                if total_bytes > 0 && bar.length() != Some(total_bytes) {
                    bar.set_length(total_bytes);
                    bar.set_style(full_bar());
                }
                bar.set_position(done_bytes);
                bar.set_message(format!("{files} files"));
            }
            Shown::Lines(last, start) => {
                let Ok(mut last) = last.lock() else { return };
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    let seconds = start.elapsed().as_secs().max(1);
                    let of = if total_bytes > 0 {
                        format!(" of {}", bytes(total_bytes))
                    } else {
                        String::new()
                    };
                    eprintln!(
                        "{}: {files} files, {}{of}, {}/s",
                        self.what,
                        bytes(done_bytes),
                        bytes(done_bytes / seconds)
                    );
                }
            }
        }
    }

    /// Objects done so far, where bytes are not known.
    pub fn count(&self, objects: u64) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_message(format!("{objects} objects"));
        }
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    /// Shows how far an agent's work has come until it ends.
    pub async fn follow<T>(
        &self,
        progress: &holdfast_agent::Progress,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = pin!(work);
        let mut looks = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                done = &mut work => {
                    self.finish();
                    return done;
                }
                _ = looks.tick() => {
                    let view = progress.view();
                    self.update(view.done_files, view.done_bytes, view.total_bytes);
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What fits beside the numbers on 80 columns: the end of a volume's name says most.
fn short(what: &str) -> String {
    const HEAD: usize = 10;
    const TAIL: usize = 15;
    let count = what.chars().count();
    if count <= HEAD + TAIL + 1 {
        return what.to_owned();
    }
    let head = what.chars().take(HEAD);
    head.chain(['…'])
        .chain(what.chars().skip(count - TAIL))
        .collect()
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {spinner} {bytes} {bytes_per_sec} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn full_bar() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix} [{wide_bar}] {percent}% {bytes} {bytes_per_sec}{remaining}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
    .with_key("remaining", |state: &ProgressState, out: &mut dyn Write| {
        // A bar that cannot be drawn is no reason to stop.
        let _ = out.write_str(&remaining(state.per_sec(), state.eta()));
    })
    .progress_chars("=> ")
}

/// Nothing is known of the end of what does not move.
fn remaining(per_second: f64, eta: Duration) -> String {
    if per_second < 1.0 {
        String::new()
    } else {
        format!(" eta {:#}", HumanDuration(eta))
    }
}

#[cfg(test)]
mod tests {
    use super::{remaining, short};
    use std::time::Duration;

    #[test]
    fn what_stands_still_has_no_end() {
        assert_eq!(remaining(0.0, Duration::ZERO), "");
        assert_eq!(remaining(5.0, Duration::from_secs(3)), " eta 3s");
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(short("backup of web"), "backup of web");
        let long = short("backup of production/database-with-a-long-name-0");
        assert_eq!(long, "backup of …h-a-long-name-0");
        assert_eq!(long.chars().count(), 26);
    }
}
