//! How long a developer waits: the first build of `make run`, and a build of the
//! development profile after a change of one line in the server. Both build a copy of the
//! sources in a target folder of their own. Dependencies must have been downloaded.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::Bench;
use crate::bars::Bar;
use crate::report::{Findings, Row, median};
use crate::usage::{Meter, Span};

/// Folders of the repository that are not sources.
const LEFT_OUT: [&str; 3] = [".git", "target", "node_modules"];

/// The file of the server that changes.
const CHANGED: &str = "services/server/src/lib.rs";

/// Changes that are measured.
const CHANGES: usize = 3;

/// Longest time of a build.
const TIMEOUT: Duration = Duration::from_mins(30);

/// The copy of the sources, which is deleted when this is dropped.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub async fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Findings> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let sources = sources.context("the sources have no folder")?;
    // In the target folder: the folder for temporary files may be in memory.
    let executable = crate::executable()?;
    let copy = Copy(executable.with_file_name("first-build"));
    let _ = std::fs::remove_dir_all(&copy.0);
    copy_folder(sources, &copy.0).context("copying the sources failed")?;

    bench.print("first build of `make run`");
    let first = build(&copy.0, &["--profile", "local"]).await?;
    bench.print("first build of the development profile");
    build(&copy.0, &[]).await?;
    let mut changes = Vec::new();
    for n in 1..=CHANGES {
        bench.print(&format!("build after change {n} of {CHANGES}"));
        let file = copy.0.join(CHANGED);
        let mut text = std::fs::read_to_string(&file)?;
        let _ = writeln!(text, "const _: usize = {n};");
        std::fs::write(&file, text)?;
        changes.push(build(&copy.0, &[]).await?);
    }

    let minutes = first.length.as_secs_f64() / 60.0;
    let seconds = median(changes.iter().map(|change| change.length.as_secs_f64()));
    let change = Span::sum(&changes);
    Ok(Findings {
        rows: vec![
            Row::new(crate::Part::Build.title(), format!("{minutes:.1} min"))
                .bar(Bar::FirstBuild, minutes)
                .limit(first.limit("crates that wait for others")),
            Row::new(
                "build after a change of one line in the server, development profile",
                format!("{seconds:.1} s"),
            )
            .bar(Bar::Rebuild, seconds)
            .limit(change.limit("compiling and linking one crate after the other")),
        ],
        spans: vec![
            ("first build".to_owned(), first),
            ("build after a change".to_owned(), change),
        ],
        conditions: vec![format!(
            "Builds: a copy of the sources without a target folder, after all dependencies were \
             downloaded. The first build has the profile `local` of `make run`. The change adds a line \
             to `{CHANGED}`; the figure is the median of {CHANGES} changes. The servers of the \
             benchmark are idle."
        )],
        ..Findings::default()
    })
}

/// Builds the service. Returns the time and the CPU time.
async fn build(folder: &Path, arguments: &[&str]) -> anyhow::Result<Span> {
    let meter = Meter::with_children(Vec::new(), "cargo");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--offline"])
        .args(arguments)
        .arg("--target-dir")
        .arg(folder.join("target"))
        .env("SQLX_OFFLINE", "true")
        .current_dir(folder)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIMEOUT, build)
        .await
        .with_context(|| format!("the build did not end within {TIMEOUT:?}"))?
        .context("running cargo failed")?;
    let span = meter.stop();
    ensure!(
        output.status.success(),
        "the build failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(span)
}

/// Copies a folder without the folders that are not sources.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_folder(&entry.path(), &to.join(name))?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_sources_only() {
        let folder = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        let from = folder.join("from");
        for name in ["src", "target", ".git"] {
            std::fs::create_dir_all(from.join(name)).unwrap();
            std::fs::write(from.join(name).join("file"), name).unwrap();
        }
        let copy = Copy(folder.join("to"));
        copy_folder(&from, &copy.0).unwrap();
        let text = std::fs::read_to_string(copy.0.join("src/file")).unwrap();
        assert_eq!(text, "src");
        assert!(!copy.0.join("target").exists() && !copy.0.join(".git").exists());
        let path = copy.0.clone();
        drop(copy);
        assert!(!path.exists(), "the copy is deleted");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
