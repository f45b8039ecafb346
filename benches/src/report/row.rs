//! A row of the table: a figure, its reference, its bar, and what limits it.

use crate::bars::Bar;

/// A row of the table.
#[derive(Clone, Debug, Default)]
pub struct Row {
    what: String,
    figure: String,
    reference: String,
    ratio: String,
    target: String,
    result: String,
    limit: String,
    /// The bar, and whether it is met.
    pub(super) bar: Option<(Bar, bool)>,
}

impl Row {
    pub fn new(what: impl Into<String>, figure: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            figure: figure.into(),
            ..Self::default()
        }
    }

    /// A figure that could not be measured.
    pub fn failed(what: impl Into<String>, error: &anyhow::Error) -> Self {
        Self {
            result: format!("failed: {}", format!("{error:#}").replace(['\n', '|'], " ")),
            ..Self::new(what, "")
        }
    }

    /// A figure that is not measured on this machine.
    pub fn left_out(what: impl Into<String>, reason: &str) -> Self {
        Self {
            result: format!("left out: {reason}"),
            ..Self::new(what, "")
        }
    }

    /// Adds a reference and the ratio to it.
    pub fn reference(mut self, reference: impl Into<String>, ratio: f64) -> Self {
        self.reference = reference.into();
        self.ratio = if ratio < 10.0 {
            format!("{ratio:.2}")
        } else {
            format!("{ratio:.1}")
        };
        self
    }

    /// Adds a reference without a ratio.
    pub fn reference_only(mut self, reference: impl Into<String>) -> Self {
        self.reference = reference.into();
        self
    }

    /// Adds the bar that a value must meet.
    pub fn bar(mut self, bar: Bar, value: f64) -> Self {
        let is_met = bar.is_met(value);
        self.target = bar.text();
        self.result = if is_met {
            "met".to_owned()
        } else {
            format!("not met: [`{0}`](profile.md#{0})", bar.key())
        };
        self.bar = Some((bar, is_met));
        self
    }

    /// Adds the resource that limits the figure.
    pub fn limit(mut self, limit: impl Into<String>) -> Self {
        self.limit = limit.into();
        self
    }

    pub(super) fn line(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.what,
            self.figure,
            self.reference,
            self.ratio,
            self.target,
            self.result,
            self.limit
        )
    }
}
