//! The report for people.

use super::{NewReadersReport, ReadersReport, Report};
use crate::cli::format::{count, counted};
use crate::cli::table::{Column, table};

const RATE_LIMIT_HINT: &str = "The service limits the calls of each reader, and a proxy may limit \
those of an address.
With --tokens, more tokens give burst users more readers. See docs/reference/http.md#rate-limits.";

impl Report {
    pub fn text(&self) -> String {
        let mut parts = vec![
            format!(
                "{}: {} users for {:.0} s{}",
                self.address,
                count(self.users),
                self.seconds,
                if self.stopped_early {
                    ", stopped early"
                } else {
                    ""
                }
            ),
            self.calls_text(),
        ];
        if !self.errors.is_empty() {
            parts.push(self.errors_text());
        }
        if self.rate_limited > 0 {
            parts.push(format!(
                "{} of {} errors have the status 429. {RATE_LIMIT_HINT}",
                count(self.rate_limited),
                count(self.total.errors)
            ));
        }
        parts.push(self.criteria_text());
        parts.push(self.readers.text());
        parts.join("\n\n")
    }

    fn calls_text(&self) -> String {
        let columns = [
            Column::Left("CALL"),
            Column::Right("REQUESTS"),
            Column::Right("ERRORS"),
            Column::Right("PER SECOND"),
            Column::Right("P50"),
            Column::Right("P95"),
            Column::Right("P99"),
            Column::Right("MAX"),
        ];
        let rows: Vec<_> = self
            .calls
            .iter()
            .chain([&self.total])
            .map(|call| {
                let latency = |ms: f64| match call.requests {
                    0 => "-".to_owned(),
                    _ => format!("{ms:.1} ms"),
                };
                [
                    call.call.to_owned(),
                    count(call.requests),
                    count(call.errors),
                    format!("{:.1}", call.requests_per_second),
                    latency(call.p50_ms),
                    latency(call.p95_ms),
                    latency(call.p99_ms),
                    latency(call.max_ms),
                ]
            })
            .collect();
        table(&columns, &rows)
    }

    fn errors_text(&self) -> String {
        let columns = [
            Column::Left("CALL"),
            Column::Left("ERROR"),
            Column::Right("COUNT"),
            Column::Left("EXAMPLE"),
        ];
        let rows: Vec<_> = self
            .errors
            .iter()
            .map(|error| {
                [
                    error.call.to_owned(),
                    error.error.clone(),
                    count(error.count),
                    error.example.clone(),
                ]
            })
            .collect();
        table(&columns, &rows)
    }

    fn criteria_text(&self) -> String {
        let columns = [
            Column::Left("CRITERION"),
            Column::Right("MEASURED"),
            Column::Right("LIMIT"),
            Column::Left("RESULT"),
        ];
        let rows: Vec<_> = self
            .criteria
            .iter()
            .map(|criterion| {
                let (name, unit) = match criterion.criterion {
                    "error_percent" => ("errors", "%"),
                    "p95_ms" => ("p95", "ms"),
                    _ => ("p99", "ms"),
                };
                [
                    name.to_owned(),
                    format!("{:.2} {unit}", criterion.value),
                    match criterion.criterion {
                        "error_percent" if criterion.limit == 0.0 => "none".to_owned(),
                        _ => format!("< {} {unit}", criterion.limit),
                    },
                    if criterion.met { "met" } else { "not met" }.to_owned(),
                ]
            })
            .collect();
        table(&columns, &rows)
    }
}

impl ReadersReport {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        if self.sessions_ended > 0 {
            let ended = counted(self.sessions_ended, "session", "sessions");
            lines.push(format!("Ended {ended} after the run."));
        }
        if self.sessions_not_ended > 0 {
            let left = counted(self.sessions_not_ended, "session", "sessions");
            lines.push(format!(
                "Up to {left} may remain active; the service ends them when they are idle."
            ));
        }
        match &self.new {
            None => lines.push(
                "The sessions remain in the data of the readers; `reading-sessions reader erase` \
                 erases all data of one."
                    .to_owned(),
            ),
            Some(new) => lines.push(new.text()),
        }
        lines.join("\n")
    }
}

impl NewReadersReport {
    fn text(&self) -> String {
        let readers = counted(self.count, "new reader", "new readers");
        let left = count(self.count - self.erased);
        match &self.erase_error {
            None if self.erased == self.count => format!("Erased all data of {readers}."),
            None => format!(
                "The data of {left} of {readers} remains. Run with --erase, or erase it with\n  {}",
                self.erase_command
            ),
            Some(error) => format!(
                "Erasing failed: {error}; the data of {left} of {readers} remains. Erase it \
                 with\n  {}",
                self.erase_command
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn text_contains_errors_and_a_hint_about_rate_limits() {
        let text = report(500).text();
        for line in [
            "http://reading.example: 100 users for 10 s",
            "CALL     REQUESTS  ERRORS  PER SECOND     P50     P95     P99     MAX",
            "active      2,000     500       200.0  5.0 ms  5.0 ms  5.0 ms  5.0 ms",
            "start           0       0         0.0       -       -       -       -",
            "active  429 rate_limited    500  Rate limit exceeded",
            "errors      25.00 %     < 1 %  not met",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(
            text.contains("500 of 500 errors have the status 429"),
            "{text}"
        );
        assert!(!report(0).text().contains("429"));
    }

    #[test]
    fn text_contains_what_is_left_in_the_service() {
        let mut readers = ReadersReport {
            sessions_ended: 1,
            sessions_not_ended: 2,
            new: None,
        };
        let text = readers.text();
        assert!(text.contains("Ended 1 session after"), "{text}");
        assert!(text.contains("Up to 2 sessions may remain"), "{text}");
        assert!(text.contains("reader erase"), "{text}");
        let new = |erased, erase_error: Option<&str>| NewReadersReport {
            count: 3,
            first: "first".to_owned(),
            last: "last".to_owned(),
            erased,
            erase_error: erase_error.map(str::to_owned),
            erase_command: "erase all".to_owned(),
        };
        readers.new = Some(new(0, None));
        assert!(readers.text().contains("3 of 3 new readers remains. Run"));
        assert!(readers.text().ends_with("\n  erase all"));
        readers.new = Some(new(1, Some("timeout")));
        assert!(
            readers
                .text()
                .contains("Erasing failed: timeout; the data of 2 of 3 new readers remains. Erase")
        );
        assert!(readers.text().ends_with("\n  erase all"));
        readers.new = Some(new(3, None));
        assert!(
            readers
                .text()
                .ends_with("Erased all data of 3 new readers.")
        );
    }
}
