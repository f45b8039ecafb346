//! The calls of the API that deliver a [`Plan`]: their requests, and a check of their
//! responses.

use chrono::{DateTime, TimeDelta, Utc};
use eventlog::clock;
use reqwest::Method;
use serde_json::{Value, json};

use super::plan::{Observation, Plan};
use super::view::Ids;
use crate::reader::ApiResponse;

/// The clock of the devices.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// How far the clock is ahead. `None` if it is right; only `sync` then contains
    /// `sent_at`.
    pub ahead: Option<TimeDelta>,
}

impl Device {
    pub const PUNCTUAL: Self = Self { ahead: None };

    /// A time by this clock.
    fn time(self, at: DateTime<Utc>) -> DateTime<Utc> {
        at + self.ahead.unwrap_or_default()
    }

    /// Adds `sent_at` to a body.
    fn sign(self, mut body: Value) -> Value {
        body["sent_at"] = json!(self.time(clock::now()));
        body
    }
}

/// An observation of a plan.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    Counted(usize, usize),
    AfterEnd(usize, usize),
}

#[derive(Clone, Debug)]
pub enum Call {
    Start(usize),
    Update(Seen),
    Batch(Vec<Seen>),
    End(usize),
    Sync(Vec<SyncedSession>),
}

/// A part of a session in a call of `sync`.
#[derive(Clone, Debug)]
pub struct SyncedSession {
    pub session: usize,
    pub observations: Vec<usize>,
    /// Whether the call contains the end.
    pub ended: bool,
}

impl Seen {
    fn find<'a>(&self, plan: &'a Plan) -> (usize, &'a Observation) {
        match *self {
            Self::Counted(session, index) => (session, &plan.sessions[session].observations[index]),
            Self::AfterEnd(session, index) => (session, &plan.sessions[session].after_end[index]),
        }
    }

    fn body(&self, plan: &Plan, device: Device) -> Value {
        observed(self.find(plan).1, device)
    }

    /// Whether the service may refuse it: after the reader's end has arrived.
    fn may_be_refused(&self) -> bool {
        matches!(self, Self::AfterEnd(..))
    }
}

fn percent(position: i64) -> Value {
    let position = i32::try_from(position).expect("at most a million");
    json!(f64::from(position) / 10_000.0)
}

fn observed(observation: &Observation, device: Device) -> Value {
    let mut body = json!({
        "current_position": percent(observation.position),
        "occurred_at": device.time(observation.at),
    });
    if let Some(locator) = &observation.locator {
        body["locator"] = json!(locator);
    }
    body
}

impl Call {
    /// The request of this call.
    #[must_use]
    pub fn request(&self, plan: &Plan, ids: &Ids, device: Device) -> (Method, String, Value) {
        let (method, path, body) = match self {
            Self::Start(number) => {
                let session = &plan.sessions[*number];
                let body = json!({
                    "session_id": ids.0[*number], "book_id": session.book,
                    "start_position": percent(session.start.position),
                    "occurred_at": device.time(session.start.at),
                    "device_id": session.device_id, "device_type": session.device_type,
                    "time_zone": session.zone,
                });
                (Method::POST, "/start".to_owned(), body)
            }
            Self::Update(seen) => {
                let session = ids.0[seen.find(plan).0];
                let path = format!("/{session}/update");
                (Method::PUT, path, seen.body(plan, device))
            }
            Self::Batch(all) => {
                let updates: Vec<Value> = all
                    .iter()
                    .map(|seen| {
                        let mut body = seen.body(plan, device);
                        body["session_id"] = json!(ids.0[seen.find(plan).0]);
                        body
                    })
                    .collect();
                let body = json!({ "updates": updates });
                (Method::POST, "/batch-update".to_owned(), body)
            }
            Self::End(number) => {
                let end = plan.sessions[*number].end.as_ref().expect("it has an end");
                let mut body = json!({ "occurred_at": device.time(end.at) });
                if let Some((position, locator)) = &end.position {
                    body["end_position"] = percent(*position);
                    if let Some(locator) = locator {
                        body["locator"] = json!(locator);
                    }
                }
                (Method::PUT, format!("/{}/end", ids.0[*number]), body)
            }
            Self::Sync(sessions) => {
                let sessions: Vec<Value> = sessions
                    .iter()
                    .map(|session| session.body(plan, ids, device))
                    .collect();
                let body = json!({ "sessions": sessions });
                (Method::POST, "/sync".to_owned(), body)
            }
        };
        let signed = device.ahead.is_some() || matches!(self, Self::Sync(_));
        let body = if signed { device.sign(body) } else { body };
        (method, path, body)
    }

    /// Checks that the service took what it must take.
    ///
    /// # Panics
    /// If it refused something else than a repeated end or an observation after the
    /// end.
    #[track_caller]
    pub fn check(&self, response: &ApiResponse) {
        let refused = response.status == 400;
        let allowed = match self {
            Self::Start(_) => response.status == 201,
            Self::Update(seen) => response.status == 200 || refused && seen.may_be_refused(),
            // A repeat, or the end was part of a sync.
            Self::End(_) => {
                response.status == 200
                    || refused && response.body["code"] == "session_already_ended"
            }
            Self::Batch(all) => {
                let results = response.body["results"].as_array();
                response.status == 200
                    && results.is_some_and(|results| {
                        let mut pairs = results.iter().zip(all);
                        pairs.all(|(result, seen)| {
                            result["success"] == true || seen.may_be_refused()
                        })
                    })
            }
            Self::Sync(sessions) => {
                let results = response.body["results"].as_array();
                response.status == 200
                    && results.is_some_and(|results| {
                        results.len() == sessions.len()
                            && results.iter().all(|result| {
                                result["success"] == true && result["refused"] == json!([])
                            })
                    })
            }
        };
        assert!(allowed, "{self:?}: {} {}", response.status, response.body);
    }
}

impl SyncedSession {
    fn body(&self, plan: &Plan, ids: &Ids, device: Device) -> Value {
        let session = &plan.sessions[self.session];
        let all = &session.observations;
        let mut observations: Vec<Value> = self
            .observations
            .iter()
            .map(|index| observed(&all[*index], device))
            .collect();
        let mut body = json!({
            "session_id": ids.0[self.session], "book_id": session.book,
            "started_at": device.time(session.start.at),
            "start_position": percent(session.start.position),
            "device_id": session.device_id, "device_type": session.device_type,
            "time_zone": session.zone,
        });
        if let Some(end) = session.end.as_ref().filter(|_| self.ended) {
            body["ended_at"] = json!(device.time(end.at));
            if let Some((position, locator)) = &end.position {
                // A sync has no position of the end, but the observation at that time.
                let last = Observation {
                    at: end.at,
                    position: *position,
                    locator: locator.clone(),
                };
                observations.push(observed(&last, device));
            }
        }
        body["observations"] = json!(observations);
        body
    }
}
