//! A child that does not outlive this process, whatever ends this process.
//!
//! Each server is the image of a small shell that, before it becomes the
//! server, leaves a watcher behind. The watcher reads from a pipe that only
//! this process can write to. A line means that the server has ended and its
//! number may belong to someone else by now; the end of the pipe, which the
//! kernel brings about even after `kill -9`, means that this process is gone.
//! (Linux has `PR_SET_PDEATHSIG` for this, but it is bound to a thread, needs
//! unsafe code, and macOS has nothing like it.)
//!
//! The child is of the standard library rather than of tokio, whose children
//! are bound to the runtime that started them; tests share servers across
//! runtimes.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;

use super::os_user::Account;
use super::processes;

/// `$1` pid file, `$2` signal, then the server and its arguments. The watcher
/// is a grandchild, so that the server does not find a child that it does not
/// know. A stopped server gets its signal only once it goes on.
const LEASH: &str = r#"
echo $$ >"$1" || exit 1
gentle=$2
shift 2
exec 3<&0 </dev/null
( (
    trap '' HUP INT QUIT TERM
    read -r ended <&3 && exit 0
    kill -s "$gentle" $$
    kill -s CONT $$
    for second in 1 2 3 4 5; do
        sleep 1
        kill -s 0 $$ || exit 0
    done
    kill -s KILL $$
) 2>/dev/null & )
exec "$@" 3<&-
"#;

/// How long a dropped server may take to end before it is killed.
const DROP_PATIENCE: Duration = Duration::from_millis(1_500);

/// A running server.
#[derive(Debug)]
pub struct GuardedChild {
    child: Child,
    rope: Option<ChildStdin>,
}

impl GuardedChild {
    /// Starts a server on a leash, in a process group of its own: Ctrl-C in a
    /// terminal reaches this process alone, which then stops all in order.
    pub fn start(
        server: &Command,
        account: Option<&Account>,
        pid_file: &Path,
        log: &Path,
        leash_signal: &str,
    ) -> anyhow::Result<Self> {
        let log = File::options()
            .append(true)
            .create(true)
            .open(log)
            .context("the log is not writable")?;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", LEASH, "leash"])
            .arg(pid_file)
            .arg(leash_signal);
        shell.arg(server.get_program()).args(server.get_args());
        only_needed_environment(&mut shell);
        shell.current_dir(server.get_current_dir().unwrap_or(Path::new("/")));
        shell
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let mut child = Account::lend(account, &mut shell)
            .spawn()
            .context("/bin/sh does not start")?;
        let rope = child.stdin.take();
        Ok(Self { child, rope })
    }

    /// The number of the server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the server ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.release();
        }
        status
    }

    /// Asks the server to end, and waits; kills it when it takes too long.
    /// Returns whether it ended by itself.
    pub async fn stop(&mut self, signal: Signal, longest: Duration) -> bool {
        if self.ended().is_some() {
            return true;
        }
        self.signal_all(Signal::CONT);
        processes::signal(self.pid(), signal);
        let begun = Instant::now();
        while begun.elapsed() < longest {
            if self.ended().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill();
        false
    }

    /// Kills the server with all its children, and waits until they are gone.
    pub fn kill(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // Stopped, it neither begets children nor collects them: the list stays
        // true while they are killed.
        processes::signal(self.pid(), Signal::STOP);
        let children = processes::children(self.pid());
        for child in &children {
            processes::signal(*child, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.release();
        processes::wait_until_gone(&children, Duration::from_secs(5));
    }

    /// Sends a signal to the server, then to its children: to stop it, this
    /// order lets no child escape.
    pub fn signal_all(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
        for child in processes::children(self.pid()) {
            processes::signal(child, signal);
        }
    }

    /// Tells the watcher that its work is done.
    fn release(&mut self) {
        if let Some(mut rope) = self.rope.take() {
            // Without a watcher there is nobody to tell.
            let _ = rope.write_all(b"ended\n");
        }
    }
}

impl Drop for GuardedChild {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // The watcher takes this for the end of this process.
        self.rope = None;
        let begun = Instant::now();
        while begun.elapsed() < DROP_PATIENCE {
            if self.ended().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }
}

/// Settings in the environment must not change a server: Postgres reads `PG*`,
/// Valkey refuses to start under a locale that the machine does not have.
pub fn only_needed_environment(command: &mut Command) {
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}
