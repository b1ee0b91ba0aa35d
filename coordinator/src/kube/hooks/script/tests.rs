//! The scripts in real shells, with processes killed at every point: a frozen container ends unfrozen, and the
//! post-hook is not run twice without need.

use super::*;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

/// The shells that images have; one that this machine has not is left out.
const SHELLS: [&str; 3] = ["dash", "bash", "busybox sh"];

/// What stands for a container.
struct Room {
    dir: tempfile::TempDir,
    shell: &'static str,
    token: String,
    unfreeze_after: Duration,
    writable: bool,
    pre: String,
    post: String,
    watch: String,
    run: String,
}

fn rooms() -> Vec<Room> {
    let there = SHELLS.iter().filter(|shell| {
        let mut words = shell.split(' ');
        let mut command = Command::new(words.next().unwrap());
        let ran = command.args(words).args(["-c", ":"]).status();
        ran.is_ok_and(|status| status.success())
    });
    let rooms: Vec<Room> = there.map(|shell| Room::new(shell)).collect();
    assert!(!rooms.is_empty(), "a machine without any shell");
    rooms
}

impl Room {
    fn new(shell: &'static str) -> Self {
        let bytes: [u8; 16] = crate::repo::kek::random().unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            shell,
            token: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            unfreeze_after: Duration::from_secs(600),
            writable: true,
            pre: "echo freeze >> log; echo said".to_owned(),
            post: "echo unfreeze >> log".to_owned(),
            watch: String::new(),
            run: String::new(),
        }
    }

    fn command(&self, make: impl Fn(&Script<'_>) -> Vec<String>) -> Command {
        let sh = |text: &str| ["sh", "-c", text].map(str::to_owned);
        let (pre, post) = (sh(&self.pre), sh(&self.post));
        let at = self.dir.path().display().to_string();
        let words = make(&Script {
            unfreeze_after: self.unfreeze_after,
            post_timeout: Duration::from_secs(5),
            watch: &self.watch,
            run: &self.run,
            shell: self.shell,
            directories: if self.writable { &at } else { "/nowhere" },
            ..Script::new(&self.token, &pre, &post)
        });
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("TMPDIR", "/nowhere")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn freeze(&self) -> Child {
        self.command(|script| script.freeze()).spawn().unwrap()
    }

    fn unfreeze(&self) -> Vec<Mark> {
        let output = self.command(|script| script.unfreeze()).output().unwrap();
        self.marks(&output)
    }

    fn marks(&self, output: &Output) -> Vec<Mark> {
        let text = String::from_utf8_lossy(&output.stdout);
        let marks: Vec<Mark> = text
            .lines()
            .filter_map(|line| mark(line, &self.token))
            .collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!marks.is_empty(), "{}: {text} {errors}", self.shell);
        marks
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().collect::<Vec<_>>().join(" ")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join(format!(".holdfast-{}", self.token))
    }

    /// Whether any process has the token among its words.
    fn is_running(&self) -> bool {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut words = processes.map(|process| fs::read(process.path().join("cmdline")));
        words.any(|words| {
            words.is_ok_and(|words| String::from_utf8_lossy(&words).contains(&self.token))
        })
    }

    fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !so(self) {
            let log = self.log();
            assert!(
                Instant::now() < deadline,
                "{}: waited in vain until {what}: {log}",
                self.shell
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a freeze that is read until the pre-hook has ended, as the coordinator does.
    fn frozen(&mut self) -> Child {
        use std::io::{BufRead, BufReader};
        let mut child = self.freeze();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next().unwrap().unwrap();
            match mark(&line, &self.token) {
                Some(Mark::Watch(process)) => self.watch = process,
                Some(Mark::Run(process)) => self.run = process,
                Some(Mark::Pre(code)) => {
                    assert_eq!(code, 0);
                    return child;
                }
                _ => {}
            }
        }
    }
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_freeze_is_ended_once_and_nothing_is_left() {
    for mut room in rooms() {
        for writable in [true, false] {
            room.writable = writable;
            let mut frozen = room.frozen();
            assert_eq!(room.log(), "freeze");
            assert_eq!(room.unfreeze(), [Mark::Post(By::Own)], "{}", room.shell);
            assert_eq!(room.log(), "freeze unfreeze");
            // The watchdog was told, and its parent has looked after it.
            assert!(frozen.wait().unwrap().success());
            assert!(!room.is_running(), "{}", room.shell);
            assert!(!room.state().exists());
            fs::remove_file(room.dir.path().join("log")).unwrap();
        }
    }
}

#[test]
fn where_nobody_is_left_the_watchdog_ends_it() {
    for mut room in rooms() {
        for writable in [true, false] {
            room.writable = writable;
            room.unfreeze_after = Duration::from_secs(1);
            let mut frozen = room.frozen();
            kill(&mut frozen);
            room.until("it is unfrozen", |room| room.log() == "freeze unfreeze");
            if writable {
                // Whoever comes then finds that it was run.
                room.until("it is told", |room| room.state().join("ran").exists());
                room.until("its process has ended", |room| !room.is_running());
                assert_eq!(room.unfreeze(), [Mark::Post(By::Watchdog)]);
                assert_eq!(room.log(), "freeze unfreeze");
            } else {
                // It cannot be known: twice rather than never.
                assert_eq!(room.unfreeze(), [Mark::Post(By::Own)]);
            }
            fs::remove_file(room.dir.path().join("log")).unwrap();
        }
    }
}

#[test]
fn a_post_hook_that_comes_while_the_pre_hook_runs_ends_that_first() {
    for kills_wrapper in [false, true] {
        for mut room in rooms() {
            room.pre = "echo freeze >> log; exec sleep 600".to_owned();
            let mut child = room.freeze();
            room.until("it is frozen", |room| room.log() == "freeze");
            if kills_wrapper {
                kill(&mut child);
            }
            assert_eq!(room.unfreeze(), [Mark::Post(By::Own)], "{}", room.shell);
            assert_eq!(room.log(), "freeze unfreeze", "{}", room.shell);
            child.wait().unwrap();
        }
    }
}

#[test]
fn one_that_cannot_be_ended_is_unfrozen_again_after_it() {
    for mut room in rooms() {
        // It ends late, in spite of every signal that can be caught, and freezes as its last act.
        room.pre = "trap '' TERM; touch began; sleep 1; echo freeze >> log".to_owned();
        let child = room.freeze();
        room.until("it has begun", |room| {
            room.dir.path().join("began").exists()
        });
        let marks = room.unfreeze();
        assert!(marks == [Mark::Post(By::Own)], "{}: {marks:?}", room.shell);
        child.wait_with_output().unwrap();
        assert!(
            room.log().ends_with("unfreeze"),
            "{}: {}",
            room.shell,
            room.log()
        );
    }
}

#[test]
fn a_post_hook_that_dies_half_way_is_run_again_by_the_watchdog() {
    for mut room in rooms() {
        room.unfreeze_after = Duration::from_secs(2);
        let mut frozen = room.frozen();
        // Of this process, and of everything that it started, nothing is left.
        let post = std::mem::replace(&mut room.post, "touch began; exec sleep 600".to_owned());
        let mut dies = room.command(|script| script.unfreeze()).spawn().unwrap();
        room.until("the post-hook has begun", |room| {
            room.dir.path().join("began").exists()
        });
        kill(&mut dies);
        room.post = post;
        // The watchdog has the post-hook that it was given; another one that comes breaks the lock likewise.
        room.until("it is unfrozen", |room| room.log() == "freeze unfreeze");
        frozen.wait().unwrap();
        assert_eq!(room.unfreeze(), [Mark::Post(By::Watchdog)]);
    }
}

#[test]
fn two_that_come_together_run_it_once() {
    for mut room in rooms() {
        room.post = "sleep 1; echo unfreeze >> log".to_owned();
        let mut frozen = room.frozen();
        let others: Vec<Child> = (0..3)
            .map(|_| room.command(|script| script.unfreeze()).spawn().unwrap())
            .collect();
        let mut own = 0;
        for other in others {
            let output = other.wait_with_output().unwrap();
            own += usize::from(room.marks(&output) == [Mark::Post(By::Own)]);
        }
        assert_eq!(
            room.log().matches("unfreeze").count(),
            own,
            "{}: {}",
            room.shell,
            room.log()
        );
        // The last may come after the first has cleared everything away.
        assert!((1..=2).contains(&own), "{}: {own}", room.shell);
        frozen.wait().unwrap();
    }
}

#[test]
fn a_failed_post_hook_is_told_and_can_be_tried_again() {
    for mut room in rooms() {
        room.post = "if [ -e fails ]; then exit 7; fi; echo unfreeze >> log".to_owned();
        let mut frozen = room.frozen();
        fs::write(room.dir.path().join("fails"), "").unwrap();
        assert_eq!(room.unfreeze(), [Mark::Failed(7)]);
        fs::remove_file(room.dir.path().join("fails")).unwrap();
        assert_eq!(room.unfreeze(), [Mark::Post(By::Own)]);
        assert_eq!(room.log(), "freeze unfreeze");
        frozen.wait().unwrap();
    }
}

#[test]
fn a_pre_hook_that_fails_says_its_code_and_output() {
    for mut room in rooms() {
        room.pre = "echo freeze >> log; echo why >&2; exit 3".to_owned();
        let child = room.freeze();
        room.until("it has ended", |room| room.state().join("over").exists());
        assert_eq!(room.unfreeze(), [Mark::Post(By::Own)]);
        let output = child.wait_with_output().unwrap();
        assert_eq!(room.marks(&output), [Mark::Pre(3)]);
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "why\n",
            "{}",
            room.shell
        );
        // A post-hook without any pre-hook is simply run.
        room.token.push('0');
        assert_eq!(room.unfreeze(), [Mark::Post(By::Own)]);
        assert_eq!(room.log(), "freeze unfreeze unfreeze");
    }
}

#[test]
fn commands_reach_their_programs_as_they_are() {
    let words = ["printf", "%s|", "it's", "$HOME", "a\nb", "`id`", "", "\\"].map(str::to_owned);
    for room in rooms() {
        let output = {
            let at = room.dir.path().display().to_string();
            let script = Script {
                shell: room.shell,
                directories: &at,
                ..Script::new(&room.token, &[], &words)
            };
            let command = script.unfreeze();
            Command::new(&command[0])
                .args(&command[1..])
                .output()
                .unwrap()
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.starts_with("it's|$HOME|a\nb|`id`||\\|"),
            "{}: {text}",
            room.shell
        );
    }
    // The address of a request holds it, also behind a proxy that allows 8 KiB.
    let text = Script::new("0123456789abcdef0123456789abcdef", &words, &words)
        .freeze()
        .concat();
    assert!(text.len() < 5000, "{}", text.len());
}

#[test]
fn only_lines_with_the_token_are_marks() {
    for (line, expected) in [
        ("holdfast-ab pre 0", Some(Mark::Pre(0))),
        (
            "holdfast-ab watch 12:34",
            Some(Mark::Watch("12:34".to_owned())),
        ),
        ("holdfast-ab post watchdog", Some(Mark::Post(By::Watchdog))),
        ("holdfast-ab again", Some(Mark::Again)),
        ("holdfast-abc pre 0", None),
        ("holdfast-ab pre x", None),
        (" holdfast-ab pre 0", None),
        ("holdfast-ab", None),
    ] {
        assert_eq!(mark(line, "ab"), expected, "{line}");
    }
}
