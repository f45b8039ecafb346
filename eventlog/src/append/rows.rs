//! Encodes commands as rows, and a batch of rows as columns: the SQL function
//! takes an array per column.
//!
//! The task of each command serializes its rows. The columns borrow from the
//! rows, so the appending task copies no data.

use cqrs_es::Aggregate;
use domain::session::CompleteSession;
use domain::{ReaderId, Timestamp};
use uuid::Uuid;

use super::{ActiveClaimChange, Append, KeyedResponse};
use crate::outgoing::OutgoingEvent;
use crate::stored_bytes::{EVENT_OVERHEAD, RESPONSE_OVERHEAD};

/// The rows of one command.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) events: Vec<EventRow>,
    seen: Vec<SeenRow>,
    claim: Option<ClaimRow>,
    response: Option<KeyedResponse>,
}

#[derive(Debug)]
pub(super) struct EventRow {
    session_id: String,
    sequence: i64,
    event_type: &'static str,
    event_version: &'static str,
    payload: String,
    metadata: String,
    reader_id: ReaderId,
    occurred_at: Timestamp,
}

#[derive(Debug)]
struct SeenRow {
    session_id: String,
    sequence: i64,
}

#[derive(Debug)]
struct ClaimRow {
    reader: Uuid,
    expected: Option<String>,
    next: Option<String>,
    expected_newest: Option<Timestamp>,
    next_newest: Option<Timestamp>,
}

impl Rows {
    pub(super) fn new(append: Append) -> Self {
        let events = append
            .events
            .into_iter()
            .map(|new| EventRow {
                session_id: new.session_id.to_string(),
                sequence: new.sequence,
                event_type: new.event.name(),
                event_version: new.event.version(),
                payload: serde_json::to_string(&new.event).expect("events are plain JSON"),
                metadata: new.metadata,
                reader_id: new.event.reader_id(),
                occurred_at: new.event.occurred_at(),
            })
            .collect();
        let seen = append.seen.into_iter().map(|(id, sequence)| SeenRow {
            session_id: id.to_string(),
            sequence,
        });
        Self {
            events,
            seen: seen.collect(),
            claim: append.claim.map(ClaimRow::from),
            response: append.response,
        }
    }

    /// About how many bytes the rows take in the database.
    pub(super) fn stored_bytes(&self) -> u64 {
        let events = self
            .events
            .iter()
            .map(|event| event.payload.len() + event.metadata.len());
        let responses = self
            .response
            .iter()
            .map(|keyed| keyed.key.len() + keyed.response.len());
        EVENT_OVERHEAD * self.events.len() as u64
            + RESPONSE_OVERHEAD * u64::from(self.response.is_some())
            + events.chain(responses).sum::<usize>() as u64
    }

    /// The events for the stream, one for each of the global positions.
    pub(super) fn into_outgoing(
        self,
        global_positions: &[i64],
    ) -> impl Iterator<Item = OutgoingEvent> {
        self.events
            .into_iter()
            .zip(global_positions)
            .map(|(row, global_position)| row.into_outgoing(*global_position))
    }
}

impl EventRow {
    fn into_outgoing(self, global_position: i64) -> OutgoingEvent {
        OutgoingEvent {
            global_position,
            session_id: self.session_id,
            sequence: self.sequence,
            event_type: self.event_type.into(),
            event_version: self.event_version.into(),
            payload: self.payload,
            metadata: self.metadata,
            reader_id: self.reader_id,
            time: self.occurred_at,
        }
    }
}

impl From<ActiveClaimChange> for ClaimRow {
    fn from(change: ActiveClaimChange) -> Self {
        Self {
            reader: change.reader_id.uuid(),
            expected: change.expected.map(|id| id.to_string()),
            next: change.next.map(|id| id.to_string()),
            expected_newest: change.expected_newest,
            next_newest: change.next_newest,
        }
    }
}

/// The columns of a batch. In each group, `commands` contains the index of the
/// command to which the row belongs.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) events: EventColumns<'a>,
    pub(super) claims: ClaimColumns<'a>,
    pub(super) seen: SeenColumns<'a>,
    pub(super) responses: ResponseColumns<'a>,
}

#[derive(Default)]
pub(super) struct EventColumns<'a> {
    pub(super) commands: Vec<i32>,
    pub(super) session_ids: Vec<&'a str>,
    pub(super) sequences: Vec<i64>,
    pub(super) aggregate_types: Vec<&'a str>,
    pub(super) event_types: Vec<&'a str>,
    pub(super) event_versions: Vec<&'a str>,
    pub(super) payloads: Vec<&'a str>,
    pub(super) metadatas: Vec<&'a str>,
}

#[derive(Default)]
pub(super) struct ClaimColumns<'a> {
    pub(super) commands: Vec<i32>,
    pub(super) readers: Vec<Uuid>,
    pub(super) expected: Vec<Option<&'a str>>,
    pub(super) next: Vec<Option<&'a str>>,
    pub(super) expected_newest: Vec<Option<Timestamp>>,
    pub(super) next_newest: Vec<Option<Timestamp>>,
}

#[derive(Default)]
pub(super) struct SeenColumns<'a> {
    pub(super) commands: Vec<i32>,
    pub(super) session_ids: Vec<&'a str>,
    pub(super) sequences: Vec<i64>,
}

#[derive(Default)]
pub(super) struct ResponseColumns<'a> {
    pub(super) commands: Vec<i32>,
    pub(super) readers: Vec<Uuid>,
    pub(super) keys: Vec<&'a str>,
    pub(super) fingerprints: Vec<&'a [u8]>,
    pub(super) responses: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(batch: &'a [Rows]) -> Self {
        let mut columns = Self::default();
        for (command, rows) in (0..).zip(batch) {
            for event in &rows.events {
                columns.events.push(command, event);
            }
            for seen in &rows.seen {
                columns.seen.push(command, seen);
            }
            if let Some(claim) = &rows.claim {
                columns.claims.push(command, claim);
            }
            if let Some(response) = &rows.response {
                columns.responses.push(command, response);
            }
        }
        columns
    }
}

impl<'a> EventColumns<'a> {
    fn push(&mut self, command: i32, event: &'a EventRow) {
        self.commands.push(command);
        self.session_ids.push(&event.session_id);
        self.sequences.push(event.sequence);
        self.aggregate_types.push(CompleteSession::TYPE);
        self.event_types.push(event.event_type);
        self.event_versions.push(event.event_version);
        self.payloads.push(&event.payload);
        self.metadatas.push(&event.metadata);
    }
}

impl<'a> ClaimColumns<'a> {
    fn push(&mut self, command: i32, claim: &'a ClaimRow) {
        self.commands.push(command);
        self.readers.push(claim.reader);
        self.expected.push(claim.expected.as_deref());
        self.next.push(claim.next.as_deref());
        self.expected_newest.push(claim.expected_newest);
        self.next_newest.push(claim.next_newest);
    }
}

impl<'a> SeenColumns<'a> {
    fn push(&mut self, command: i32, seen: &'a SeenRow) {
        self.commands.push(command);
        self.session_ids.push(&seen.session_id);
        self.sequences.push(seen.sequence);
    }
}

impl<'a> ResponseColumns<'a> {
    fn push(&mut self, command: i32, response: &'a KeyedResponse) {
        self.commands.push(command);
        self.readers.push(response.reader_id.uuid());
        self.keys.push(&response.key);
        self.fingerprints.push(&response.fingerprint);
        self.responses.push(&response.response);
    }
}
