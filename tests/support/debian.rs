//! Programs of Debian packages that tests run.

use std::path::PathBuf;
use std::process::Command;

/// The program on the `PATH`, or else the one of a Debian package, which is extracted
/// below the target folder. Blocks while it downloads the package.
///
/// # Panics
/// If the machine has neither the program nor apt.
#[must_use]
pub fn program(program: &str, package: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/debian-program");
    let output = Command::new(script).args([program, package]).output();
    let output = output.expect("the script runs");
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().into()
}
