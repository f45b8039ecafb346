//! Commits a decided command: one append to the log, then an update of the session
//! cache. It never retries; see [`crate::executor`].

use std::sync::Arc;

use domain::{ReaderId, SessionId};
use eventlog::AppendError;
use eventlog::append::{Append, KeyedResponse, NewEvent};
use eventlog::clock;
use eventlog::trace::{Span, SpanKind};

use crate::CommandError;
use crate::command::CommandContext;
use crate::decision::Decision;
use crate::executor::Executor;

impl Executor {
    /// Writes the events, the change of the active-session claim and the response in
    /// one transaction.
    ///
    /// Returns the global position of the last event. For repeats, which produce no event,
    /// this is the last event of the existing sessions. Returns `None` if there is neither.
    ///
    /// # Errors
    /// [`CommandError::Conflict`] if another command was appended first, or if the
    /// idempotency key is in use.
    pub(crate) async fn commit(
        &self,
        reader_id: ReaderId,
        decision: Decision,
        context: &CommandContext,
        response: Option<KeyedResponse>,
    ) -> Result<Option<i64>, CommandError> {
        let span = start_span(context, decision.events.len());
        let metadata = context.metadata(span.as_ref());
        let (claim, changes_activity) = (decision.claim(), decision.changes_activity());
        let has_event = |id| decision.events.iter().any(|(other, ..)| other == id);
        let seen = decision.sessions.iter().filter(|(id, _)| !has_event(*id));
        let seen = seen.map(|(id, versioned)| (*id, versioned.sequence));
        let seen: Vec<(SessionId, i64)> = seen.collect();
        let append = Append {
            seen,
            events: decision
                .events
                .into_iter()
                .map(|(session_id, sequence, event)| NewEvent {
                    session_id,
                    sequence,
                    event,
                    metadata: metadata.clone(),
                })
                .collect(),
            claim,
            response,
            meter: context.meter.clone(),
        };
        let repository = &self.repository;
        let appended: Vec<SessionId> = append.events.iter().map(|new| new.session_id).collect();
        let has_events = !appended.is_empty();
        let global_positions = if has_events || append.response.is_some() {
            let appended = repository.append(append).await;
            end_span(span, appended.as_ref().err());
            appended?
        } else {
            Vec::new()
        };
        if !has_events {
            // A repeat is decided on the newest state, so each session is as in the log.
            let existing = decision.sessions.values();
            return Ok(existing.map(|existing| existing.global_position).max());
        }
        for (id, mut session) in decision.sessions {
            let mut own = appended.iter().zip(&global_positions);
            if let Some((_, last)) = own.rfind(|(appended, _)| **appended == id) {
                Arc::make_mut(&mut session).global_position = *last;
            }
            drop(repository.cache(id, session));
        }
        let last = global_positions.last().copied();
        if let Some(last) = last.filter(|_| changes_activity) {
            repository.recent_changes.record(reader_id, last);
        }
        Ok(last)
    }
}

/// Starts the span of an append, from its queueing to its commit. `None` if the command has no
/// event, or if its request is not sampled.
fn start_span(context: &CommandContext, events: usize) -> Option<Span> {
    let parent = context.span.as_ref().filter(|_| events > 0)?;
    let mut span = parent.start(SpanKind::Client, "append events", clock::now())?;
    span.set("db.system.name", "postgresql");
    span.set("db.operation.name", "append");
    span.set("db.collection.name", "events");
    span.set(
        "db.operation.batch.size",
        i64::try_from(events).unwrap_or(i64::MAX),
    );
    Some(span)
}

fn end_span(span: Option<Span>, error: Option<&AppendError>) {
    if let Some(mut span) = span {
        if let Some(error) = error {
            span.fail(error.as_str());
        }
        span.end(clock::now());
    }
}
