//! The requests of readers' apps. Scripts write them into reused buffers.

use std::io::Write as _;

use chrono::{SecondsFormat, TimeDelta};
use domain::Timestamp;
use eventlog::clock;

use super::reader_pool::{PooledReader, ThreadShare};
use super::{Response, Script};

/// Milliseconds between the observations of a batch. The last one is at the current time.
/// The interval is short, so that a batch does not overlap with the previous one.
const OBSERVATION_INTERVAL: usize = 20;

/// The time from the start of a session to its arrival, more than [`LATENESS`]: a late
/// update must not move the start.
const SESSION_AGE: TimeDelta = TimeDelta::seconds(60);

/// Starts one session for each reader.
pub struct Starts<'a> {
    share: &'a mut ThreadShare,
    request: Vec<u8>,
}

impl<'a> Starts<'a> {
    pub fn new(share: &'a mut ThreadShare) -> Self {
        let request = Vec::new();
        Self { share, request }
    }
}

impl Script for Starts<'_> {
    fn next(&mut self, lane: usize) -> Option<&[u8]> {
        let own = self.share.readers_in_lane(lane);
        let (reader, turn) = self.share.next(lane);
        if turn >= own {
            return None;
        }
        // Each reader reads one book, with the reader's id as its id.
        let started_at = clock::now() - SESSION_AGE;
        let started_at = started_at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let body = format!(
            "{{\"book_id\":\"{}\",\"session_id\":\"{}\",\"time_zone\":\"Europe/Berlin\",\
             \"occurred_at\":\"{started_at}\"}}",
            reader.id, reader.session
        );
        write(&mut self.request, "POST", reader, "start", body.as_bytes());
        Some(&self.request)
    }
}

/// One in so many updates is late, in [`Updates::with_late`].
const LATE_INTERVAL: usize = 10;

/// The time from the observation of a late update to its arrival.
const LATENESS: TimeDelta = TimeDelta::seconds(30);

/// Sends an update of each reader in turn.
pub struct Updates<'a> {
    share: &'a mut ThreadShare,
    request: Vec<u8>,
    /// Remaining updates of each lane.
    remaining: Vec<usize>,
    has_late: bool,
}

impl<'a> Updates<'a> {
    /// Updates without end.
    pub fn new(share: &'a mut ThreadShare) -> Self {
        Self::per_reader(share, usize::MAX)
    }

    /// `times` updates of each reader.
    pub fn per_reader(share: &'a mut ThreadShare, times: usize) -> Self {
        let remaining = (0..share.lanes())
            .map(|lane| times.saturating_mul(share.readers_in_lane(lane)))
            .collect();
        Self {
            share,
            request: Vec::new(),
            remaining,
            has_late: false,
        }
    }

    /// Updates without end. One in ten is an observation of half a minute ago.
    pub fn with_late(share: &'a mut ThreadShare) -> Self {
        Self {
            has_late: true,
            ..Self::new(share)
        }
    }
}

impl Script for Updates<'_> {
    fn next(&mut self, lane: usize) -> Option<&[u8]> {
        self.remaining[lane] = self.remaining[lane].checked_sub(1)?;
        let own = self.share.readers_in_lane(lane);
        let (reader, turn) = self.share.next(lane);
        let tenths = turn / own % 900;
        let position = (10 + tenths / 10, tenths % 10);
        self.request.clear();
        // Each pass through the readers makes others late.
        let is_late = self.has_late && (turn + turn / own).is_multiple_of(LATE_INTERVAL);
        let (length, occurred_at) = if is_late {
            let at = clock::now() - LATENESS;
            let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
            (66, format!(",\"occurred_at\":\"{at}\""))
        } else {
            (25, String::new())
        };
        let _ = write!(
            self.request,
            "PUT /api/v1/reading-sessions/{}/update HTTP/1.1\r\nhost: localhost\r\n{}\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n\
             {{\"current_position\":{}.{}{occurred_at}}}",
            reader.session, reader.authorization, position.0, position.1
        );
        Some(&self.request)
    }
}

/// Sends a batch of each reader in turn, like an app that was offline for a second.
pub struct Batches<'a> {
    share: &'a mut ThreadShare,
    /// Observations in a batch.
    size: usize,
    /// The start of the response if all observations were accepted.
    accepted: Vec<u8>,
    body: Vec<u8>,
    request: Vec<u8>,
}

impl<'a> Batches<'a> {
    /// The service accepts at most 50 observations in a batch.
    pub fn new(share: &'a mut ThreadShare, size: usize) -> Self {
        Self {
            share,
            size,
            accepted: format!("{{\"success_count\":{size},").into_bytes(),
            body: Vec::new(),
            request: Vec::new(),
        }
    }
}

impl Script for Batches<'_> {
    fn next(&mut self, lane: usize) -> Option<&[u8]> {
        let (reader, turn) = self.share.next(lane);
        self.body.clear();
        self.body.extend(b"{\"updates\":[");
        let now = clock::now();
        let (this, before) = (second(now), second(now - TimeDelta::seconds(1)));
        // Milliseconds since the start of the previous second. The batch spans less than a
        // second.
        let last = 1_000 + usize::try_from(now.timestamp_subsec_millis().min(999)).unwrap_or(0);
        for n in 0..self.size {
            let at = last - OBSERVATION_INTERVAL * (self.size - 1 - n);
            let (second, millis) = if at >= 1_000 {
                (&this, at - 1_000)
            } else {
                (&before, at)
            };
            let comma = if n == 0 { "" } else { "," };
            let tenths = (turn * self.size + n) % 900;
            let _ = write!(
                self.body,
                "{comma}{{\"session_id\":\"{}\",\"current_position\":{}.{},\
                 \"occurred_at\":\"{second}.{millis:03}Z\"}}",
                reader.session,
                10 + tenths / 10,
                tenths % 10
            );
        }
        self.body.extend(b"]}");
        write(
            &mut self.request,
            "POST",
            reader,
            "batch-update",
            &self.body,
        );
        Some(&self.request)
    }

    fn is_success(&self, response: &Response<'_>) -> bool {
        response.body.starts_with(&self.accepted)
    }
}

fn second(at: Timestamp) -> String {
    at.format("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Requests the active session of each reader in turn.
pub struct ActiveReads<'a> {
    share: &'a mut ThreadShare,
    request: Vec<u8>,
}

impl<'a> ActiveReads<'a> {
    pub fn new(share: &'a mut ThreadShare) -> Self {
        let request = Vec::new();
        Self { share, request }
    }
}

impl Script for ActiveReads<'_> {
    fn next(&mut self, lane: usize) -> Option<&[u8]> {
        let (reader, _) = self.share.next(lane);
        get(&mut self.request, reader, "active");
        Some(&self.request)
    }

    fn is_success(&self, response: &Response<'_>) -> bool {
        response.body.starts_with(b"{")
    }
}

/// Repeats the same request.
pub struct Repeat(pub Vec<u8>);

impl Script for Repeat {
    fn next(&mut self, _lane: usize) -> Option<&[u8]> {
        Some(&self.0)
    }
}

/// Writes a request without a body.
pub fn get(request: &mut Vec<u8>, reader: &PooledReader, path: &str) {
    request.clear();
    let _ = write!(
        request,
        "GET /api/v1/reading-sessions/{path} HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
        reader.authorization
    );
}

fn write(request: &mut Vec<u8>, method: &str, reader: &PooledReader, path: &str, body: &[u8]) {
    request.clear();
    let _ = write!(
        request,
        "{method} /api/v1/reading-sessions/{path} HTTP/1.1\r\nhost: localhost\r\n{}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        reader.authorization,
        body.len()
    );
    request.extend(body);
}
