//! Readers with one active session each. They take turns, so that each reader sends as few
//! requests as possible and stays below the rate limits.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use tests::app::token;
use uuid::Uuid;

use super::scripts::Starts;
use super::{Load, closed};

/// Generator threads in a closed loop. One is enough to saturate the service. The empty
/// handler needs two, or the generator would be the bottleneck.
pub const THREADS: usize = 2;

/// Longest time in which all sessions must start.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// Readers, divided among the generator threads.
pub struct ReaderPool {
    /// The readers of each thread.
    pub shares: Vec<ThreadShare>,
    lanes: usize,
}

/// A reader, in the form that requests need.
pub struct PooledReader {
    pub id: Uuid,
    /// The id of the active session.
    pub session: String,
    /// The whole header line.
    pub authorization: String,
}

impl PooledReader {
    /// A reader with a session, which need not have started.
    pub fn new(id: Uuid, session: Uuid) -> Self {
        Self {
            id,
            session: session.to_string(),
            authorization: format!("authorization: Bearer {}\r\n", token(id)),
        }
    }
}

/// The readers of a thread, and the number of turns that each of its lanes has had.
pub struct ThreadShare {
    readers: Vec<PooledReader>,
    turns: Vec<usize>,
}

impl ThreadShare {
    /// The next reader of a lane, and the number of turns that the lane has had before.
    pub fn next(&mut self, lane: usize) -> (&PooledReader, usize) {
        let (lanes, own) = (self.lanes(), self.readers_in_lane(lane));
        let turn = self.turns[lane];
        self.turns[lane] += 1;
        (&self.readers[lane + lanes * (turn % own)], turn)
    }

    pub fn lanes(&self) -> usize {
        self.turns.len()
    }

    pub fn readers_in_lane(&self, lane: usize) -> usize {
        (self.readers.len() - lane).div_ceil(self.turns.len())
    }
}

impl ReaderPool {
    /// Divides readers among the threads and connections.
    pub fn new(readers: Vec<PooledReader>, connections: usize) -> anyhow::Result<Self> {
        let lanes = connections / THREADS;
        ensure!(
            lanes > 0 && readers.len() >= connections,
            "{} readers are too few for {connections} connections",
            readers.len()
        );
        let mut shares: Vec<ThreadShare> = (0..THREADS)
            .map(|_| ThreadShare {
                readers: Vec::with_capacity(readers.len() / THREADS + 1),
                turns: vec![0; lanes],
            })
            .collect();
        for (n, reader) in readers.into_iter().enumerate() {
            shares[n % THREADS].readers.push(reader);
        }
        Ok(Self { shares, lanes })
    }

    /// Creates readers and starts a session for each.
    pub fn start(address: SocketAddr, readers: usize, connections: usize) -> anyhow::Result<Self> {
        let new = (0..readers).map(|_| PooledReader::new(Uuid::new_v4(), Uuid::now_v7()));
        let mut pool = Self::new(new.collect(), connections)?;
        let load = pool.run(address, START_TIMEOUT, Starts::new)?;
        ensure!(
            load.successful == readers,
            "{} of {readers} sessions have started",
            load.successful
        );
        Ok(pool)
    }

    /// Runs a closed loop in which all readers take turns.
    pub fn run<'a, S: super::Script>(
        &'a mut self,
        address: SocketAddr,
        length: Duration,
        script: impl Fn(&'a mut ThreadShare) -> S,
    ) -> anyhow::Result<Load> {
        let mut scripts: Vec<S> = self.shares.iter_mut().map(script).collect();
        closed::run(address, &mut scripts, self.lanes, length)
    }

    /// All readers in one lane, for an open loop.
    pub fn into_single_lane(self) -> ThreadShare {
        let readers = self.shares.into_iter().flat_map(|share| share.readers);
        ThreadShare {
            readers: readers.collect(),
            turns: vec![0],
        }
    }

    pub fn readers(&self) -> impl Iterator<Item = &PooledReader> {
        self.shares.iter().flat_map(|share| &share.readers)
    }
}
