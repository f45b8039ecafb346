//! Reports publishes and subscriptions that NATS refused. NATS reports a refusal on the
//! connection and not to the caller: the call times out or has no effect.

use std::time::Duration;

use async_nats::{Event, ServerError};
use eventlog::health::HealthFlag;

/// How long a refusal is reported. Most calls are repeated within seconds and refused
/// again. A subscription is repeated after a reconnect only.
const REPORT_TERM: Duration = Duration::from_mins(10);

/// Reports a refusal, and forgets it when the client connects again.
pub(super) fn record(event: &Event, refused: &HealthFlag) {
    match event {
        Event::Connected => refused.clear(),
        Event::ServerError(ServerError::Other(error)) if is_refusal(error) => {
            refused.fail_for(REPORT_TERM, format!("NATS refused: {error}"));
        }
        _ => {}
    }
}

/// Whether NATS refused something that a role needs. The update of a stream's limits is
/// only for operators: the relay logs its refusal and continues.
fn is_refusal(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    error.starts_with("permissions violation") && !error.contains("$js.api.stream.update.")
}

#[cfg(test)]
mod tests {
    use eventlog::health::{Failure, HealthRegistry};

    use super::*;

    #[test]
    fn refusal_is_reported_until_the_next_connection() {
        let failures = HealthRegistry::default();
        let refused = failures.register(Failure::NatsPermissionRefused);
        let error = |text: &str| Event::ServerError(ServerError::Other(text.to_owned()));
        record(&error("Maximum Payload Violation"), &refused);
        let update = "Permissions Violation for Publish to \"$JS.API.STREAM.UPDATE.READING\"";
        record(&error(update), &refused);
        assert_eq!(failures.failures()[0].1, None);
        let text = "Permissions Violation for Publish to \"reading.wake\"";
        record(&error(text), &refused);
        let reason = format!("NATS refused: {text}");
        assert_eq!(failures.failures()[0].1, Some(reason));
        record(&Event::Connected, &refused);
        assert_eq!(failures.failures()[0].1, None);
    }
}
