//! Readers with an active session each. They take turns, so that each is asked
//! for as rarely as can be: the rate limiter is on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use tests::app::token;
use uuid::Uuid;

use super::scripts::Starts;
use super::{Load, closed};

/// Threads of a generator in a closed loop. One would do for the service; an
/// empty handler needs the second to be the slower one.
pub const THREADS: usize = 2;

/// The longest that the starts of all sessions may take.
const STARTS: Duration = Duration::from_mins(2);

/// Readers, spread over the threads of the generator.
pub struct Crowd {
    /// Those of each thread.
    pub shares: Vec<Share>,
    lanes: usize,
}

/// A reader, as their requests need them.
pub struct Member {
    /// Who.
    pub reader: Uuid,
    /// The active session, as it is written.
    pub session: String,
    /// The header.
    pub authorization: String,
}

impl Member {
    /// A reader and their session, which need not have begun.
    pub fn of(reader: Uuid, session: Uuid) -> Self {
        Self {
            reader,
            session: session.to_string(),
            authorization: format!("authorization: Bearer {}\r\n", token(reader)),
        }
    }
}

/// The readers of a thread, and whose turn it is in each of its lanes.
pub struct Share {
    members: Vec<Member>,
    turns: Vec<usize>,
}

impl Share {
    /// The reader whose turn it is, and how many turns the lane has had.
    pub fn next(&mut self, lane: usize) -> (&Member, usize) {
        let (lanes, own) = (self.lanes(), self.of_lane(lane));
        let turn = self.turns[lane];
        self.turns[lane] += 1;
        (&self.members[lane + lanes * (turn % own)], turn)
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.turns.len()
    }

    /// How many readers a lane has.
    pub fn of_lane(&self, lane: usize) -> usize {
        (self.members.len() - lane).div_ceil(self.turns.len())
    }
}

impl Crowd {
    /// Readers, as they take turns over so many connections.
    pub fn of(members: Vec<Member>, connections: usize) -> anyhow::Result<Self> {
        let lanes = connections / THREADS;
        ensure!(
            lanes > 0 && members.len() >= connections,
            "{} readers are too few for {connections} connections",
            members.len()
        );
        let mut shares: Vec<Share> = (0..THREADS)
            .map(|_| Share {
                members: Vec::with_capacity(members.len() / THREADS + 1),
                turns: vec![0; lanes],
            })
            .collect();
        for (n, member) in members.into_iter().enumerate() {
            shares[n % THREADS].members.push(member);
        }
        Ok(Self { shares, lanes })
    }

    /// New readers, each of whom starts a session.
    pub fn start(address: SocketAddr, readers: usize, connections: usize) -> anyhow::Result<Self> {
        let members = (0..readers).map(|_| Member::of(Uuid::new_v4(), Uuid::now_v7()));
        let mut crowd = Self::of(members.collect(), connections)?;
        let load = crowd.ask(address, STARTS, Starts::of)?;
        ensure!(
            load.good == readers,
            "{} of {readers} sessions started",
            load.good
        );
        Ok(crowd)
    }

    /// Has all ask in turn, in a closed loop, for a while.
    pub fn ask<'a, S: super::Script>(
        &'a mut self,
        address: SocketAddr,
        length: Duration,
        script: impl Fn(&'a mut Share) -> S,
    ) -> anyhow::Result<Load> {
        let mut scripts: Vec<S> = self.shares.iter_mut().map(script).collect();
        closed::run(address, &mut scripts, self.lanes, length)
    }

    /// All readers, in one lane, for an open loop.
    pub fn in_one_lane(self) -> Share {
        let members = self.shares.into_iter().flat_map(|share| share.members);
        Share {
            members: members.collect(),
            turns: vec![0],
        }
    }

    /// All readers.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.shares.iter().flat_map(|share| &share.members)
    }
}
