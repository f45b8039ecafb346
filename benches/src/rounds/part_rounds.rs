//! One saturation part over all rounds, and its rows of the report.

use crate::Part;
use crate::bars::Bar;
use crate::connections::Connections;
use crate::limits::ROUND_TRIPS;
use crate::report::{Row, median, megabytes};
use crate::service::Measured;
use crate::usage::Span;

/// The figure of a reference in one round.
#[derive(Clone)]
pub(super) struct Reference {
    pub figure: f64,
    pub span: Span,
}

/// One saturation part with its reference, over all rounds.
pub(super) struct PartRounds {
    pub part: Part,
    reference: &'static str,
    pub unit: &'static str,
    pub rounds: Vec<(Reference, Measured)>,
    pub failure: Option<anyhow::Error>,
}

impl PartRounds {
    pub(super) fn new(part: Part) -> Self {
        let (reference, unit) = match part {
            Part::Batch10 | Part::Batch25 | Part::Batch50 => {
                ("pgbench, 100 rows per statement", " positions/s")
            }
            Part::Active => ("empty axum handler", "/s"),
            Part::Late => ("none late", " µs"),
            _ => ("pgbench, one row", "/s"),
        };
        Self {
            part,
            reference,
            unit,
            rounds: Vec::new(),
            failure: None,
        }
    }

    /// The bar for the ratio to the reference. Batches below the maximum have none.
    const fn bar(&self) -> Option<Bar> {
        match self.part {
            Part::Updates => Some(Bar::Updates),
            Part::Late => Some(Bar::Late),
            Part::Batch50 => Some(Bar::Batch50),
            Part::Active => Some(Bar::Active),
            _ => None,
        }
    }

    /// The figure that is compared with the reference: units per second or, with late
    /// updates, the CPU time of an update in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "at most 50")]
    pub(super) fn figure(&self, measured: &Measured) -> f64 {
        match self.part {
            Part::Late => measured.cpu(),
            part => measured.load.rate() * part.batch_size().unwrap_or(1) as f64,
        }
    }

    pub(super) fn reference_unit(&self) -> &'static str {
        match self.part {
            Part::Late => self.unit,
            _ => "/s",
        }
    }

    /// The CPU time of all rounds.
    fn span(&self) -> Span {
        Span::sum(self.rounds.iter().map(|(_, measured)| &measured.span))
    }

    /// The CPU times of all rounds, and of those of the reference.
    pub(super) fn spans(&self) -> Vec<(String, Span)> {
        let name = self.part.name();
        let reference = Span::sum(self.rounds.iter().map(|(reference, _)| &reference.span));
        vec![
            (format!("{name}: {}", self.reference), reference),
            (name, self.span()),
        ]
    }

    pub(super) fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.iter().map(|(_, measured)| figure(measured)))
    }

    /// `most` are the connections of the updates, and `hit_percent` the cache hits of the
    /// reads.
    pub(super) fn rows(&self, most: Connections, hit_percent: f64) -> Vec<Row> {
        let what = self.part.title();
        if let Some(error) = &self.failure {
            return vec![Row::failed(what, error)];
        }
        let figure = self.median(|measured| self.figure(measured));
        let reference = median(self.rounds.iter().map(|(reference, _)| reference.figure));
        let ratios = self.rounds.iter();
        let ratio =
            median(ratios.map(|(reference, measured)| self.figure(measured) / reference.figure));
        let limit = self.span().limit(ROUND_TRIPS);
        let row = Row::new(what, format!("{figure:.0}{}", self.unit))
            .reference(
                format!("{} {reference:.0}{}", self.reference, self.reference_unit()),
                ratio,
            )
            .limit(&limit);
        let mut rows = vec![match self.bar() {
            Some(bar) => row.bar(bar, ratio),
            None => row,
        }];
        if self.part == Part::Active {
            rows.push(
                Row::new(
                    "… reads of active sessions served by Redis",
                    format!("{hit_percent:.1} %"),
                )
                .bar(Bar::ActiveHits, hit_percent)
                .limit(&limit),
            );
        }
        if self.part == Part::Updates {
            let caught_up = self.median(|measured| measured.caught_up.as_secs_f64());
            let memory = self.median(|measured| megabytes(measured.resident));
            rows.extend([
                Row::new(
                    "… until projections have caught up after the last update",
                    format!("{caught_up:.2} s"),
                )
                .bar(Bar::UpdatesCatchUp, caught_up)
                .limit("commits of the projections"),
                Row::new(
                    "… peak resident memory of the service",
                    format!("{memory:.0} MB"),
                )
                .bar(Bar::UpdatesMemory, memory)
                .limit("memory"),
                Row::new(
                    "… connections to Postgres",
                    format!("{} in use, {} open", most.in_use, most.open),
                )
                .limit("pool sizes"),
            ]);
        }
        rows
    }
}
