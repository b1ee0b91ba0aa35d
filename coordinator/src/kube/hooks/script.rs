//! The commands that freeze a container so that it cannot stay frozen: the pre-hook leaves a watchdog there that
//! runs the post-hook if nobody else does. Pure; `script/watchdog.sh` says how it works.
//!
//! Where it is in doubt whether the post-hook was run, it is run again: twice rather than never.

use std::time::Duration;

const WATCHDOG: &str = include_str!("script/watchdog.sh");
/// Where the state may be kept, best first. A file system that the hook freezes takes no directory any more: what
/// is in memory comes first, the working directories of programs last.
const DIRECTORIES: &str = "/dev/shm /run /tmp /var/tmp";
/// What every image that has a shell has it under.
const SHELL: &str = "/bin/sh";

/// A freeze and its end.
#[derive(Debug, Clone)]
pub struct Script<'a> {
    /// A random word that is the run's own.
    pub token: &'a str,
    /// The pre-hook.
    pub pre: &'a [String],
    /// The post-hook.
    pub post: &'a [String],
    /// When the watchdog runs the post-hook.
    pub unfreeze_after: Duration,
    /// How long the post-hook may take.
    pub post_timeout: Duration,
    /// Of a container in which no directory can be written: the watchdog, as the pre-hook named it.
    pub watch: &'a str,
    /// And the process of the pre-hook.
    pub run: &'a str,
    /// The shell; another than /bin/sh only in tests.
    pub shell: &'a str,
    /// The directories for the state.
    pub directories: &'a str,
}

impl<'a> Script<'a> {
    /// A freeze and its end, in a container of which nothing else is known.
    pub fn new(token: &'a str, pre: &'a [String], post: &'a [String]) -> Self {
        Self {
            token,
            pre,
            post,
            unfreeze_after: Duration::from_secs(600),
            post_timeout: Duration::from_secs(30),
            watch: "",
            run: "",
            shell: SHELL,
            directories: DIRECTORIES,
        }
    }

    /// The command that starts the watchdog and runs the pre-hook. It goes on until the watchdog has ended.
    pub fn freeze(&self) -> Vec<String> {
        self.command("pre")
    }

    /// The command that runs the post-hook unless the watchdog has, and ends the watchdog.
    pub fn unfreeze(&self) -> Vec<String> {
        self.command("post")
    }

    fn command(&self, mode: &str) -> Vec<String> {
        let mut command: Vec<String> = self.shell.split(' ').map(str::to_owned).collect();
        let rest = ["-c", "eval \"$1\"", "holdfast", &self.text(), mode];
        command.extend(rest.map(str::to_owned));
        command
    }

    fn text(&self) -> String {
        let seconds = |span: Duration| span.as_secs() + u64::from(span.subsec_nanos() > 0);
        let mut text = format!(
            "T={} A={} L={} H={} D={} W={} P={}\npre(){{\nexec {}\n}}\npost(){{\nexec {}\n}}\n",
            quoted(self.token),
            seconds(self.unfreeze_after),
            seconds(self.post_timeout),
            quoted(self.shell),
            quoted(self.directories),
            quoted(self.watch),
            quoted(self.run),
            words(self.pre),
            words(self.post),
        );
        let lines = WATCHDOG.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn words(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// A word that a shell reads as exactly this.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What a script says of itself among the output of the hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The pre-hook has ended with this code.
    Pre(i32),
    /// No directory can be written; the watchdog is this process.
    Watch(String),
    /// And the pre-hook this.
    Run(String),
    /// The watchdog could not be started; the pre-hook was not run.
    NoWatchdog,
    /// The image has no `sleep` or no `mkdir`; the pre-hook was not run.
    NoSleep,
    /// The post-hook was run.
    Post(By),
    /// It failed with this code.
    Failed(i32),
    /// It was run while the pre-hook could not be ended: it has to be run again.
    Again,
}

/// Who ran the post-hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The one who was asked to.
    Own,
    /// The watchdog, or an earlier attempt.
    Watchdog,
}

/// Reads a line of output; `None`: it is the hook's.
pub fn mark(line: &str, token: &str) -> Option<Mark> {
    let rest = line.strip_prefix("holdfast-")?.strip_prefix(token)?;
    let mut words = rest.strip_prefix(' ')?.split(' ');
    let (word, value) = (words.next()?, words.next());
    Some(match (word, value) {
        ("pre", Some(code)) => Mark::Pre(code.parse().ok()?),
        ("watch", Some(process)) => Mark::Watch(process.to_owned()),
        ("run", Some(process)) => Mark::Run(process.to_owned()),
        ("nowatch", None) => Mark::NoWatchdog,
        ("nosleep", None) => Mark::NoSleep,
        ("post", Some("own")) => Mark::Post(By::Own),
        ("post", Some("watchdog")) => Mark::Post(By::Watchdog),
        ("failed", Some(code)) => Mark::Failed(code.parse().ok()?),
        ("again", None) => Mark::Again,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
