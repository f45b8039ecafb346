//! The sampled events whose rows are in memory, until the rows are written. Their spans are
//! created then, so an event that waits takes little memory. A batch that fails creates none:
//! the worker receives its events again.

use std::collections::HashMap;
use std::hash::Hash;
use std::iter;

use domain::Timestamp;
use eventlog::clock;
use eventlog::trace::{GLOBAL_POSITION, SpanKind, TraceParent, Traces};

use crate::Projection;

/// The most events. Beyond them, events get no span of the projection.
const MAX_EVENTS: usize = 8_192;

/// A sampled event.
#[derive(Clone, Copy, Debug)]
struct Received {
    traceparent: TraceParent,
    global_position: i64,
    at: Timestamp,
}

/// The sampled events of each row in memory.
#[derive(Debug)]
pub(super) struct Traced<K> {
    rows: HashMap<K, Vec<Received>>,
    events: usize,
}

impl<K> Default for Traced<K> {
    fn default() -> Self {
        Self {
            rows: HashMap::new(),
            events: 0,
        }
    }
}

impl<K: Copy + Eq + Hash> Traced<K> {
    /// Adds an event that has changed a row.
    pub(super) fn add(&mut self, key: K, traceparent: TraceParent, global_position: i64) {
        if self.events < MAX_EVENTS {
            self.events += 1;
            self.rows.entry(key).or_default().push(Received {
                traceparent,
                global_position,
                at: clock::now(),
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets the events of a row that has nothing to write any more.
    pub(super) fn remove(&mut self, key: K) {
        self.take(iter::once(key));
    }

    /// Removes the events of rows that are being written.
    pub(super) fn take(&mut self, keys: impl Iterator<Item = K>) -> Writing {
        if self.rows.is_empty() {
            return Writing::default();
        }
        let rows = &mut self.rows;
        let events: Vec<Received> = keys.filter_map(|key| rows.remove(&key)).flatten().collect();
        self.events -= events.len();
        Writing {
            began: (!events.is_empty()).then(clock::now),
            events,
        }
    }
}

/// The sampled events of a commit.
#[derive(Debug, Default)]
pub(super) struct Writing {
    events: Vec<Received>,
    /// `None` without events.
    began: Option<Timestamp>,
}

impl Writing {
    /// Creates the spans of the events, once their rows are written: from receipt to commit,
    /// with a child for the commit. `rows` is the number of rows in it.
    pub(super) fn written<P: Projection>(self, traces: &Traces, rows: usize) {
        let Some(began) = self.began else {
            return;
        };
        let ended = clock::now();
        let (project, write) = (format!("project {}", P::NAME), format!("write {}", P::NAME));
        for event in self.events {
            let parent = Some(event.traceparent);
            let span = traces.start(parent, SpanKind::Consumer, project.clone(), event.at);
            let Some(mut span) = span else {
                continue;
            };
            span.set("reading_sessions.projection", P::NAME);
            span.set(GLOBAL_POSITION, event.global_position);
            let parent = span.as_parent();
            if let Some(mut commit) = parent.start(SpanKind::Client, write.clone(), began) {
                commit.set("db.system.name", P::STORE);
                commit.set("db.operation.name", "write");
                commit.set("db.collection.name", P::NAME);
                let rows = i64::try_from(rows).unwrap_or(i64::MAX);
                commit.set("db.operation.batch.size", rows);
                commit.end(ended);
            }
            span.end(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traceparent() -> TraceParent {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        TraceParent::parse(text).unwrap()
    }

    #[test]
    fn events_leave_with_their_rows() {
        let mut traced = Traced::default();
        for (key, global_position) in [(1, 1), (2, 2), (1, 3)] {
            traced.add(key, traceparent(), global_position);
        }
        let positions = |writing: Writing| -> Vec<i64> {
            let events = writing.events.iter();
            events.map(|event| event.global_position).collect()
        };
        assert_eq!(positions(traced.take([1, 3].into_iter())), [1, 3]);
        traced.remove(2);
        assert_eq!(positions(traced.take([1, 2].into_iter())), [0; 0]);
        assert_eq!(traced.events, 0);
    }

    #[test]
    fn memory_for_events_is_bounded() {
        let mut traced = Traced::default();
        for key in 0..=MAX_EVENTS {
            traced.add(key, traceparent(), 1);
        }
        assert_eq!(traced.rows.len(), MAX_EVENTS);
    }
}
