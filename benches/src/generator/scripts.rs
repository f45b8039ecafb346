//! What readers' apps ask. Requests are written into a buffer that is kept.

use std::io::Write as _;

use domain::Timestamp;
use eventlog::clock;

use super::crowd::{Member, Share};
use super::{Answer, Script};

/// Observations in a batch, the most that the service takes.
pub const BATCH: usize = 50;

/// Milliseconds between the observations of a batch; the last one is now. So
/// close that a batch does not reach back behind what came before it.
const APART: usize = 20;

/// Each reader starts a session, once.
pub struct Starts<'a> {
    share: &'a mut Share,
    request: Vec<u8>,
}

impl<'a> Starts<'a> {
    /// Of these readers.
    pub fn of(share: &'a mut Share) -> Self {
        let request = Vec::new();
        Self { share, request }
    }
}

impl Script for Starts<'_> {
    fn next(&mut self, lane: usize) -> Option<&[u8]> {
        let own = self.share.of_lane(lane);
        let (member, turn) = self.share.next(lane);
        if turn >= own {
            return None;
        }
        // A reader who reads one book: any will do.
        let body = format!(
            "{{\"book_id\":\"{}\",\"session_id\":\"{}\",\"time_zone\":\"Europe/Berlin\"}}",
            member.reader, member.session
        );
        write(&mut self.request, "POST", member, "start", body.as_bytes());
        Some(&self.request)
    }
}

/// Each reader moves on, in turn.
pub struct Updates<'a> {
    share: &'a mut Share,
    request: Vec<u8>,
    /// Updates of each lane that are left.
    left: Vec<usize>,
}

impl<'a> Updates<'a> {
    /// Of these readers, without end.
    pub fn of(share: &'a mut Share) -> Self {
        Self::each(share, usize::MAX)
    }

    /// Of these readers, so often each.
    pub fn each(share: &'a mut Share, times: usize) -> Self {
        let left = (0..share.lanes())
            .map(|lane| times.saturating_mul(share.of_lane(lane)))
            .collect();
        Self {
            share,
            request: Vec::new(),
            left,
        }
    }
}

impl Script for Updates<'_> {
    fn next(&mut self, lane: usize) -> Option<&[u8]> {
        self.left[lane] = self.left[lane].checked_sub(1)?;
        let own = self.share.of_lane(lane);
        let (member, turn) = self.share.next(lane);
        let tenths = turn / own % 900;
        self.request.clear();
        let _ = write!(
            self.request,
            "PUT /api/v1/reading-sessions/{}/update HTTP/1.1\r\nhost: localhost\r\n{}\
             content-type: application/json\r\ncontent-length: 25\r\n\r\n\
             {{\"current_position\":{}.{}}}",
            member.session,
            member.authorization,
            10 + tenths / 10,
            tenths % 10
        );
        Some(&self.request)
    }
}

/// Each reader's app, that was offline for a second, sends what it saw.
pub struct Batches<'a> {
    share: &'a mut Share,
    body: Vec<u8>,
    request: Vec<u8>,
}

impl<'a> Batches<'a> {
    /// Of these readers.
    pub fn of(share: &'a mut Share) -> Self {
        Self {
            share,
            body: Vec::new(),
            request: Vec::new(),
        }
    }
}

impl Script for Batches<'_> {
    fn next(&mut self, lane: usize) -> Option<&[u8]> {
        let (member, turn) = self.share.next(lane);
        self.body.clear();
        self.body.extend(b"{\"updates\":[");
        let now = clock::now();
        let (this, before) = (second(now), second(now - chrono::TimeDelta::seconds(1)));
        // Counted from the second before; the span is shorter than one.
        let last = 1_000 + usize::try_from(now.timestamp_subsec_millis().min(999)).unwrap_or(0);
        for n in 0..BATCH {
            let at = last - APART * (BATCH - 1 - n);
            let (second, millis) = if at >= 1_000 {
                (&this, at - 1_000)
            } else {
                (&before, at)
            };
            let comma = if n == 0 { "" } else { "," };
            let tenths = (turn * BATCH + n) % 900;
            let _ = write!(
                self.body,
                "{comma}{{\"session_id\":\"{}\",\"current_position\":{}.{},\
                 \"occurred_at\":\"{second}.{millis:03}Z\"}}",
                member.session,
                10 + tenths / 10,
                tenths % 10
            );
        }
        self.body.extend(b"]}");
        write(
            &mut self.request,
            "POST",
            member,
            "batch-update",
            &self.body,
        );
        Some(&self.request)
    }

    fn is_good(&self, answer: &Answer<'_>) -> bool {
        // All fifty, or none counts.
        answer.body.starts_with(b"{\"success_count\":50,")
    }
}

fn second(at: Timestamp) -> String {
    at.format("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Each reader's app asks for the active session, in turn.
pub struct Actives<'a> {
    share: &'a mut Share,
    request: Vec<u8>,
}

impl<'a> Actives<'a> {
    /// Of these readers.
    pub fn of(share: &'a mut Share) -> Self {
        let request = Vec::new();
        Self { share, request }
    }
}

impl Script for Actives<'_> {
    fn next(&mut self, lane: usize) -> Option<&[u8]> {
        let (member, _) = self.share.next(lane);
        get(&mut self.request, member, "active");
        Some(&self.request)
    }

    fn is_good(&self, answer: &Answer<'_>) -> bool {
        answer.body.starts_with(b"{")
    }
}

/// The same request, over and over.
pub struct Same(pub Vec<u8>);

impl Script for Same {
    fn next(&mut self, _lane: usize) -> Option<&[u8]> {
        Some(&self.0)
    }
}

/// Writes a request without a body.
pub fn get(request: &mut Vec<u8>, member: &Member, path: &str) {
    request.clear();
    let _ = write!(
        request,
        "GET /api/v1/reading-sessions/{path} HTTP/1.1\r\nhost: localhost\r\n{}\r\n",
        member.authorization
    );
}

fn write(request: &mut Vec<u8>, method: &str, member: &Member, path: &str, body: &[u8]) {
    request.clear();
    let _ = write!(
        request,
        "{method} /api/v1/reading-sessions/{path} HTTP/1.1\r\nhost: localhost\r\n{}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        member.authorization,
        body.len()
    );
    request.extend(body);
}
