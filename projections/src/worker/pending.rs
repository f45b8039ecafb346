//! The events that a worker has folded and not committed yet.

use std::time::{Duration, Instant};

use domain::{ReaderId, SessionEvent};
use eventlog::trace::TraceParent;
use eventlog::{LogEntry, RecordedEvent};

use super::SILENCE;
use super::decision::WorkerState;
use super::traced::Traced;
use super::window::{Folded, Window};
use crate::dead_letters::DeadLetterChanges;
use crate::{Checkpoint, Projection};

/// Folded events, as rows and changes of dead letters.
pub(super) struct Pending<P: Projection> {
    pub(super) window: Window<P::Key, P::Change>,
    pub(super) traced: Traced<P::Key>,
    pub(super) dead_letters: DeadLetterChanges,
    pub(super) from: Checkpoint,
    /// The global position of the last event.
    pub(super) to: i64,
    /// Events since the last commit.
    pub(super) events: usize,
    /// When the first of them was folded.
    pub(super) started_at: Instant,
    pub(super) read_at: Instant,
    /// Whether rows wait for the window. Not before the worker has caught up: after a restart
    /// they have waited already.
    pub(super) is_open: bool,
}

impl<P: Projection> Pending<P> {
    pub(super) fn new(from: Checkpoint, window: Duration) -> Self {
        let now = Instant::now();
        Self {
            window: Window::new(window),
            traced: Traced::default(),
            dead_letters: DeadLetterChanges::default(),
            from,
            to: from.global_position,
            events: 0,
            started_at: now,
            read_at: now,
            is_open: false,
        }
    }

    /// Whether a commit would change nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.window.is_empty() && self.to == self.from.global_position
    }

    /// Whether a commit must not wait for the window: rows are urgent, the checkpoint can move
    /// without a row, or an event was parked.
    pub(super) fn has_urgent(&mut self) -> bool {
        !self.dead_letters.is_empty()
            || (self.window.is_empty() && !self.is_empty())
            || self.window.has_urgent()
    }

    /// Whether the window of a row has ended.
    pub(super) fn is_window_over(&mut self) -> bool {
        let ends_at = self.window.ends_at();
        ends_at.is_some_and(|ends_at| ends_at <= Instant::now())
    }

    /// The part of the worker's state that is known here. The rest is that of a worker
    /// before its batch interval.
    pub(super) fn state(&mut self) -> WorkerState {
        WorkerState {
            to: self.to,
            events: self.events,
            max_events: usize::MAX,
            weight: self.window.weight(),
            age: self.started_at.elapsed(),
            caught_up: false,
            is_quiet: false,
            is_silent: self.read_at.elapsed() >= SILENCE,
            is_due: false,
            is_requested: false,
            has_urgent: self.has_urgent(),
            has_rows: !self.window.is_empty(),
            is_window_over: false,
            is_window_closed: false,
        }
    }

    pub(super) fn fold(&mut self, event: &RecordedEvent) {
        let is_update = matches!(event.event, SessionEvent::PositionUpdated(_));
        self.change(
            P::key(event),
            event.event.reader_id(),
            event.global_position,
            !(P::COALESCES && is_update),
            |change| P::fold(change, event),
        );
    }

    /// Remembers a folded event whose trace is sampled, until its row is written.
    pub(super) fn trace(&mut self, event: &RecordedEvent, traceparent: Option<TraceParent>) {
        let sampled = traceparent.filter(|traceparent| traceparent.is_sampled());
        if sampled.is_none() && self.traced.is_empty() {
            return;
        }
        let key = P::key(event);
        if !self.window.contains(key) {
            self.traced.remove(key);
        } else if let Some(traceparent) = sampled {
            self.traced.add(key, traceparent, event.global_position);
        }
    }

    fn change(
        &mut self,
        key: P::Key,
        reader_id: ReaderId,
        global_position: i64,
        is_urgent: bool,
        fold: impl FnOnce(&mut Option<P::Change>),
    ) {
        let folded = Folded {
            reader_id,
            global_position,
            previous: self.to,
            at: self.read_at,
            is_urgent,
        };
        self.window.fold(key, folded, P::weight, fold);
    }

    /// Skips an event. Some projections then no longer trust their data of its reader.
    pub(super) fn skip(&mut self, event: &LogEntry) {
        let global_position = event.global_position();
        if let Some(reader_id) = event.reader_id()
            && let Some((key, change)) = P::on_skipped(reader_id, global_position)
        {
            self.change(key, reader_id, global_position, true, |before| {
                *before = Some(change);
            });
        }
    }
}
