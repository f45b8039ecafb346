//! Output of commands: results go to standard output, everything else to
//! standard error.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

/// The option `-o` of commands that print a table or JSON.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// Output format.
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    format: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
}

impl OutputArgs {
    pub fn is_json(&self) -> bool {
        self.format == Output::Json
    }

    /// Prints `value` as JSON, or else the text.
    pub fn print(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Output::Text => print(&text()),
            Output::Json => print(&serde_json::to_string_pretty(value)?),
        }
    }
}

/// Prints text and a line break.
pub fn print(text: &str) -> anyhow::Result<()> {
    let written = writeln!(io::stdout(), "{text}");
    ignore_broken_pipe(written.map_err(anyhow::Error::from))
}

/// Prints a line to standard error.
pub fn report(text: &str) {
    // Without standard error there is nowhere to report the failure.
    let _ = writeln!(io::stderr(), "{text}");
}

/// A reader of standard output that exits early, for example `head`, causes no
/// error.
pub fn ignore_broken_pipe(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
