//! A child process that does not outlive this process, however this process ends.
//!
//! Each server starts as a small shell. Before the shell replaces itself with the
//! server, it starts a watcher. The watcher reads from a pipe that only this process
//! can write to. A line in the pipe means that the server has exited and that
//! another process may have its pid. The end of the pipe means that this process has
//! ended: the kernel closes the pipe even after `kill -9`. The watcher then stops the
//! server. (Linux has `PR_SET_PDEATHSIG` for this purpose, but it is bound to a
//! thread and needs unsafe code, and macOS has no equivalent.)
//!
//! The child is a child of the standard library. A child of tokio is bound to the
//! runtime that started it, and tests share servers across runtimes.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;

use super::os_user::OsUser;
use super::{own_files, processes};

/// `$1` is the first signal; the server and its arguments follow. The watcher is a grandchild, because a server could mishandle a child
/// that it did not start. A suspended server receives the signal only after
/// SIGCONT.
const GUARD_SCRIPT: &str = r#"
gentle=$1
shift
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

/// How long a dropped server may take to exit before it is killed.
const DROP_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long the children of a killed server may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A running server.
#[derive(Debug)]
pub struct GuardedChild {
    child: Child,
    /// The end of the watcher's pipe that this process holds; `None` once the
    /// watcher is released.
    watch_pipe: Option<ChildStdin>,
}

impl GuardedChild {
    /// Starts a server in a process group of its own. Ctrl-C in a terminal then
    /// reaches only this process, which stops the servers in order. `orphan_signal`
    /// is the signal that the watcher sends once this process has ended.
    pub fn start(
        server: &Command,
        os_user: Option<&OsUser>,
        pid_file: &Path,
        log: &Path,
        orphan_signal: &str,
    ) -> anyhow::Result<Self> {
        let log = own_files::open_or_create(log)?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", GUARD_SCRIPT, "guard"]).arg(orphan_signal);
        shell.arg(server.get_program()).args(server.get_args());
        clear_environment(&mut shell);
        shell.current_dir(server.get_current_dir().unwrap_or(Path::new("/")));
        shell
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let mut child = OsUser::run_as(os_user, &mut shell)
            .spawn()
            .context("cannot run /bin/sh")?;
        let watch_pipe = child.stdin.take();
        let guarded = Self { child, watch_pipe };
        own_files::write_secret(pid_file, &guarded.pid().to_string(), None)?;
        Ok(guarded)
    }

    /// The pid of the server: the shell replaces itself, so the pid stays the same.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `None` while the server runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.release_watcher();
        }
        status
    }

    /// Signals the server and waits until it exits. Kills it after `timeout`.
    /// Returns `false` if it was killed.
    pub async fn stop(&mut self, signal: Signal, timeout: Duration) -> bool {
        if self.exit_status().is_some() {
            return true;
        }
        self.signal_all(Signal::CONT);
        processes::signal(self.pid(), signal);
        let started = Instant::now();
        while started.elapsed() < timeout {
            if self.exit_status().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill();
        false
    }

    /// Kills the server and its children, and waits until all have exited.
    pub fn kill(&mut self) {
        if self.exit_status().is_some() {
            return;
        }
        // A suspended server neither starts children nor collects their exits, so
        // the list stays correct while they are killed.
        processes::signal(self.pid(), Signal::STOP);
        let children = processes::children(self.pid());
        for child in &children {
            processes::signal(*child, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.release_watcher();
        processes::wait_until_gone(&children, KILL_TIMEOUT);
    }

    /// Sends a signal to the server and then to its children. In this order,
    /// SIGSTOP reaches every child: a suspended server starts no more.
    pub fn signal_all(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
        for child in processes::children(self.pid()) {
            processes::signal(child, signal);
        }
    }

    /// Ends the watcher after the server has exited.
    fn release_watcher(&mut self) {
        if let Some(mut pipe) = self.watch_pipe.take() {
            // An error means that the watcher has already ended.
            let _ = pipe.write_all(b"ended\n");
        }
    }
}

impl Drop for GuardedChild {
    fn drop(&mut self) {
        if self.exit_status().is_some() {
            return;
        }
        // The watcher takes the end of the pipe for the end of this process, and
        // stops the server.
        self.watch_pipe = None;
        let started = Instant::now();
        while started.elapsed() < DROP_TIMEOUT {
            if self.exit_status().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }
}

/// Removes all variables except the necessary ones, because variables can change a
/// server: Postgres reads `PG*`, and Valkey does not start with a locale that the
/// machine lacks.
pub fn clear_environment(command: &mut Command) {
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC");
    for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}
