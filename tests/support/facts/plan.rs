//! What a reader did: sessions with observations, on several devices and in several
//! time zones.

use std::collections::BTreeSet;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use uuid::Uuid;

use crate::random_history::Random;

/// Zones with and without daylight saving time, with unusual offsets, and without a
/// name.
const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "-02:30",
];

const DEVICES: [(&str, &str); 3] = [
    ("phone", "mobile"),
    ("e-ink", "tablet"),
    ("laptop", "desktop"),
];

/// The reader's position at a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub at: DateTime<Utc>,
    /// In ten-thousandths of a percent.
    pub position: i64,
    pub locator: Option<String>,
}

/// The reader's own end of a session.
#[derive(Clone, Debug)]
pub struct PlannedEnd {
    pub at: DateTime<Utc>,
    /// The position and the locator of the end; `None` keeps the latest ones.
    pub position: Option<(i64, Option<String>)>,
}

#[derive(Clone, Debug)]
pub struct PlannedSession {
    pub book: Uuid,
    pub zone: &'static str,
    pub device_id: &'static str,
    pub device_type: &'static str,
    pub start: Observation,
    /// By time. Observations of one instant are in the order in which the device made
    /// them, and are always sent in one call. They may be before the start.
    pub observations: Vec<Observation>,
    pub end: Option<PlannedEnd>,
    /// Observations after the end. They do not count.
    pub after_end: Vec<Observation>,
}

/// All sessions of one reader. All times differ, except for observations of one
/// session.
#[derive(Clone, Debug)]
pub struct Plan {
    pub sessions: Vec<PlannedSession>,
}

/// The limits of a random plan.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// All times are within this time before now.
    pub span: TimeDelta,
    /// The largest number of periods. Sessions of one period may overlap, and have the
    /// same time zone.
    pub periods: u32,
    /// The largest number of observations of a session.
    pub observations: u32,
    /// The smallest distance of two different times. Tests whose times are shifted by
    /// the duration of a request need a distance that keeps the order.
    pub spacing: TimeDelta,
}

impl Shape {
    /// Within the last hour and a half: nothing is idle.
    pub const RECENT: Self = Self {
        span: TimeDelta::minutes(90),
        periods: 2,
        observations: 25,
        spacing: TimeDelta::milliseconds(1),
    };

    /// Several days, in several zones. Without a long idle limit, most sessions are
    /// idle.
    pub const DAYS: Self = Self {
        span: TimeDelta::days(25),
        periods: 6,
        observations: 20,
        spacing: TimeDelta::milliseconds(1),
    };

    /// Like [`Shape::RECENT`], with times that stay in order when each is shifted by
    /// the duration of a request.
    pub const SPACED: Self = Self {
        spacing: TimeDelta::seconds(20),
        ..Self::RECENT
    };
}

impl PlannedSession {
    /// The observations that count, without the end.
    pub fn counted(&self) -> impl Iterator<Item = &Observation> {
        std::iter::once(&self.start).chain(&self.observations)
    }
}

impl Plan {
    #[must_use]
    pub fn random(random: &mut Random, now: DateTime<Utc>, shape: Shape) -> Self {
        // The precision of the service.
        let now = now.trunc_subsecs(3);
        let mut planner = Planner {
            random,
            shape,
            taken: BTreeSet::new(),
            sessions: Vec::new(),
        };
        let periods = 1 + planner.random.below_u32(shape.periods);
        let length = shape.span / i32::try_from(periods).expect("few periods");
        let mut zone = planner.zone();
        for period in 0..periods {
            let from = now - shape.span + length * i32::try_from(period).expect("few periods");
            // Each period ends before the next one begins, and the last one before now.
            let until = from + length - TimeDelta::minutes(6);
            planner.period(from, until, zone, period + 1 == periods);
            if planner.random.below(3) == 0 {
                zone = planner.zone();
            }
        }
        Self {
            sessions: planner.sessions,
        }
    }
}

struct Planner<'a> {
    random: &'a mut Random,
    shape: Shape,
    /// The times of all sessions.
    taken: BTreeSet<DateTime<Utc>>,
    sessions: Vec<PlannedSession>,
}

impl Planner<'_> {
    fn zone(&mut self) -> &'static str {
        ZONES[self.random.below_u32(9) as usize]
    }

    /// One to three sessions, which may overlap.
    fn period(
        &mut self,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
        zone: &'static str,
        last: bool,
    ) {
        for _ in 0..=self.random.below(3) {
            let latest_start = ((until - from) / 2).num_milliseconds().unsigned_abs();
            let start = from + milliseconds(self.random.below(latest_start));
            self.session(start, until, zone, last);
        }
    }

    fn session(
        &mut self,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
        zone: &'static str,
        last: bool,
    ) {
        let (device_id, device_type) = DEVICES[self.random.below_u32(3) as usize];
        let start = Observation {
            locator: None,
            ..self.observation(from)
        };
        let mut observations = Vec::new();
        let mut at = start.at;
        for _ in 0..self.random.below_u32(self.shape.observations) {
            let next = at + self.pause();
            if next >= until {
                break;
            }
            let observed = self.observation(next);
            at = observed.at;
            observations.push(observed);
            if self.random.below(10) == 0 {
                observations.push(self.observation_at(at));
            }
        }
        let mut after_end = Vec::new();
        let end = (self.random.below(2) == 0).then(|| {
            let end = self.end(at, &observations);
            // The reader's newest observation is always one that counts.
            let mut late = end.at;
            let count = if last { 0 } else { self.random.below(3) };
            for _ in 0..count {
                late += milliseconds(1_000 + self.random.below(50_000));
                after_end.push(self.observation(late));
            }
            end
        });
        if self.random.below(8) == 0 {
            // It moves the start of the session.
            let before = start.at - milliseconds(1_000 + self.random.below(100_000));
            observations.insert(0, self.observation(before));
        }
        self.sessions.push(PlannedSession {
            book: Uuid::from_u128(u128::from(self.random.below(3))),
            zone,
            device_id,
            device_type,
            start,
            observations,
            end,
            after_end,
        });
    }

    /// An end at the last observation or some time after it.
    fn end(&mut self, last: DateTime<Utc>, observations: &[Observation]) -> PlannedEnd {
        // Shifted by the duration of their requests, the two times would differ.
        let exact = self.shape.spacing < TimeDelta::seconds(1);
        if exact && !observations.is_empty() && self.random.below(4) == 0 {
            return PlannedEnd {
                at: last,
                position: None,
            };
        }
        let later = milliseconds(1_000 + self.random.below(140_000));
        let at = self.free(last + later);
        // A sync expresses it as an observation, so no other one has this time.
        let position = (self.random.below(2) == 0).then(|| {
            let observed = self.observation_at(at);
            (observed.position, observed.locator)
        });
        PlannedEnd { at, position }
    }

    /// This time, or the next one that no other observation has.
    fn free(&mut self, mut at: DateTime<Utc>) -> DateTime<Utc> {
        let spacing = self.shape.spacing;
        loop {
            let mut near = self.taken.range(at - spacing..=at + spacing);
            let taken = near.find(|other| (at - **other).abs() < spacing);
            let Some(taken) = taken else {
                self.taken.insert(at);
                return at;
            };
            at = *taken + spacing;
        }
    }

    fn observation(&mut self, at: DateTime<Utc>) -> Observation {
        let at = self.free(at);
        self.observation_at(at)
    }

    fn observation_at(&mut self, at: DateTime<Utc>) -> Observation {
        Observation {
            at,
            position: i64::from(self.random.below_u32(1_000_001)),
            locator: (self.random.below(3) == 0)
                .then(|| format!("epubcfi(/6/{})", self.random.below(1_000))),
        }
    }

    /// The time until the next observation: a page, a heartbeat, or a pause that is
    /// longer than the gap that counts as reading.
    fn pause(&mut self) -> TimeDelta {
        milliseconds(match self.random.below(10) {
            0..6 => 1_000 + self.random.below(90_000),
            6..9 => 90_000 + self.random.below(120_000),
            _ => 600_000 + self.random.below(1_800_000),
        })
    }
}

fn milliseconds(count: u64) -> TimeDelta {
    TimeDelta::milliseconds(i64::try_from(count).expect("less than a month"))
}
